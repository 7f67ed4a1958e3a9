"""What `/openapi.json` says beside the routes: how to come in, and what every error looks like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from recsys.serving.api.responses import Problem

ANYWHERE = (400, 401, 403, 404, 408, 413, 422, 429, 431, 500, 501, 503, 504)
"""The layers of safety and the handlers of faults answer these on any route."""
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
OPEN = "/health/"


def install_openapi(app: FastAPI) -> None:
    """Let the application describe itself so; the description is made once, when first asked."""

    def described() -> dict[str, Any]:
        if not app.openapi_schema:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            app.openapi_schema = _completed(made)
        return app.openapi_schema

    app.openapi = described


def _completed(described: dict[str, Any]) -> dict[str, Any]:
    parts = described["components"]
    parts["securitySchemes"] = SCHEMES
    parts["schemas"]["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    for path, operation in _operations(described):
        operation["security"] = [] if path.startswith(OPEN) else [{name: []} for name in SCHEMES]
        operation["responses"] |= {str(status): _problem() for status in ANYWHERE}
    return described


def _operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for operation in methods.values():
            yield path, operation


def _problem() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": "A problem (RFC 9457).",
        "content": {"application/problem+json": {"schema": schema}},
    }
