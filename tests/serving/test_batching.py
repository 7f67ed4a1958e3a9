"""How full a batch is: by queries or by events with padding, whichever comes first."""

from __future__ import annotations

import pytest

from recsys.config import ServeArgs
from recsys.engine.recommender import Event, Query
from recsys.serving.batching import FULL, fullness

ARGS = ServeArgs(checkpoint="c", index="i", max_batch_size=10, max_batch_events=200)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([0], FULL / 10),
        ([0] * 10, FULL),
        ([20] * 10, FULL),  # 200 events
        ([5] * 9 + [40], 2 * FULL),  # padded to 40: 400 events
        ([50, 1], FULL / 2),
        ([500], FULL),  # one alone is never more than a batch
        ([500, 0], 5 * FULL),
    ],
)
def test_a_batch_is_as_full_as_its_queries_or_its_padded_events(lengths, expected) -> None:
    queries = [Query([Event("a")] * length) for length in lengths]
    assert fullness(queries, ARGS) == expected
