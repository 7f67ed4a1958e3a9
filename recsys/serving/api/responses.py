"""Answers, as they travel."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from recsys.engine.query.understanding import QueryUnderstanding

if TYPE_CHECKING:  # a client reads answers, and needs no engine
    from recsys.engine.shop_search import ShopAnswer
    from recsys.schema import Answer, Explanation


class Cause(BaseModel):
    """An event of the history that raised an item's score."""

    item_id: str
    title: str | None
    contribution: float = Field(description="By how much the score falls without the event.")


class WhyItem(BaseModel):
    """Why an item is answered, told from data alone."""

    sentence: str
    events: list[Cause]
    shared: dict[str, str] = Field(description="Attributes in common with those events' items.")

    @classmethod
    def of(cls, explanation: Explanation) -> WhyItem:
        """The engine's explanation as it travels."""
        return cls(
            sentence=explanation.sentence,
            events=[
                Cause(item_id=item_id, title=title, contribution=moved)
                for item_id, title, moved in explanation.events
            ],
            shared=dict(explanation.shared),
        )


class RecommendedItem(BaseModel):
    """One answered item; `score` is a cosine and its bonus, or a share of events if popular."""

    item_id: str
    score: float
    title: str | None
    probability: float | None = Field(
        default=None,
        description="That the user takes it, where the model has such a head; ranked for a text by "
        "a final ranker: that it fits that.",
    )
    why: WhyItem | None = None


class RecommendResponse(BaseModel):
    """Items, best first."""

    items: list[RecommendedItem]
    source: str = Field(description="'model', or 'popular' where no known item was in the history.")
    segment: str | None = Field(
        default=None, description="Whose popular items these are, such as 'country=DE'."
    )
    unknown_items: list[str] = Field(description="Ids of the request the catalogue does not have.")
    degraded: list[str] = Field(default=[], description="What could not be used for this answer.")
    variants: dict[str, str] = Field(default={}, description="Experiments this answer is part of.")
    model_version: str = Field(description="Digest of the checkpoint that answered.")
    request_id: str | None = Field(default=None, description="Send it along with events.")

    @classmethod
    def of(
        cls, answer: Answer, model_version: str, why: list[Explanation] | None = None, **told: Any
    ) -> RecommendResponse:
        """The engine's answer as it travels."""
        reasons = [WhyItem.of(e) for e in why] if why else [None] * len(answer.items)
        items = [
            RecommendedItem(
                item_id=item.item_id,
                score=item.score,
                title=item.title,
                probability=item.probability,
                why=reason,
            )
            for item, reason in zip(answer.items, reasons, strict=True)
        ]
        return cls(
            items=items,
            source=answer.source,
            segment=answer.segment,
            unknown_items=answer.unknown_items,
            model_version=model_version,
            **told,
        )


class BatchResponse(BaseModel):
    """Answers in the order of the requests."""

    answers: list[RecommendResponse]


class FoundItem(BaseModel):
    """One item that was found; `score` joins its places by words, by meaning (or the two as a final
    ranker has ordered them) and by history."""

    item_id: str
    score: float
    title: str | None
    lexical_rank: int | None = Field(description="Its place by words, from 1.")
    dense_rank: int | None = Field(description="Its place by meaning, from 1.")
    probability: float | None = Field(
        default=None,
        exclude_if=lambda chance: chance is None,
        description="That it fits, of items that a final ranker has ordered; else it is absent.",
    )


class FacetCount(BaseModel):
    """How many items have a value, or lie in `minimum` <= x < `maximum`."""

    count: int
    value: str | None
    minimum: float | None
    maximum: float | None


class FacetResponse(BaseModel):
    """Counts of one column among what was found."""

    column: str
    counts: list[FacetCount]
    missing: int = Field(description="Items without a value.")
    others: int = Field(description="Items with a value that is not listed.")


class SearchResponse(BaseModel):
    """Items that fit a text, best first."""

    items: list[FoundItem]
    source: str = Field(description="'search', or 'popular' where nothing fitted.")
    personal: bool = Field(description="Whether a history had a say.")
    query_understanding: QueryUnderstanding
    relaxed: bool = Field(description="Nothing fitted all that was understood; the text alone did.")
    facets: list[FacetResponse]
    unknown_items: list[str]
    degraded: list[str]
    variants: dict[str, str]
    model_version: str
    request_id: str | None

    @classmethod
    def of(cls, answer: ShopAnswer, **told: Any) -> SearchResponse:
        """The engine's answer as it travels."""
        found = answer.found
        return cls(
            items=[FoundItem(**asdict(item)) for item in found.items],
            source=found.source,
            personal=found.personal,
            query_understanding=answer.understanding,
            relaxed=answer.relaxed,
            facets=[FacetResponse(**asdict(facet)) for facet in answer.facets],
            unknown_items=found.unknown_items,
            **told,
        )


class SuggestedText(BaseModel):
    """One way a text may go on."""

    text: str
    kind: str = Field(description="'title', 'category', 'brand' or 'query'.")
    item_id: str | None = Field(description="An item of that title.")


class SuggestResponse(BaseModel):
    """Ways a text may go on, best first."""

    suggestions: list[SuggestedText]


class EventsResponse(BaseModel):
    """What became of the events."""

    accepted: int
    duplicates: int = Field(description="Events whose id was there before; nothing changed.")
    outdated: int = Field(default=0, description="Events too old to be remembered; logged only.")
    degraded: list[str] = Field(default=[], description="What could not be done with them.")


class ForgottenResponse(BaseModel):
    """What was deleted of a user."""

    deleted_events: int


class ItemResponse(BaseModel):
    """One item of the catalogue."""

    item_id: str
    title: str | None
    attributes: dict[str, Any]
    model_version: str


class ItemChangedResponse(BaseModel):
    """An item is changed; every replica has that within `items.poll_s` seconds."""

    item_id: str
    change: int = Field(description="Its number: a replica whose item_changes reach it has it.")
    applied: bool = Field(description="Whether the replica that answers has it already.")
    warnings: list[str] = Field(default=[], description="Values not used, by prepare's rules.")
    model_version: str


class ModelResponse(BaseModel):
    """Which model answers."""

    model_version: str
    index_version: str
    ranker_version: str | None = Field(
        default=None, description="Digest of the final ranker of search, if there is one."
    )
    code_version: str
    num_items: int
    item_changes: int = Field(description="Number of the last change of items that is applied.")
    config: dict
    refused: dict[str, str] = Field(description="Versions that were promoted and not taken; why.")


class Problem(BaseModel):
    """An error, as RFC 9457 says (application/problem+json)."""

    title: str
    status: int
    detail: str
