"""What travels over HTTP: requests, answers and problems."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recsys.engine.recommender import Event, Query
from recsys.schema import Answer

MAX_ID_LENGTH = 512
MAX_TIMESTAMP = 100_000_000_000
"""Unix seconds of the year 5138: a larger number is in milliseconds."""

ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]


class RequestModel(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HistoryEvent(RequestModel):
    """One event of the user: the item, and when and what where it is known."""

    item_id: ItemId
    timestamp: Annotated[int, Field(ge=0, le=MAX_TIMESTAMP)] | None = Field(
        default=None, description="Unix seconds."
    )
    event: Annotated[str, Field(max_length=MAX_ID_LENGTH)] | None = Field(
        default=None, description="view, click, cart, purchase, rating, ..."
    )


class RecommendRequest(RequestModel):
    """Ask for items for a user, whose history comes with the request."""

    history: list[ItemId | HistoryEvent] = Field(
        description="Oldest first: item ids, or events with time. May be empty."
    )
    top_k: Annotated[int, Field(ge=1)] = Field(default=10, description="How many items.")
    exclude: list[ItemId] = Field(default=[], description="Ids never to return.")

    def query(self) -> Query:
        """The request in the engine's words."""
        events = [
            Event(e) if isinstance(e, str) else Event(e.item_id, e.timestamp, e.event)
            for e in self.history
        ]
        return Query(events, self.top_k, self.exclude)


class SimilarItemsRequest(RequestModel):
    """Ask for the items nearest to one item."""

    item_id: ItemId
    top_k: Annotated[int, Field(ge=1)] = Field(default=10, description="How many items.")


class RecommendedItem(BaseModel):
    """One answered item; `score` is a cosine and its bonus, or a share of events if popular."""

    item_id: str
    score: float
    title: str | None


class RecommendResponse(BaseModel):
    """Items, best first."""

    items: list[RecommendedItem]
    source: str = Field(description="'model', or 'popular' where no known item was in the history.")
    unknown_items: list[str] = Field(description="Ids of the request the catalogue does not have.")
    model_version: str = Field(description="Digest of the checkpoint that answered.")

    @classmethod
    def of(cls, answer: Answer, model_version: str) -> RecommendResponse:
        """The engine's answer as it travels."""
        items = [
            RecommendedItem(item_id=i.item_id, score=i.score, title=i.title) for i in answer.items
        ]
        return cls(
            items=items,
            source=answer.source,
            unknown_items=answer.unknown_items,
            model_version=model_version,
        )


class ModelResponse(BaseModel):
    """Which model answers."""

    model_version: str
    index_version: str
    code_version: str
    num_items: int
    config: dict


class Problem(BaseModel):
    """An error, as RFC 9457 says (application/problem+json)."""

    title: str
    status: int
    detail: str
