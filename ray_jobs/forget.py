"""Delete users from a dataset, feedback events and a history store; a receipt says what went."""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from ray_jobs.store_password import read_store_password
from ray_jobs.user_key import read_user_key
from recsys.artifact import Artifact, open_artifact
from recsys.data.forget import forget_elsewhere, forget_users, open_to_forget, write_receipt
from recsys.storage import steady_filesystem
from recsys.store.histories import StoreUnavailable


@dataclass(frozen=True)
class Arguments:
    """Who is to be forgotten, and where."""

    dataset: str
    """Directory or URI of the dataset artifact."""
    users_file: Path
    """File with one user id a line; ids on a command line would be seen by others."""
    output: str
    """Directory or URI of the new dataset; the receipt is written to <output>-receipt.json."""
    feedback: str = ""
    """Directory or URI of Parquet files with user_id, which are rewritten in place."""
    store: str = ""
    """URL of the history store; its password comes from RECSYS_STORE_PASSWORD."""
    user_key_file: Path | None = None
    """File with the key of the dataset's pseudonyms; else RECSYS_USER_KEY, if it is set."""
    delete_old: bool = False
    """Delete the old dataset in the end."""


def forget(arguments: Arguments) -> Artifact:
    """Write the new dataset and the receipt, whose path is printed."""
    key = read_user_key(arguments.user_key_file)
    lines = arguments.users_file.read_text(encoding="utf-8-sig").split("\n")
    ids = [line for line in lines if line]
    dataset = open_artifact(arguments.dataset, "dataset")
    store = open_to_forget(arguments.store, read_store_password()) if arguments.store else None
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made, receipt = forget_users(dataset, ids, arguments.output, key, now)
    print(write_receipt(forget_elsewhere(receipt, ids, key, arguments.feedback, store)))
    if arguments.delete_old:
        fs, root = steady_filesystem(dataset.uri)
        fs.delete_dir(root)
    return made


if __name__ == "__main__":
    try:
        print(forget(tyro.cli(Arguments, description=__doc__)).uri, flush=True)
    except (ValueError, FileNotFoundError, StoreUnavailable) as error:
        sys.exit(f"error: {error}")
