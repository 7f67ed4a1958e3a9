"""One import: which format, which files, what was counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recsys.data.importers import amazon, esci, mind, movielens, recbole, tabular
from recsys.data.importers.files import find_files
from recsys.data.importers.tables import REJECTED, Counts, RawTables

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """A source's importer and the names of the files it reads."""

    read: Callable[[Sequence[Path], RawTables], None]
    files: str


FORMATS = {
    "amazon2018": Format(amazon.import_2018, "meta_*.json.gz, *.json.gz, *.csv"),
    "amazon2023": Format(amazon.import_2023, "meta_*.jsonl.gz, *.jsonl.gz, *.csv.gz"),
    "movielens": Format(
        movielens.import_movielens,
        "u.data, u.item; ratings.dat, movies.dat; ratings.csv, movies.csv",
    ),
    "mind": Format(mind.import_mind, "behaviors.tsv, news.tsv"),
    "recbole": Format(recbole.import_recbole, "*.inter, *.item"),
    "esci": Format(esci.import_esci, "*examples.parquet, *products.parquet"),
}
TABULAR = "tabular"


def convert(
    name: str, inputs: Sequence[Path], output: Path, mapped: tabular.Mapped | None = None
) -> dict[str, Counts]:
    """Read files of the format `name` and write raw tables and `rejected.jsonl` to `output`.

    `inputs` are files, or folders with files at any depth. `mapped` is for the format `tabular`.

    Raises:
        ValueError: there is no such format, no file that it reads, a file does not fit, or no row
            of a table could be read. No table is left at `output` then.
    """
    tables = FORMATS | {
        TABULAR: Format(
            partial(tabular.import_tabular, mapped=mapped or tabular.Mapped()),
            "*.csv, *.tsv, *.jsonl, *.parquet (plain or .gz)",
        )
    }
    if name not in tables:
        raise ValueError(f"format '{name}' is not one of {', '.join(sorted(tables))}")
    files = find_files(inputs)
    with RawTables(output) as written:
        tables[name].read(files, written)
        if not written.counts:
            given = ", ".join(path.name for path in files[:10]) or "no file"
            raise ValueError(f"{name} reads {tables[name].files}; given: {given}")
    for table, counts in written.counts.items():
        _tell(table, counts, output)
    return written.counts


def _tell(table: str, counts: Counts, output: Path) -> None:
    log.info(
        f"{table}: {counts.read:,} read = {counts.written:,} written + {counts.rejected:,} rejected"
        f" + {counts.skipped:,} skipped"
    )
    for reason, found in counts.reasons.most_common():
        log.info(f"  rejected: {found:,} {reason} (see {output / REJECTED})")
    for column, found in counts.emptied.items():
        log.info(f"  left empty: {found:,} unreadable values of {column}")
