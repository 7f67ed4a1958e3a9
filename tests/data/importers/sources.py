"""Made-up source files in the true formats, and what an import of them wrote."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recsys.data.importers.convert import convert
from recsys.data.importers.tables import Counts
from recsys.data.importers.tabular import Mapped


def put(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """Write a file as it is; gzip it if its name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def json_lines(*records: dict[str, Any]) -> str:
    """One line a record, with escapes as `json` writes them."""
    return "".join(json.dumps(record) + "\n" for record in records)


class Imported:
    """What `convert` made of a folder."""

    def __init__(self, name: str, source: Path, mapped: Mapped | None = None) -> None:
        self.output = source.parent / f"{source.name}-raw"
        self.counts: dict[str, Counts] = convert(name, [source], self.output, mapped)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one table, in the file's order."""
        return pq.read_table(self.output / f"{table}.parquet").to_pylist()

    def rejected(self) -> list[dict[str, Any]]:
        """The lines of rejected.jsonl, with the file's name only."""
        text = (self.output / "rejected.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        return [line | {"file": Path(line["file"]).name} for line in lines]

    def told(self) -> list[tuple[str, int, str]]:
        """(file, line, reason) of what was rejected."""
        return [(line["file"], line["line"], line["reason"]) for line in self.rejected()]
