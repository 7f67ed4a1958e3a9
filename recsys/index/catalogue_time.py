"""When the catalogue of an index was written: changes of items from then on are not in it."""

from __future__ import annotations

from recsys.artifact import INPUTS, Artifact, ArtifactWriter

_CHANGED_NS = "items_changed_ns"


def keep_catalogue_time(writer: ArtifactWriter, dataset: Artifact) -> None:
    """Let an index remember it, beside its digest: equal indexes stay equal."""
    told = dataset.read_json(INPUTS) if dataset.names(INPUTS) else {}
    writer.add_json(INPUTS, {_CHANGED_NS: told.get(_CHANGED_NS, 0)})


def catalogue_time(index: Artifact) -> float:
    """Unix seconds; 0 where an index does not tell."""
    return index.read_json(INPUTS)[_CHANGED_NS] / 1e9 if index.names(INPUTS) else 0.0
