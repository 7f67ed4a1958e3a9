"""Which models there are, and which of them is live.

A registry is a directory or URI: `versions/<name>.json`, a file a version, never changed; and
`aliases/<alias>.json`, which is replaced whole. Whoever serves follows an alias; promotion and
rollback move it. Two who move one alias at the same moment: the later one wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.artifact import Artifact, open_artifact
from recsys.storage import has_file, list_files, read_bytes, write_bytes

AliasName = Literal["live", "candidate"]
LIVE: AliasName = "live"
ALIASES: tuple[AliasName, ...] = ("live", "candidate")
DIGITS = 12
"""Of each digest in a version's name: 48 bits do not meet by chance."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=_Record)


class Golden(_Record):
    """A history and the items that a sound copy of the model answers it with, best first."""

    history: list[str]
    answer: list[str]


class GoldenSearch(_Record):
    """A text and the items that a sound copy of the final ranker finds for it, best first."""

    text: str
    answer: list[str]


class Version(_Record):
    """A checkpoint and the index made from it, perhaps with a final ranker of search fitted to
    that, and what they came from.

    Ages of items in `searches` are told from `registered_at`.
    """

    name: str
    checkpoint: str
    index: str
    checkpoint_digest: str
    index_digest: str
    dataset_digest: str | None
    code_version: str
    registered_at: float
    golden: list[Golden]
    metrics: dict[str, float] = {}
    ranker: str | None = None
    ranker_digest: str | None = None
    searches: list[GoldenSearch] = []


class Alias(_Record):
    """Which version a name stands for. `generation` grows with every move.

    Who serves loads at once and answers with it from `flip_at` (Unix seconds) on, so that replicas
    change together.
    """

    version: str
    previous: str | None
    generation: int
    flip_at: float
    changed_at: float


class Registry:
    """The versions and aliases below one URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def register(
        self,
        checkpoint: Artifact,
        index: Artifact,
        golden: list[Golden],
        now: float,
        metrics: dict[str, float] | None = None,
        ranker: Artifact | None = None,
        searches: Sequence[GoldenSearch] = (),
    ) -> Version:
        """Add a version; one that is there already is returned as it is.

        Raises:
            ValueError: the index was made from another checkpoint, or the ranker was fitted to
                another index.
        """
        _check_parents(checkpoint, index, ranker)
        parts = [checkpoint, index] if ranker is None else [checkpoint, index, ranker]
        name = "-".join(part.digest[:DIGITS] for part in parts)
        place = self._place("versions", name)
        if has_file(place):
            return self.version(name)
        version = Version(
            name=name,
            checkpoint=checkpoint.uri,
            index=index.uri,
            checkpoint_digest=checkpoint.digest,
            index_digest=index.digest,
            dataset_digest=index.manifest.parents.get("dataset"),
            code_version=checkpoint.manifest.code_version,
            registered_at=now,
            golden=golden,
            metrics=metrics or {},
            ranker=ranker.uri if ranker else None,
            ranker_digest=ranker.digest if ranker else None,
            searches=list(searches),
        )
        _write(place, version)
        return version

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        files = list_files(f"{self.uri}/versions")
        names = [f.base_name.removesuffix(".json") for f in files if f.base_name.endswith(".json")]
        return sorted(map(self.version, names), key=lambda v: (v.registered_at, v.name))

    def version(self, name: str) -> Version:
        """The version of a name, or of the only name that starts so.

        Raises:
            ValueError: there is no such version, or its file is damaged.
        """
        place = self._place("versions", name)
        if not has_file(place):
            raise ValueError(
                f"{self.uri} has no version '{name}': see python -m ray_jobs.models list"
            )
        return _read(place, Version)

    def alias(self, alias: AliasName) -> Alias | None:
        """What an alias stands for; None where it was never set."""
        place = self._place("aliases", alias)
        return _read(place, Alias) if has_file(place) else None

    def point(self, alias: AliasName, name: str, now: float, wait_s: float = 0.0) -> Alias:
        """Let an alias stand for another version, from `wait_s` seconds after `now` on."""
        self.version(name)
        before = self.alias(alias)
        moved = Alias(
            version=name,
            previous=before.version if before else None,
            generation=before.generation + 1 if before else 1,
            flip_at=now + wait_s,
            changed_at=now,
        )
        _write(self._place("aliases", alias), moved)
        return moved

    def back(self, alias: AliasName, now: float, wait_s: float = 0.0) -> Alias:
        """Let an alias stand for the version it stood for before.

        Raises:
            ValueError: there was none.
        """
        current = self.alias(alias)
        if current is None or current.previous is None:
            raise ValueError(f"'{alias}' of {self.uri} stood for nothing before: promote a version")
        return self.point(alias, current.previous, now, wait_s)

    def open(self, version: Version) -> tuple[Artifact, Artifact]:
        """The version's checkpoint and index, which must still be the ones registered.

        Raises:
            ValueError: an artifact is damaged, or another one stands in its place.
        """
        return (
            _open(version, version.checkpoint, "checkpoint", version.checkpoint_digest),
            _open(version, version.index, "index", version.index_digest),
        )

    def open_ranker(self, version: Version) -> Artifact | None:
        """The version's final ranker, likewise, if it has one.

        Raises:
            ValueError: the artifact is damaged, or another one stands in its place.
        """
        if version.ranker is None:
            return None
        return _open(version, version.ranker, "ranker", version.ranker_digest)

    def _place(self, folder: str, name: str) -> str:
        return f"{self.uri}/{folder}/{name}.json"


def _check_parents(checkpoint: Artifact, index: Artifact, ranker: Artifact | None) -> None:
    if index.manifest.parents.get("checkpoint") != checkpoint.digest:
        raise ValueError(f"{index.uri} was not made from {checkpoint.uri}: build the index again")
    if ranker is not None and ranker.manifest.parents.get("index") != index.digest:
        raise ValueError(f"{ranker.uri} was not fitted to {index.uri}: fit the ranker again")


def _open(version: Version, uri: str, kind: str, digest: str | None) -> Artifact:
    artifact = open_artifact(uri, kind)
    if artifact.digest != digest:
        raise ValueError(
            f"{artifact.uri} is not what version {version.name} was registered with: give each run "
            "an output of its own, and register again"
        )
    return artifact


def differences(registry: Registry, first: Version, second: Version) -> dict[str, list[Any]]:
    """Settings and origins in which two versions differ: name -> [of the first, of the second]."""
    told = [_flat(_origins(registry, version)) for version in (first, second)]
    names = sorted({*told[0], *told[1]})
    return {n: [t.get(n) for t in told] for n in names if told[0].get(n) != told[1].get(n)}


def _origins(registry: Registry, version: Version) -> dict[str, Any]:
    checkpoint, index = registry.open(version)
    ranker = registry.open_ranker(version)
    fitted = ranker.manifest.config["ranker"] if ranker else {}
    return {
        "code_version": version.code_version,
        "dataset": version.dataset_digest,
        "checkpoint": checkpoint.manifest.config,
        "index": index.manifest.config,
        "ranker": {"digest": version.ranker_digest} | fitted,
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def _write(place: str, record: _Record) -> None:
    write_bytes(place, record.model_dump_json(indent=2).encode())


def _read(place: str, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(read_bytes(place))
    except ValidationError as error:
        raise ValueError(f"{place} is damaged: {error.errors()[0]['msg']}") from error
