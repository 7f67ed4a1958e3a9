"""Request bodies. Unknown fields are refused, sizes are bounded by `Limits` of the service."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.engine.query.understanding import QueryUnderstanding

MAX_ID_LENGTH = 512
MAX_TIMESTAMP = 100_000_000_000
"""Unix seconds of the year 5138: a larger number is in milliseconds."""
MAX_QUERY_LENGTH = 10_000
"""Characters of a search text; what is longer is no query but an attempt."""

MAX_TEXT_LENGTH = 100_000
"""Characters of a text of an item, markup included; prepare keeps `max_text_chars` of it."""
MAX_ATTRIBUTES = 100
MAX_WHOLE = 2**53
"""Up to here whole numbers are the same in JSON everywhere."""

ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
UserId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
ItemText = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
Whole = Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)]
ItemValue = ItemText | bool | Whole | float | None
TopK = Annotated[int, Field(ge=1)]
Timestamp = Annotated[int, Field(ge=0, le=MAX_TIMESTAMP)]


class RequestModel(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class HistoryEvent(RequestModel):
    """One event of the user: the item, and when and what where it is known."""

    item_id: ItemId
    timestamp: Timestamp | None = Field(default=None, description="Unix seconds.")
    event: Name | None = Field(default=None, description="view, click, cart, purchase, ...")


class ItemFilter(RequestModel):
    """Items may be answered whose column has one of the values, or lies in the range."""

    column: Name = Field(description="category, brand, price, or any column of the items.")
    values: list[str | float | bool] = Field(default=[], description="Any of these.")
    minimum: float | None = None
    maximum: float | None = None
    negated: bool = Field(default=False, description="Every item but those.")


class PersonalRequest(RequestModel):
    """Whom to answer: a user whose history the service remembers, or one sent along."""

    user_id: UserId | None = Field(
        default=None, description="Whose remembered history to use, where none is sent."
    )
    history: list[ItemId | HistoryEvent] | None = Field(
        default=None, description="Oldest first: item ids, or events with time. May be empty."
    )
    context: dict[Name, Name] = Field(
        default={}, description="Such as country or device; decides which popular items are meant."
    )


class RecommendRequest(PersonalRequest):
    """Ask for items for a user."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["user_id"]}, {"required": ["history"]}]}
    )

    top_k: TopK = Field(default=10, description="How many items.")
    exclude: list[ItemId] = Field(default=[], description="Ids never to return.")
    filters: list[ItemFilter] = Field(default=[], description="All of them must hold.")
    diversity: float = Field(
        default=0.0, ge=0.0, le=1.0, description="0 is by score alone, 1 by difference alone."
    )
    max_per_category: TopK | None = Field(
        default=None, description="At most so many items of one category."
    )
    explain: bool = Field(default=False, description="Say why each item is answered.")

    @model_validator(mode="after")
    def _names_a_user(self) -> Self:
        if self.user_id is None and self.history is None:
            raise ValueError("send 'user_id', or 'history', which may be empty")
        return self


class RankRequest(PersonalRequest):
    """Ask for the order of given items for a user, or for a search, or for both."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [name]} for name in ("user_id", "history", "text")]
        }
    )

    item_ids: list[ItemId] = Field(min_length=1, description="The candidates.")
    text: str | None = Field(
        default=None, max_length=MAX_QUERY_LENGTH, description="What the user searches for."
    )
    personal: float = Field(
        default=0.3, ge=0.0, le=1.0, description="Beside a text, how much the history counts."
    )
    explain: bool = Field(default=False, description="Say why, item by item.")

    @model_validator(mode="after")
    def _names_a_user_or_a_search(self) -> Self:
        if self.user_id is None and self.history is None and self.text is None:
            raise ValueError("send 'user_id', 'history' or 'text': something to rank by")
        return self


class SimilarItemsRequest(RequestModel):
    """Ask for the items nearest to one item."""

    item_id: ItemId
    top_k: TopK = Field(default=10, description="How many items.")
    filters: list[ItemFilter] = Field(default=[], description="All of them must hold.")


class ItemRequest(RequestModel):
    """What an item is from now on, whole: what is left out is not known of it."""

    title: str = Field(min_length=1, max_length=MAX_TEXT_LENGTH)
    attributes: dict[Name, ItemValue] = Field(
        default={},
        max_length=MAX_ATTRIBUTES,
        description="category, brand, price, description, or any column of the items.",
    )


class BatchRequest(RequestModel):
    """Many requests for recommendations in one."""

    requests: list[RecommendRequest] = Field(min_length=1)


class FeedbackEvent(RequestModel):
    """What a user did."""

    user_id: UserId
    item_id: ItemId
    event: Name = Field(description="view, click, cart, purchase, rating, ...")
    timestamp: Timestamp | None = Field(default=None, description="Unix seconds; now if left out.")
    event_id: Name | None = Field(
        default=None, description="A repeated id changes nothing: send one, and retry at will."
    )
    value: float | None = Field(default=None, description="A rating, or an amount.")
    request_id: Name | None = Field(
        default=None, description="The answer in which the user saw the item."
    )


class EventsRequest(RequestModel):
    """Events to remember, in any order."""

    events: list[FeedbackEvent] = Field(min_length=1)


class SearchRequest(PersonalRequest):
    """Search the catalogue, for a user or for nobody in particular."""

    text: str = Field(max_length=MAX_QUERY_LENGTH, description="What the user typed.")
    top_k: TopK = Field(default=10, description="How many items.")
    personal: float = Field(
        default=0.3, ge=0.0, le=1.0, description="How much the history counts; 0 is not at all."
    )
    filters: list[ItemFilter] = Field(default=[], description="All of them must hold.")
    use_understanding: bool = Field(
        default=True, description="Search by what was understood; else by the text as it is."
    )
    query_understanding: QueryUnderstanding | None = Field(
        default=None, description="One that was answered before, perhaps edited."
    )
    facets: list[Name] = Field(
        default=[], description="Columns whose values are to be counted among what is found."
    )
