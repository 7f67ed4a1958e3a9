"""One run of the pipeline, and the TOML file it is read from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recsys.config.data import PrepareConfig
from recsys.config.distillation import DistillationConfig
from recsys.config.evaluation import EvaluationConfig
from recsys.config.index import CompletionConfig, IndexConfig
from recsys.config.model import ModelConfig
from recsys.config.pretraining import PretrainingConfig
from recsys.config.search import SearchConfig
from recsys.config.section import Section
from recsys.config.storage import StorageConfig
from recsys.config.training import TrainingConfig


class JobConfig(Section):
    """One run of the pipeline, as a TOML file holds it."""

    prepare: PrepareConfig = PrepareConfig()
    """Raw tables to dataset."""
    model: ModelConfig = ModelConfig()
    """Item encoder and user encoder."""
    training: TrainingConfig = TrainingConfig()
    """Dataset to checkpoint."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """Dataset to language model."""
    distillation: DistillationConfig = DistillationConfig()
    """Checkpoint to one with a smaller language model."""
    index: IndexConfig = IndexConfig()
    """Checkpoint to index."""
    search: SearchConfig = SearchConfig()
    """Search over the index."""
    completion: CompletionConfig = CompletionConfig()
    """Missing attributes of items."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Index to report."""
    storage: StorageConfig = StorageConfig()
    """How object stores are reached."""


S = TypeVar("S", bound=Section)


def load_config(path: str | Path) -> JobConfig:
    """The config of the jobs in the TOML file `path`; see `read_toml`."""
    return read_toml(path, JobConfig)


def read_toml(path: str | Path, kind: type[S]) -> S:
    """The config in the TOML file `path`.

    Raises:
        ValueError: the file is not TOML, or a key is unknown, of the wrong type or out of
            bounds; the message names the file and the full path of each such key.
    """
    try:
        return kind.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {describe(error, kind)}") from error


def describe(error: ValidationError, section: type[BaseModel]) -> str:
    """One line for each fault: full key, what is wrong, what was given, what is allowed."""
    return "; ".join(_describe_one(fault, section) for fault in error.errors())


def _describe_one(fault: ErrorDetails, section: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        # Somebody may have put credentials into an endpoint; they are not to be repeated.
        given = "not shown" if key.endswith("storage.endpoint") else repr(fault["input"])
        return f"{key or 'config'}: {fault['msg']} (given: {given})"
    allowed = _fields_at(section, fault["loc"][:-1])
    return f"{key}: unknown key; allowed here: {', '.join(sorted(allowed))}"


def _fields_at(section: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    for part in path:
        section = section.model_fields[str(part)].annotation  # pyright: ignore
    return list(section.model_fields)
