"""Raw tables in the making: rows go to Parquet, what is no row to `rejected.jsonl`, all counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.importers.fields import Field
from recsys.data.importers.records import LINE, Batch

TABLES = ("items", "queries", "interactions")
REJECTED = "rejected.jsonl"
_REASON = "_reason"


@dataclass
class Counts:
    """Records of one table: `read` is `written` + `rejected` + `skipped`.

    `skipped` are records that are no row by their meaning, such as news shown but not clicked.
    `reasons` counts the rejected by reason, `emptied` the values that were left empty.
    """

    read: int = 0
    written: int = 0
    rejected: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    emptied: Counter[str] = field(default_factory=Counter[str])


@dataclass
class _Table:
    partial: Path
    columns: list[str]
    writer: pq.ParquetWriter
    counts: Counts = field(default_factory=Counts)


class RawTables:
    """Writes raw tables to a folder, where they appear only when all of them are whole.

    A context manager: leaving it without an error publishes, with one leaves nothing behind.
    """

    def __init__(self, output: Path) -> None:
        """Start writing.

        Raises:
            ValueError: `output` already holds a raw table.
        """
        found = [t for t in TABLES for p in (f"{t}.parquet", t) if (output / p).exists()]
        if found:
            raise ValueError(f"{output} already holds '{found[0]}': choose another output")
        output.mkdir(parents=True, exist_ok=True)
        self._output = output
        self._tables: dict[str, _Table] = {}
        self._rejected_partial = output / f".{REJECTED}.partial"
        self._rejected: TextIO = self._rejected_partial.open("w", encoding="utf-8")

    @property
    def counts(self) -> dict[str, Counts]:
        """What was counted for each table that has been written to."""
        return {name: table.counts for name, table in self._tables.items()}

    def add(
        self, table: str, batch: Batch, fields: Mapping[str, Field], skip: pl.Expr | None = None
    ) -> None:
        """Write the batch's good rows, without those where `skip` is true, and reject the rest.

        Raises:
            ValueError: the columns are not those of the table's earlier batches.
        """
        assert table in TABLES, table
        rows = batch.rows.with_columns(_first_reason(fields).alias(_REASON))
        good = rows.filter(pl.col(_REASON).is_null())
        kept = good if skip is None else good.remove(skip)
        target = self._open(table, batch.path, kept.select(**_values(fields)).to_arrow())
        counts = target.counts
        counts.read += len(rows) + len(batch.faults)
        counts.skipped += len(good) - len(kept)
        for name, unread in _emptied(kept, fields).items():
            counts.emptied[name] += unread
        self._reject(table, batch, rows.filter(pl.col(_REASON).is_not_null()))

    def _open(self, name: str, path: Path, rows: pa.Table) -> _Table:
        if name not in self._tables:
            partial = self._output / f".{name}.parquet.partial"
            writer = pq.ParquetWriter(partial, rows.schema, compression="zstd")
            self._tables[name] = _Table(partial, rows.column_names, writer)
        table = self._tables[name]
        if rows.column_names != table.columns:
            raise ValueError(
                f"{path} has {', '.join(rows.column_names)} for '{name}', but earlier files have "
                f"{', '.join(table.columns)}: convert them apart"
            )
        if rows.num_rows:
            table.writer.write_table(rows)
        return table

    def _reject(self, table: str, batch: Batch, rows: pl.DataFrame) -> None:
        for fault in batch.faults:
            self._reject_one(table, batch.path, fault.line, fault.reason, fault.content)
        for row in rows.iter_rows(named=True):
            line, reason = row.pop(LINE), row.pop(_REASON)
            self._reject_one(table, batch.path, line, reason, row)

    def _reject_one(self, table: str, path: Path, line: int, reason: str, content: Any) -> None:
        told = {"table": table, "file": str(path), "line": line, "reason": reason}
        self._rejected.write(json.dumps(told | {"content": content}, ensure_ascii=False) + "\n")
        counts = self._tables[table].counts
        counts.rejected += 1
        counts.reasons[reason.split(":")[0]] += 1

    def __enter__(self) -> RawTables:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._rejected.close()
            for table in self._tables.values():
                table.writer.close()
            if kind is None:
                self._publish()
        finally:
            for partial in [self._rejected_partial, *(t.partial for t in self._tables.values())]:
                partial.unlink(missing_ok=True)

    def _publish(self) -> None:
        for name, table in self._tables.items():
            table.counts.written = pq.read_metadata(table.partial).num_rows
            _check(name, table.counts)
        self._rejected_partial.replace(self._output / REJECTED)
        for name in sorted(self._tables, key=TABLES.index):
            self._tables[name].partial.replace(self._output / f"{name}.parquet")


def _first_reason(fields: Mapping[str, Field]) -> pl.Expr:
    told = [pl.when(f.broken).then(pl.lit(f.reason)) for f in fields.values() if f.rejects]
    return pl.coalesce(told)


def _values(fields: Mapping[str, Field]) -> dict[str, pl.Expr]:
    return {name: field.value for name, field in fields.items()}


def _emptied(rows: pl.DataFrame, fields: Mapping[str, Field]) -> dict[str, int]:
    lenient = {name: field.broken.sum() for name, field in fields.items() if not field.rejects}
    return rows.select(**lenient).row(0, named=True) if lenient else {}


def _check(name: str, counts: Counts) -> None:
    if counts.read != counts.written + counts.rejected + counts.skipped:
        raise RuntimeError(f"{name}: records were lost on the way: {counts}")
    if not counts.written:
        found = "; ".join(f"{reason}: {n}" for reason, n in counts.reasons.most_common(5))
        raise ValueError(f"{name}: none of {counts.read} records became a row: {found}")
