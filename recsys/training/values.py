"""The values of the training targets, ratings or amounts: whether there are any, and what like."""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys import schema
from recsys.artifact import Artifact
from recsys.models.heads import ITEM_PRIOR, ValueFacts


def check_values(dataset: Artifact) -> None:
    """Hold that a dataset's training rows have values.

    Raises:
        ValueError: they have none.
    """
    names = dataset.names("train/")
    if names and schema.VALUES not in dataset.read_table(names[0]).column_names:
        raise ValueError(
            f"training.rating_weight needs values, and {dataset.uri} has none: prepare "
            "interactions that have a column 'value' with prepare.keep_values = true, or set "
            "rating_weight to 0"
        )


def read_value_facts(dataset: Artifact) -> ValueFacts:
    """Mean, scale and items' offsets of the values of all training targets.

    Raises:
        ValueError: no value is known.
    """
    size = dataset.manifest.facts["num_items"]
    counts_N, totals_N, squares = np.zeros(size), np.zeros(size), 0.0
    for name in dataset.names("train/"):
        items, values = _targets(dataset.read_table(name, [schema.ITEM_INDEXES, schema.VALUES]))
        counts_N += np.bincount(items, minlength=size)
        totals_N += np.bincount(items, values, minlength=size)
        squares += float(np.square(values).sum())
    count = counts_N.sum()
    if not count:
        raise ValueError(
            f"training.rating_weight needs values, and no value of {dataset.uri} is known"
        )
    mean = float(totals_N.sum() / count)
    scale = float(np.sqrt(max(0.0, squares / count - mean**2))) or 1.0
    offsets_N = (totals_N - counts_N * mean) / (counts_N + ITEM_PRIOR) / scale
    return ValueFacts(mean, scale, torch.from_numpy(offsets_N.astype(np.float32)))


def _targets(windows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Items and known values (float64) of all events but each window's first."""
    lists = [windows[name].combine_chunks() for name in (schema.ITEM_INDEXES, schema.VALUES)]
    lengths = pc.list_value_length(lists[0]).to_numpy()
    items, values = (column.flatten().to_numpy() for column in lists)
    known = ~np.isnan(values)
    known[np.cumsum(lengths) - lengths] = False
    return items[known], values[known].astype(np.float64)
