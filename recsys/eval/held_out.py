"""The held-out rows of a dataset, with the columns that make segments of them."""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.artifact import Artifact
from recsys.config import EvaluationConfig
from recsys.data.collate import histories_of, read_rows, targets_of
from recsys.data.users import USERS
from recsys.eval.segments import HeldOut, Labels

ITEMS = "items.parquet"


def read_held_out(dataset: Artifact, config: EvaluationConfig, train_counts: np.ndarray) -> HeldOut:
    """The rows of `config.split` in file order.

    Raises:
        ValueError: there are no rows, or the dataset lacks a column of the config.
    """
    rows = read_rows(dataset, config.split)
    users = rows[schema.USER_ID].cast(pa.large_string())
    return HeldOut(
        histories_of(rows),
        targets_of(rows),
        train_counts,
        _user_labels(dataset, config.user_columns, users),
        _item_labels(dataset, config.item_columns),
        config.min_group_size,
    )


def check_lineage(dataset: Artifact, *children: Artifact) -> None:
    """Hold that artifacts were made from a dataset.

    Raises:
        ValueError: one was not.
    """
    for child in children:
        if child.manifest.parents.get("dataset") != dataset.digest:
            raise ValueError(f"{child.uri} was not made from {dataset.uri}: make it again")


def _user_labels(
    dataset: Artifact, columns: tuple[str, ...], users: pa.ChunkedArray
) -> dict[str, Labels]:
    if not columns:
        return {}
    if USERS not in dataset.names():
        raise ValueError(
            f"evaluation.user_columns are {list(columns)}, but {dataset.uri} has no {USERS}: name "
            "them in prepare.user_columns and prepare again"
        )
    known = dataset.read_table(USERS)
    _check_columns("user_columns", columns, known, dataset)
    places = pc.index_in(users, known[schema.USER_ID].combine_chunks())
    return {name: Labels.of(known[name].take(places)) for name in columns}


def _item_labels(dataset: Artifact, columns: tuple[str, ...]) -> dict[str, Labels]:
    if not columns:
        return {}
    items = dataset.read_table(ITEMS)
    _check_columns("item_columns", columns, items, dataset)
    return {name: Labels.of(items[name]) for name in columns}


def _check_columns(
    setting: str, columns: tuple[str, ...], table: pa.Table, dataset: Artifact
) -> None:
    plain = [n for n in table.column_names if not pa.types.is_nested(table.field(n).type)]
    if missing := [name for name in columns if name not in plain]:
        raise ValueError(
            f"evaluation.{setting} names {missing}, which {dataset.uri} does not have; it has: "
            f"{', '.join(plain)}"
        )
