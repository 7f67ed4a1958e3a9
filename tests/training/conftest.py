"""What tests of training without Ray share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys.artifact import Artifact
from tests.training.test_ingest import LENGTHS, write_dataset
from tests.training.tiny_run import one_rank


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process is the only rank of a process group."""
    with one_rank(tmp_path_factory.mktemp("group")):
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Fifteen windows: three steps an epoch."""
    return write_dataset(tmp_path_factory.mktemp("windows"), LENGTHS)
