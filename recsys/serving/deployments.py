"""The Ray Serve deployment: a service, its batching, and the HTTP application around it."""

from pathlib import Path

import pyarrow as pa
import torch
from ray import serve
from starlette.types import ASGIApp

from recsys.config import ServeArgs
from recsys.data.privacy import parse_key, pseudonymise
from recsys.serving.batching import batched
from recsys.serving.experiment_file import ExperimentFile
from recsys.serving.http import build_http
from recsys.serving.item_changes import ItemChanges
from recsys.serving.logs import log_as_serve_does
from recsys.serving.models import Models
from recsys.serving.service import RecommenderService
from recsys.serving.tracing import Traces
from recsys.serving.user_memory import UserMemory
from recsys.storage import configure_storage
from recsys.store.feedback import FeedbackLog
from recsys.store.histories import HistoryStore
from recsys.store.open import open_item_log, open_store
from recsys.store.pseudonymous import PseudonymousStore


@serve.deployment
@serve.ingress()
class RecommenderDeployment:
    """One replica."""

    def __init__(self, args: ServeArgs) -> None:
        log_as_serve_does()
        configure_storage(args.storage)
        torch.set_num_threads(args.num_threads)
        self._service = build_service(args)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application of this replica; Ray asks for it once the constructor is done."""
        return build_http(self._service)


def build_service(args: ServeArgs) -> RecommenderService:
    """What a replica holds, from its config.

    Raises:
        ValueError: an artifact, a file or a URL cannot be used.
    """
    store = _store(args) if args.store else None
    feedback = FeedbackLog(args.feedback) if args.feedback else None
    memory = UserMemory(store, feedback, args.max_request_history)
    experiments = ExperimentFile(args.experiments)
    traces = Traces.to(args.trace_endpoint)
    items = _items(args)
    models = Models.load(args, items.caught_up) if items else Models.load(args)
    return RecommenderService(args, models, memory, experiments, batched, traces, items)


def _store(args: ServeArgs) -> HistoryStore:
    assert args.store is not None
    store = open_store(args.store, _read(args.store_password_file))
    if args.user_key_file is None:
        return store
    key = parse_key(Path(args.user_key_file).read_bytes())
    return PseudonymousStore(store, lambda user: pseudonymise(pa.array([user]), key)[0].as_py())


def _items(args: ServeArgs) -> ItemChanges | None:
    if args.items is None:
        return None
    item_log = open_item_log(args.items, _read(args.store_password_file))
    return ItemChanges(item_log, args.items.poll_s)


def _read(path: str | None) -> str | None:
    """A secret from a file, as Kubernetes and others mount them."""
    return Path(path).read_text().strip() if path else None
