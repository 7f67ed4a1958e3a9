"""Changes to the file of experiments; what others wrote there stays as it is, comments too."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import tomlkit
from tomlkit.items import Table

from recsys.config import ExperimentConfig, parse_experiments
from recsys.storage import read_bytes, write_bytes


def read_experiments(place: str) -> dict[str, ExperimentConfig]:
    """The experiments of a file by name.

    Raises:
        ValueError: it cannot be read, or is not a file of experiments.
    """
    return {e.name: e for e in parse_experiments(read_bytes(place).decode(), place).experiments}


def put_experiment(place: str, experiment: ExperimentConfig, without: str = "") -> None:
    """Write an experiment into the file, over one of its name; that called `without` is left out.

    Raises:
        ValueError: the file cannot be read or written, or the result is no file of experiments.
    """
    document = tomlkit.parse(read_bytes(place).decode())
    gone = {experiment.name, without}
    tables = tomlkit.aot()
    for table in document.get("experiments", []):
        if table["name"] not in gone:
            tables.append(table)
    tables.append(_table(experiment))
    document["experiments"] = tables
    _write(place, document)


def change_experiment(place: str, name: str, **values: Any) -> None:
    """Change some values of an experiment, such as `ramp`; nothing where the file does not have it.

    Raises:
        ValueError: the file cannot be read or written, or the result is no file of experiments.
    """
    document = tomlkit.parse(read_bytes(place).decode())
    found = [table for table in document.get("experiments", []) if table["name"] == name]
    for table in found:
        table.update(values)
    if found:
        _write(place, document)


def utc(seconds: float) -> datetime:
    """Unix seconds as a time of the file."""
    return datetime.fromtimestamp(int(seconds), UTC)


def _write(place: str, document: tomlkit.TOMLDocument) -> None:
    text = tomlkit.dumps(document)
    parse_experiments(text, place)
    write_bytes(place, text.encode())


def _table(experiment: ExperimentConfig) -> Table:
    table = tomlkit.table()
    for name, value in experiment.model_dump(exclude_none=True, exclude={"variants"}).items():
        table[name] = value
    variants = tomlkit.array().multiline(True)
    for variant in experiment.variants:
        inline = tomlkit.inline_table()
        inline.update(variant.model_dump(exclude_none=True))
        variants.append(inline)
    table["variants"] = variants
    return table
