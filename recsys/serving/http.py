"""The HTTP application around a service: routes, problems, safety. Knows no Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from recsys.serving.measured import Measured
from recsys.serving.openapi import install_openapi
from recsys.serving.problems import install_problems, problem
from recsys.serving.routes.events import events_routes
from recsys.serving.routes.items import items_routes
from recsys.serving.routes.model import model_routes
from recsys.serving.routes.page import page_routes
from recsys.serving.routes.recommend import recommend_routes
from recsys.serving.routes.search import search_routes
from recsys.serving.security.secure import secure
from recsys.serving.service import ItemsOff, RecommenderService, Refused, SearchOff
from recsys.serving.tracing import Traced
from recsys.serving.user_memory import BadEvent

ROUTES = (recommend_routes, search_routes, items_routes, events_routes, model_routes)


def build_http(service: RecommenderService) -> ASGIApp:
    """The whole application; the service is closed when the application stops.

    Raises:
        ValueError: nobody could come in; what to set is said.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="Recommender",
        version=version("recsys"),
        description="Recommendations and search by a language model over items and behaviour.",
        lifespan=lifespan,
        docs_url=None,  # its scripts come from elsewhere, which our own headers forbid
        redoc_url=None,
        # FastAPI's own spans tell the path as it came, where ids of users stand.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    install_openapi(app)
    install_problems(app)
    app.add_exception_handler(Refused, lambda _, error: problem(422, str(error)))
    app.add_exception_handler(BadEvent, lambda _, error: problem(422, str(error)))
    app.add_exception_handler(SearchOff, lambda _, error: problem(501, str(error)))
    app.add_exception_handler(ItemsOff, lambda _, error: problem(501, str(error)))
    for routes in ROUTES:
        app.include_router(routes(service))
    app.include_router(page_routes())
    secured = secure(Traced(app, service.traces), service.args.security)
    return Measured(secured, service.memory.feedback)
