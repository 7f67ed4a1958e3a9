"""The HTTP application around a service: routes, problems, safety. Knows no Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from recsys.serving.api.responses import Problem
from recsys.serving.problems import install_problems, problem
from recsys.serving.routes.events import events_routes
from recsys.serving.routes.items import items_routes
from recsys.serving.routes.model import model_routes
from recsys.serving.routes.page import page_routes
from recsys.serving.routes.recommend import recommend_routes
from recsys.serving.routes.search import search_routes
from recsys.serving.security.secure import secure
from recsys.serving.service import RecommenderService, Refused, SearchOff
from recsys.serving.user_memory import BadEvent

STATUSES = (400, 401, 403, 404, 408, 413, 422, 429, 500, 501, 503, 504)
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
        responses={status: {"model": Problem} for status in STATUSES},
        lifespan=lifespan,
        docs_url=None,  # its scripts come from elsewhere, which our own headers forbid
        redoc_url=None,
    )
    install_problems(app)
    app.add_exception_handler(Refused, lambda _, error: problem(422, str(error)))
    app.add_exception_handler(BadEvent, lambda _, error: problem(422, str(error)))
    app.add_exception_handler(SearchOff, lambda _, error: problem(501, str(error)))
    for routes in ROUTES:
        app.include_router(routes(service))
    app.include_router(page_routes())
    return secure(app, service.args.security)
