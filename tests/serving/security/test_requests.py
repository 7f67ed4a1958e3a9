"""What every answer has, what is logged of a request, and what of a fault: no secret, no user."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.serving.security.requests import request_id
from tests.serving.security.calling import (
    KEYS,
    SECRET_USER,
    Application,
    ask,
    http_scope,
    secured,
)

READ = KEYS["read"]
ACCESS = "recsys.serving.access"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records = [record for record in caplog.records if record.name == ACCESS]
    # As Ray writes them: its formatter turns a record's fields into JSON.
    return [json.loads(json.dumps(record.request)) for record in records]


@pytest.fixture(autouse=True)
def _log_all(caplog):
    caplog.set_level(logging.DEBUG)


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/v1/model", READ),
        ("GET", "/v1/model", None),
        ("DELETE", "/v1/model", READ),
        ("GET", "/nowhere", KEYS["admin"]),
        ("POST", "/v1/batch", READ),
        ("GET", "/health/live", None),
        ("PUT", "/v1/model", KEYS["admin"]),
    ],
)
def test_every_answer_has_the_headers_of_safety_and_its_id(method, path, key):
    answer = ask(secured(Application()), method, path, key)
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in headers["content-security-policy"]
    assert len(headers["x-request-id"]) == 32
    assert "server" not in headers


def test_an_answer_may_say_itself_how_it_is_cached():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    assert ask(around(app), "GET", "/", READ).headers["cache-control"] == "max-age=60"


def around(app: ASGIApp) -> ASGIApp:
    application = Application()
    application.fastapi = app  # pyright: ignore
    return secured(application)


def test_a_sane_id_goes_through_to_the_handler_the_answer_and_the_log(caplog):
    answer = ask(
        secured(Application()), "GET", "/v1/model", READ, headers={"X-Request-Id": "Job_7-a"}
    )
    assert answer.json()["id"] == answer.headers["x-request-id"] == "Job_7-a"
    assert [line["request_id"] for line in lines(caplog)] == ["Job_7-a"]


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(max_codepoint=255), max_size=70))
def test_an_id_is_kept_only_if_it_is_short_and_plain(text):
    made = request_id(Headers({"x-request-id": text}))
    plain = text.isascii() and text.replace("-", "a").replace("_", "a").isalnum()
    assert (made == text) == (plain and len(text) <= 64)
    assert 0 < len(made) <= 64


def test_a_request_is_one_line_without_path_query_or_body(caplog):
    app = secured(Application())
    admin = KEYS["admin"]
    ask(app, "DELETE", f"/v1/users/{SECRET_USER}?why={SECRET_USER}", admin)
    ask(app, "POST", f"/v1/recommend?u={SECRET_USER}", READ, body=[SECRET_USER.encode()])
    ask(app, "GET", f"/v1/users/{SECRET_USER}", headers={"X-API-Key": "rk_wrong"})
    ask(app, "GET", f"/{SECRET_USER}", admin)
    ask(app, f"BREW{SECRET_USER}", "/", admin)
    ask(app, "DELETE", f"/v1/users/{SECRET_USER}", READ)
    ask(app, "GET", "/health/live")
    found = lines(caplog)
    for line in found:
        assert line.pop("ms") >= 0
        assert len(line.pop("request_id")) == 32
        assert (line.pop("trace_id"), line.pop("model_version")) == (None, None)
    shown = [tuple(line.values()) for line in found]
    assert list(found[0]) == ["method", "route", "status", "key", "refused"]
    assert shown == [
        ("DELETE", "/v1/users/{user_id:path}", 200, "the-admin", None),
        ("POST", "/v1/recommend", 200, "the-read", None),
        ("GET", None, 401, None, "unknown key"),
        ("GET", None, 404, "the-admin", None),
        ("other", "/", 405, "the-admin", None),
        ("DELETE", None, 403, "the-read", "scope admin"),
        ("GET", "/health/live", 200, None, None),
    ]
    assert SECRET_USER not in caplog.text


def test_no_log_and_no_answer_holds_a_secret(caplog):
    app = secured(Application(), limits={"timeout_s": 0.02, "max_body_bytes": 50})
    secret = "Zm9v-very-secret"
    told = b""
    for path in ("/v1/recommend", "/v1/batch", "/v1/rank", "/metrics", "/nowhere", "/v1/events"):
        for headers in (
            {"Authorization": f"Bearer {secret}"},
            {"Authorization": f"Basic {secret}"},
            {"Authorization": f"Bearer {secret}.{secret}.{secret}"},
            {"X-API-Key": READ, "Cookie": secret, "X-Request-Id": f"{secret} x"},
            {"X-API-Key": KEYS["admin"], "X-Request-Timeout-Ms": secret},
        ):
            for body in (secret.encode(), 9 * secret.encode()):
                answer = ask(
                    app, "POST", f"{path}?key={secret}", headers=headers, body=[b"{", body]
                )
                told += answer.body + json.dumps(answer.headers).encode()
    assert len(lines(caplog)) == 60
    for word in (secret, READ, KEYS["admin"]):
        assert word not in caplog.text
        assert word.encode() not in told


def test_a_fault_is_logged_by_type_and_place_and_told_as_a_plain_500(caplog):
    answer = ask(
        secured(Application()), "POST", "/v1/batch", READ, body=[f'"{SECRET_USER}"'.encode()]
    )
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json() == {
        "title": "Internal Server Error",
        "status": 500,
        "detail": "the request failed; the service has logged why",
    }
    faults = [entry.message for entry in caplog.records if entry.levelno == logging.ERROR]
    assert len(faults) == 1
    identity = lines(caplog)[0]["request_id"]
    assert faults[0].startswith(f"request {identity} failed: builtins.RuntimeError\n")
    assert "caused by builtins.ValueError\n" in faults[0]
    assert "in _fail" in faults[0]
    assert SECRET_USER not in caplog.text


def test_a_fault_of_an_application_that_catches_nothing_is_a_500_with_all_headers():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError(SECRET_USER)

    answer = ask(around(app), "GET", "/", READ)
    assert (answer.status, answer.headers["x-content-type-options"]) == (500, "nosniff")
    assert SECRET_USER.encode() not in answer.body


def test_an_application_s_own_timeout_is_a_fault_and_not_the_deadline():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError(SECRET_USER)

    assert ask(around(app), "GET", "/", READ).status == 500


def test_an_answer_that_breaks_off_is_left_unfinished(caplog):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise OSError(SECRET_USER)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(around(app)(http_scope("GET", "/", {"X-API-Key": READ}), receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"]
    assert "builtins.OSError" in caplog.text


def test_a_client_that_hangs_up_is_logged_as_gone(caplog):
    async def hang_up() -> None:
        app = secured(Application())
        scope = http_scope("POST", "/v1/rank", {"X-API-Key": READ})
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return messages.pop()

        async def send(message: Message) -> None:
            raise AssertionError("nobody is there")

        task = asyncio.create_task(app(scope, receive, send))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    assert [(line["status"], line["key"]) for line in lines(caplog)] == [(499, "the-read")]


def test_requests_that_come_with_one_state_do_not_share_it():
    app, shared = secured(Application()), {"model": 1}
    with_key = ask(app, "GET", "/v1/model", READ, state=shared)
    without = ask(app, "GET", "/health/live", state=shared)
    assert with_key.json()["caller"] == "the-read"
    assert without.json()["caller"] is None
    assert shared == {"model": 1}
