"""What is asked of the system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.capacity.architectures import MODELS
from benchmarks.capacity.facts import GPUS

Tuning = Literal["frozen", "lora", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The size of a deployment.

    Raises:
        ValueError: a number is not positive, or the model or the card is unknown.
    """

    users: int
    """Users with a history."""
    items: int
    """Items of the catalogue."""
    interactions_per_day: int
    """Events of all users in a day."""
    requests_per_second: float
    """Requests for recommendations in the busiest hour."""
    model: str = "minilm-22m"
    """The language model that reads item texts."""
    tuning: Tuning = "frozen"
    """Whether it learns: `frozen`, by `lora`, or in `full`."""
    item_tokens: int = 64
    """Tokens of an item's text, on average."""
    days: int = 90
    """Days of events that training reads."""
    max_history: int = 50
    """Events of a training window and of a request."""
    embedding_size: int = 128
    """Width of item and user vectors."""
    epochs: int = 5
    """Passes over the windows."""
    windows_a_step: int = 2_048
    """Windows of a training step, over all GPUs."""
    negatives: int = 4_096
    """Uniform negatives of a step."""
    gpu: str = "H100"
    """The card."""
    gpus: int = 8
    """How many of them train."""

    def __post_init__(self) -> None:
        numbers = {
            name: value
            for name in self.__slots__
            if isinstance(value := getattr(self, name), int | float)
        }
        wrong = {name: value for name, value in numbers.items() if value <= 0}
        if wrong:
            raise ValueError(f"must be above 0, and are not: {wrong}")
        if self.model not in MODELS:
            raise ValueError(f"model '{self.model}' is unknown: name one of {', '.join(MODELS)}")
        if self.gpu not in GPUS:
            raise ValueError(f"gpu '{self.gpu}' is unknown: name one of {', '.join(GPUS)}")
        if self.windows_a_step % self.gpus:
            raise ValueError(
                f"windows_a_step {self.windows_a_step} is not a multiple of gpus {self.gpus}"
            )

    @property
    def events(self) -> int:
        """Events that training reads."""
        return self.interactions_per_day * self.days

    @property
    def active_users(self) -> int:
        """Users who can have an event in that time."""
        return min(self.users, self.events)

    @property
    def windows(self) -> int:
        """Training windows: at least one a user, and none longer than `max_history`."""
        return max(self.active_users, -(-self.events // self.max_history))
