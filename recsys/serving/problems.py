"""Every error a client sees is one problem body (RFC 9457); no stack trace leaves the process."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from recsys.serving.api.responses import Problem

NOT_JSON = "the body is not valid JSON in UTF-8"
FAULT = "the request failed; the service has logged why"
UNREADABLE_BODY = "There was an error parsing the body"
"""FastAPI's words for a body that is not UTF-8."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem response."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(
        body.model_dump(),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def install_problems(app: FastAPI) -> None:
    """Let the app answer every error with a problem body."""
    app.add_exception_handler(HTTPException, _on_http_error)  # pyright: ignore
    app.add_exception_handler(RequestValidationError, _on_bad_request)  # pyright: ignore
    app.add_exception_handler(Exception, _on_fault)


async def _on_http_error(_: Request, error: HTTPException) -> JSONResponse:
    if error.detail == UNREADABLE_BODY:
        return problem(400, NOT_JSON)
    return problem(error.status_code, str(error.detail), error.headers)


async def _on_bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem(400, NOT_JSON)
    told = [f"{'.'.join(map(str, f['loc'][1:])) or 'body'}: {f['msg']}" for f in faults[:5]]
    return problem(422, "; ".join(told))


async def _on_fault(_: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again after this answer; who called the app logs it.
    return problem(500, FAULT)
