"""The whole HTTP application in this process: the toy model, a store in memory, a log on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recsys.artifact import Artifact
from recsys.config import FeedbackConfig, SecurityConfig, ServeArgs, StoreConfig
from recsys.serving.experiment_file import ExperimentFile
from recsys.serving.http import build_http
from recsys.serving.item_changes import ItemChanges
from recsys.serving.models import Models
from recsys.serving.service import RecommenderService
from recsys.serving.tracing import Traces
from recsys.serving.user_memory import UserMemory
from recsys.store.feedback import FeedbackLog
from recsys.store.open import open_item_log, open_store

OPEN = SecurityConfig(require_auth=False, open_hosts=("testserver",))


def alone(answer: Callable[[Sequence[Any]], list[Any]], _: ServeArgs) -> Callable[[Any], Any]:
    """Each query is a batch of its own."""

    async def one(query: Any) -> Any:
        [answered] = await asyncio.to_thread(answer, [query])
        return answered

    return one


def make_service(
    args: ServeArgs, models: Models, traces: Traces | None = None
) -> RecommenderService:
    """A service that remembers what its config says."""
    memory = UserMemory(
        open_store(args.store) if args.store else None,
        FeedbackLog(args.feedback) if args.feedback else None,
        args.max_request_history,
    )
    experiments = ExperimentFile(args.experiments)
    items = ItemChanges(open_item_log(args.items), args.items.poll_s) if args.items else None
    return RecommenderService(args, models, memory, experiments, alone, traces, items)


@pytest.fixture(scope="session")
def toy_args(toy_checkpoint: Artifact, toy_index: Artifact) -> ServeArgs:
    """The config of a service that remembers nothing."""
    return ServeArgs(
        checkpoint=toy_checkpoint.uri,
        index=toy_index.uri,
        max_top_k=50,
        max_request_history=20,
        security=OPEN,
    )


@pytest.fixture(scope="session")
def toy_models(toy_args: ServeArgs) -> Models:
    """The toy model, loaded once."""
    return Models.load(toy_args)


@pytest.fixture
def service(toy_args: ServeArgs, toy_models: Models, tmp_path: Path) -> RecommenderService:
    """A service with a store in memory and a log on disk."""
    log = FeedbackConfig(uri=str(tmp_path / "feedback"), spool=str(tmp_path / "spool"))
    args = toy_args.model_copy(update={"store": StoreConfig(url="sqlite://"), "feedback": log})
    return make_service(args, toy_models)


@pytest.fixture
def client(service: RecommenderService) -> Iterator[TestClient]:
    """Asks the service over ASGI."""
    with TestClient(build_http(service), raise_server_exceptions=False) as http:
        yield http


@pytest.fixture(scope="session")
def item_ids(toy_index: Artifact) -> list[str]:
    """All ids, in index order."""
    return toy_index.read_table("items.parquet")["item_id"].to_pylist()
