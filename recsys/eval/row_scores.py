"""Every model's metrics on every held-out row, segment by segment: what two reports compare.

A row stands in each of its segments, since item segments count part of its targets only. There are
no user ids and no items in it; rows are numbered in the order of the dataset's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from recsys.artifact import Artifact
from recsys.eval.segments import Segment
from recsys.metrics import ranking_metrics

ROWS = "rows.parquet"
ROW_CUTOFF = 10
ROW_METRICS = ("recall@10", "ndcg@10", "mrr@10")
SEGMENT, ROW = "segment", "row"


@dataclass
class RowScores:
    """`rows` by segment, and each model's (R, metrics) float32 values of `ROW_METRICS` there."""

    rows: dict[str, np.ndarray]
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The models' names."""
        return list(self.values)

    def of(self, segment: str) -> np.ndarray:
        """(R, models, metrics) float64 values of a segment's rows."""
        return np.stack([of_model[segment] for of_model in self.values.values()], axis=1).astype(
            np.float64
        )

    def to_table(self) -> pa.Table:
        """One line for each row of each segment, one column for each model and metric."""
        lengths = [len(rows) for rows in self.rows.values()]
        codes = pa.array(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))
        columns: dict[str, object] = {
            SEGMENT: pa.DictionaryArray.from_arrays(codes, pa.array(self.rows, pa.string())),
            ROW: np.concatenate([*self.rows.values()]).astype(np.int32),
        }
        for model, values in self.values.items():
            whole = np.concatenate([values[segment] for segment in self.rows])
            columns |= {f"{model}:{m}": whole[:, at] for at, m in enumerate(ROW_METRICS)}
        return pa.table(columns)


def read_row_scores(report: Artifact, models: Sequence[str]) -> RowScores:
    """The row scores of some models of a report.

    Raises:
        ValueError: the report is of an older release, or has no such model.
    """
    if ROWS not in report.names():
        raise ValueError(f"{report.uri} has no {ROWS}: an older release made it; evaluate again")
    table = report.read_table(ROWS)
    named = [name.rpartition(":")[0] for name in table.column_names if ":" in name]
    if missing := [model for model in models if model not in named]:
        known = ", ".join(dict.fromkeys(named))
        raise ValueError(f"{report.uri} has no model {missing}; it has: {known}")
    segments = table[SEGMENT].combine_chunks()
    codes, numbers = segments.indices.to_numpy(), table[ROW].to_numpy()
    places = {name: codes == code for code, name in enumerate(segments.dictionary.to_pylist())}
    values = {
        model: np.stack([table[f"{model}:{m}"].to_numpy() for m in ROW_METRICS], axis=1)
        for model in models
    }
    return RowScores(
        {name: numbers[mask] for name, mask in places.items()},
        {model: {name: v[mask] for name, mask in places.items()} for model, v in values.items()},
    )


def score_segments(
    ranked: np.ndarray, found: Sequence[Segment], cutoffs: Sequence[int]
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Mean metrics for each segment, where `users` is its number of rows; and its row scores."""
    means: dict[str, dict[str, float]] = {}
    rows: dict[str, np.ndarray] = {}
    for name, numbers, targets in found:
        values = ranking_metrics(ranked[numbers], targets, cutoffs)
        means[name] = {metric: float(value.mean()) for metric, value in values.items()}
        means[name] |= {"users": len(numbers)}
        rows[name] = np.stack([values[m] for m in ROW_METRICS], axis=1).astype(np.float32)
    return means, rows
