"""Finds in a Serve config what Ray would drop in silence: keys that no model of its schema has."""

from __future__ import annotations

import copy
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.warnings import PydanticDeprecatedSince20

from recsys.config import ServeArgs

with warnings.catch_warnings():
    # Ray declares some fields in a way that pydantic 2 deprecates, and says so at import.
    warnings.filterwarnings("ignore", "Using extra keyword", PydanticDeprecatedSince20)
    from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[2]
KeyPath = tuple[str | int, ...]


def load_yaml(path: str) -> Any:
    """The one document in the YAML file `path`, relative to the project."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def serve_faults(document: Any) -> list[str]:
    """What is wrong with a Serve config; empty when nothing is."""
    unknown = [f"unknown key {dotted(at)}" for at in unknown_keys(document, ServeDeploySchema)]
    if unknown:
        return unknown
    applications = document["applications"]
    return _refusals(ServeDeploySchema, document) + [
        fault for app in applications for fault in _refusals(ServeArgs, app.get("args", {}))
    ]


def unknown_keys(value: Any, annotation: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Paths of the keys in `value` that the models in the type `annotation` do not declare.

    A dict whose type names no model is open: any key may stand in it.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_keys(item, annotation, (*at, index))
    fields = _fields(annotation)
    if not isinstance(value, dict) or not fields:
        return
    for key, item in value.items():
        if key in fields:
            yield from unknown_keys(item, fields[key], (*at, key))
        else:
            yield (*at, key)


def key_paths(value: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Paths of all keys in a YAML document."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        if isinstance(value, dict):
            yield (*at, key)
        yield from key_paths(item, (*at, key))


def misspelt(document: Any, at: KeyPath) -> Any:
    """A copy of `document` whose key at the path `at` has one letter too many."""
    document = copy.deepcopy(document)
    parent = document
    for step in at[:-1]:
        parent = parent[step]
    parent[f"{at[-1]}x"] = parent.pop(at[-1])
    return document


def dotted(at: KeyPath) -> str:
    """A path as people write it."""
    return ".".join(str(step) for step in at)


def _fields(annotation: Any) -> dict[str, Any]:
    """Key to type, over all models that a type names."""
    return {
        name: field.annotation
        for model in _models(annotation)
        for key, field in model.model_fields.items()
        for name in (key, field.alias or key)
    }


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (Union, types.UnionType, Annotated, list):
        for part in get_args(annotation):
            yield from _models(part)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _refusals(model: type[BaseModel], document: Any) -> list[str]:
    try:
        model.model_validate(copy.deepcopy(document))
    except ValidationError as error:
        return [str(error)]
    return []
