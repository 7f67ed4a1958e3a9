"""What a user encoder knows of an event beside its item: gaps, the calendar, repeats.

Shapes: B users, H positions, D embedding size.
"""

from __future__ import annotations

import torch
from torch import nn

from recsys.schema import SECONDS_A_DAY, Batch

NUM_GAPS = 32
"""Buckets of the gap between two events: powers of two in seconds, 2^31 is 68 years."""
INIT_STD = 0.02
"""As in GPT-2. With torch's default of 1 position vectors drown the items and learning stalls."""
THURSDAY = 3
"""Day of the week, from Monday, of Unix time 0."""
REPEATS = (1, 2, 3, 5)
"""Where a bucket of earlier occurrences begins: 0, 1, 2, 3 to 4, 5 and more."""


def gap_buckets(timestamps_BH: torch.Tensor) -> torch.Tensor:
    """Log2 bucket (1 .. NUM_GAPS) of the seconds since the event before; 0 where unknown."""
    before_BH = torch.roll(timestamps_BH, 1, dims=1)
    known_BH = (timestamps_BH >= 0) & (before_BH >= 0)
    known_BH[:, 0] = False
    return log_buckets(timestamps_BH - before_BH, known_BH)


def log_buckets(seconds: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Log2 bucket (1 .. NUM_GAPS) of seconds, negative ones as 0; 0 where not `known`."""
    buckets = torch.log2(seconds.clamp_min(0).double() + 1).long().clamp_max(NUM_GAPS - 1) + 1
    return torch.where(known, buckets, torch.zeros_like(buckets))


def repeat_buckets(item_indexes_BH: torch.Tensor) -> torch.Tensor:
    """Bucket (0 .. len(REPEATS)) of how often each event's item occurred before it."""
    same_BHH = item_indexes_BH[:, :, None] == item_indexes_BH[:, None, :]
    counts_BH = same_BHH.tril(-1).sum(-1)
    starts = torch.tensor(REPEATS, device=counts_BH.device)
    return torch.bucketize(counts_BH, starts, right=True)


class CalendarVectors(nn.Module):
    """The hour of the day and the day of the week of an event, in UTC; 0 at unknown times."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hour = small_embedding(24, size)
        self.weekday = small_embedding(7, size)

    def forward(self, batch: Batch) -> torch.Tensor:
        """(B, H, D) vectors."""
        hours_BH = batch.timestamps // 3600 % 24
        weekdays_BH = (batch.timestamps // SECONDS_A_DAY + THURSDAY) % 7
        known_BH1 = (batch.timestamps >= 0)[..., None]
        return (self.hour(hours_BH) + self.weekday(weekdays_BH)) * known_BH1


class RepeatVectors(nn.Module):
    """How often an event's item occurred before in the batch's history, and whether just before."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.count = small_embedding(len(REPEATS) + 1, size)
        self.again = small_embedding(2, size)

    def forward(self, batch: Batch) -> torch.Tensor:
        """(B, H, D) vectors."""
        items_BH = batch.item_indexes
        again_BH = torch.zeros_like(items_BH)
        again_BH[:, 1:] = items_BH[:, 1:] == items_BH[:, :-1]
        return self.count(repeat_buckets(items_BH)) + self.again(again_BH)


def small_embedding(rows: int, size: int) -> nn.Embedding:
    """A table of small random vectors."""
    table = nn.Embedding(rows, size)
    nn.init.normal_(table.weight, std=INIT_STD)
    return table
