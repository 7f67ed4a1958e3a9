"""Every error a client sees is one problem body (RFC 9457); no stack trace leaves the process."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from recsys.serving.api import Problem

NOT_JSON = "the body is not valid JSON in UTF-8"
UNREADABLE_BODY = "There was an error parsing the body"
"""FastAPI's words for a body that is not UTF-8."""

log = logging.getLogger(__name__)


def problem(status: int, detail: str) -> JSONResponse:
    """A problem response."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(
        body.model_dump(), status_code=status, media_type="application/problem+json"
    )


def install_problems(app: FastAPI) -> None:
    """Let the app answer every error with a problem body."""
    app.add_exception_handler(HTTPException, _on_http_error)  # pyright: ignore
    app.add_exception_handler(RequestValidationError, _on_bad_request)  # pyright: ignore
    app.add_exception_handler(Exception, _on_fault)


async def _on_http_error(_: Request, error: HTTPException) -> JSONResponse:
    if error.detail == UNREADABLE_BODY:
        return problem(400, NOT_JSON)
    return problem(error.status_code, str(error.detail))


async def _on_bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem(400, NOT_JSON)
    told = [f"{'.'.join(map(str, f['loc'][1:])) or 'body'}: {f['msg']}" for f in faults[:5]]
    return problem(422, "; ".join(told))


async def _on_fault(_: Request, error: Exception) -> JSONResponse:
    log.error("request failed", exc_info=error)
    return problem(500, "the request failed; it has been logged")
