"""What a dataset remembers of its input, and what is new since.

A dataset keeps its cleaned events in `events/`, bad rows in `quarantine/` and the list of files
that were read in `inputs.json`. An incremental run reads new files alone and joins them with these;
rows that were bad are tried again, since an item may be known by now. The result has the digest of
a run over everything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import ray

from recsys.artifact import INPUTS, Artifact
from recsys.data.interactions import EVENTS, QUARANTINE, Job, clean_block
from recsys.data.quality import RAW
from recsys.data.sources import RawFile
from recsys.storage import steady_filesystem


@dataclass(frozen=True)
class Inputs:
    """Files of the interactions that went into a dataset, the rows read, and the columns found.

    `items_changed_ns` is when the newest file of the items was written, in Unix nanoseconds.
    """

    files: list[RawFile]
    num_rows: int
    columns: list[str]
    items_changed_ns: int = 0

    def to_json(self) -> dict:
        """What `inputs.json` holds."""
        return asdict(self)


def read_inputs(dataset: Artifact) -> Inputs:
    """What went into a dataset.

    Raises:
        ValueError: the dataset does not remember its input.
    """
    if INPUTS not in dataset.names():
        raise ValueError(f"{dataset.uri} has no {INPUTS}: prepare in full, without --incremental")
    told = dataset.read_json(INPUTS)
    return Inputs([RawFile(**f) for f in told["files"]], told["num_rows"], told["columns"])


def check_continues(dataset: Artifact, config: dict, files: list[RawFile]) -> None:
    """Hold that a run over `files` can go on from a dataset.

    Raises:
        ValueError: another config made it, or a file it was made from is gone or has changed.
    """
    if dataset.manifest.config != config:
        differing = sorted(k for k in config if dataset.manifest.config.get(k) != config[k])
        raise ValueError(
            f"{dataset.uri} was prepared with another config ({', '.join(differing)}): "
            "prepare in full, without --incremental"
        )
    gone = sorted(file.path for file in set(read_inputs(dataset).files) - set(files))
    if gone:
        raise ValueError(
            f"{len(gone)} files that {dataset.uri} was made from are gone or have changed, such as "
            f"{gone[0]}: prepare in full, without --incremental"
        )


def previous_events(dataset: Artifact, job: Job) -> list[ray.data.Dataset]:
    """The cleaned events of a dataset, and those of its bad rows that are good by now."""
    again = Job(job.uri, job.config, job.item_ids, job.optional, job.latest, user_key=None)
    found = []
    if names := dataset.names(f"{EVENTS}/"):
        found.append(_read(dataset, names))
    if names := dataset.names(f"{QUARANTINE}/"):
        bad = _read(dataset, names).select_columns(list(RAW))
        found.append(
            bad.map_batches(
                lambda block: clean_block(block, again), batch_size=None, batch_format="pyarrow"
            )
        )
    return found


def _read(dataset: Artifact, names: list[str]) -> ray.data.Dataset:
    fs, root = steady_filesystem(dataset.uri)
    return ray.data.read_parquet([f"{root}/{name}" for name in names], filesystem=fs)
