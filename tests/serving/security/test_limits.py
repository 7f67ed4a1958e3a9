"""How often, how many, how large, how long: each limit holds, says so, and lets go again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from recsys.serving.security.buckets import Buckets
from tests.serving.security.calling import KEYS, Answer, Application, ask, call, http_scope, secured

READ = KEYS["read"]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_full_at_first_and_fills_at_its_rate():
    clock = Clock()
    buckets = Buckets(10, clock)
    assert [buckets.take("a", 2.0, 3.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take("a", 2.0, 3.0) == pytest.approx(0.5)
    assert buckets.take("b", 2.0, 3.0) == 0.0
    clock.now = 0.25
    assert buckets.take("a", 2.0, 3.0) == pytest.approx(0.25)
    clock.now = 0.5
    assert buckets.take("a", 2.0, 3.0) == 0.0
    clock.now = 1_000.0
    assert [buckets.take("a", 2.0, 3.0) == 0.0 for _ in range(4)] == [True, True, True, False]


steps = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=60)


@settings(deadline=None, max_examples=80)
@given(steps=steps, rate=st.floats(0.1, 10), burst=st.floats(1, 5))
def test_nobody_takes_more_than_burst_and_rate_give(steps, rate, burst):
    clock = Clock()
    buckets = Buckets(10, clock)
    taken = dict.fromkeys("abc", 0)
    for name, pause in steps:
        clock.now += pause
        wait = buckets.take(name, rate, burst)
        taken[name] += wait == 0.0
        assert taken[name] <= burst + rate * clock.now + 1e-6
        assert 0.0 <= wait <= 1.0 / rate


@settings(deadline=None, max_examples=40)
@given(names=st.lists(st.integers(0, 40), max_size=120), room=st.integers(1, 8))
def test_memory_is_bounded_and_the_newest_names_are_the_ones_remembered(names, room):
    buckets = Buckets(room, Clock())
    newest: list[int] = []
    for name in names:
        is_known = name in newest
        assert (buckets.take(str(name), 1e-9, 1.0) > 0.0) == is_known
        newest = [*(n for n in newest if n != name), name][-room:]
        assert len(buckets) == len(newest) <= room


def test_a_caller_over_its_rate_is_told_when_to_come_back_and_others_are_not():
    clock, application = Clock(), Application()
    app = secured(application, rates={"per_key_s": 0.5, "burst_s": 4.0}, clock=clock)
    answers = [ask(app, "GET", "/v1/model", READ) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert answers[2].headers["retry-after"] == "2"
    assert len(application.reached) == 2
    assert ask(app, "POST", "/v1/events", KEYS["events"]).status == 200
    assert ask(app, "GET", "/health/live", READ).status == 200
    clock.now = 2.0
    assert ask(app, "GET", "/v1/model", READ).status == 200


def test_failed_logins_of_one_address_are_told_to_wait_but_the_right_key_comes_in():
    clock = Clock()
    app = secured(Application(), rates={"failed_auth_s": 0.1, "failed_auth_burst": 3}, clock=clock)

    def statuses(address: str, key: str | None) -> list[int | None]:
        asked = [ask(app, "GET", "/v1/model", key, client=(address, 1)) for _ in range(5)]
        return [answer.status for answer in asked]

    assert statuses("192.0.2.1", "wrong") == [401, 401, 401, 429, 429]
    assert statuses("192.0.2.1", None) == [429] * 5
    assert statuses("192.0.2.1", READ) == [200] * 5
    assert statuses("192.0.2.2", "wrong") == [401, 401, 401, 429, 429]
    waiting = ask(app, "GET", "/v1/model", "wrong", client=("192.0.2.1", 1))
    assert waiting.headers["retry-after"] == "10"
    clock.now = 10.0
    assert statuses("192.0.2.1", "wrong") == [401, 429, 429, 429, 429]


def test_a_scope_that_is_lacking_is_no_failed_login():
    app = secured(Application(), rates={"failed_auth_burst": 1})
    answers = [ask(app, "GET", "/metrics", READ).status for _ in range(5)]
    assert answers == [403] * 5


LIMIT = 100


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"x" * LIMIT], 200),
        ([b"x" * (LIMIT + 1)], 413),
        ([b"x"] * LIMIT, 200),
        ([b"x"] * (LIMIT + 1), 413),
        ([b"x" * LIMIT, b"", b"x"], 413),
        ([b""] * 500, 200),
    ],
)
@pytest.mark.parametrize("told", [None, "1"])
def test_a_body_is_counted_as_it_comes_whatever_it_said_of_itself(parts, status, told):
    application = Application()
    app = secured(application, limits={"max_body_bytes": LIMIT})
    headers = {"Content-Length": told} if told else {}
    answer = ask(app, "POST", "/v1/recommend", READ, body=parts, headers=headers)
    assert answer.status == status
    assert application.bodies == ([b"".join(parts)] if status == 200 else [])


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (str(LIMIT + 1), 413),
        ("0" * 30 + str(LIMIT + 1), 413),
        ("9" * 9_000, 413),
        ("0" * 30 + "5", 200),
        ("-1", 400),
        ("+5", 400),
        ("1_0", 400),
        ("5.0", 400),
        ("", 400),
        ("5, 5", 400),
        ("\xb2", 400),
    ],
)
def test_a_length_that_is_told_is_believed_only_against_the_client(length, status):
    application = Application()
    app = secured(application, limits={"max_body_bytes": LIMIT})
    sent = {"Content-Length": length}
    answer = ask(app, "POST", "/v1/recommend", READ, headers=sent, body=[b"12345"])
    assert answer.status == status
    assert len(application.reached) == (status == 200)


def test_a_stranger_s_body_is_not_read():
    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def ask_it() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = http_scope("POST", "/v1/recommend", {"Content-Length": "999999999"})
        await secured(Application())(scope, receive, send)
        return sent

    assert asyncio.run(ask_it())[0]["status"] == 401


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/v1/model", {"X-Long": "x" * 2_000}),
        ("/v1/model", {"X" * 2_000: "x"}),
        ("/v1/model", {"Authorization": "Bearer " + "x" * 2_000}),
        ("/v1/model?" + "x" * 2_000, {}),
        ("/v1/items/" + "x" * 2_000, {}),
        ("/v1/model", {f"X-{n}": "x" * 20 for n in range(100)}),
    ],
)
def test_headers_have_a_limit(target, headers):
    app = secured(Application(), limits={"max_header_bytes": 2_000})
    assert ask(app, "GET", target, headers=headers).status == 431
    assert ask(app, "GET", "/v1/model", READ).status == 200


@pytest.mark.parametrize("asked", [None, "20", "99999999"])
def test_time_runs_out_and_the_handler_is_cancelled(asked):
    application = Application()
    app = secured(application, limits={"timeout_s": 10.0 if asked == "20" else 0.02})
    headers = {"X-Request-Timeout-Ms": asked} if asked else {}
    answer = ask(app, "POST", "/v1/rank", READ, headers=headers)
    assert (answer.status, application.cancelled) == (504, 1)
    assert answer.json()["detail"] == "no answer within 0.02 s"
    assert ask(app, "GET", "/v1/model", READ).status == 200


@pytest.mark.parametrize("given", ["0", "000", "-5", "1.5", "soon", "", "1e3", "9999999999", "٣"])
def test_a_timeout_that_is_no_number_of_milliseconds_is_refused(given):
    headers = {"X-Request-Timeout-Ms": given.encode().decode("latin-1")}
    answer = ask(secured(Application()), "GET", "/v1/model", READ, headers=headers)
    assert answer.status == 400
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


def test_a_body_whose_next_part_does_not_come_is_given_up():
    async def ask_it(**limits: float) -> tuple[Any, int]:
        application, answer = Application(), {}
        parts: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]

        async def receive() -> Message:
            if not parts:
                await asyncio.Event().wait()
            return parts.pop()

        async def send(message: Message) -> None:
            answer.update(message)

        sent = {"X-API-Key": READ}
        app = secured(application, limits=limits)
        await app(http_scope("POST", "/v1/recommend", sent), receive, send)
        return answer["status"], len(application.reached)

    assert asyncio.run(ask_it(body_chunk_timeout_s=0.01)) == (408, 0)
    assert asyncio.run(ask_it(timeout_s=0.01)) == (408, 0)


def test_a_body_that_comes_drop_by_drop_ends_with_the_request_s_time():
    async def ask_it() -> int:
        answer: dict[str, Any] = {}

        async def receive() -> Message:
            await asyncio.sleep(0.001)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Message) -> None:
            answer.update(message)

        app = secured(Application(), limits={"timeout_s": 0.03, "body_chunk_timeout_s": 5.0})
        await app(http_scope("POST", "/v1/recommend", {"X-API-Key": READ}), receive, send)
        return answer["status"]

    assert asyncio.run(ask_it()) == 408


def test_a_client_that_goes_away_in_its_body_reaches_nothing_and_leaves_its_place():
    application = Application()
    app = secured(application, limits={"max_in_progress": 1})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there")

    async def leave_and_come() -> Answer:
        await app(http_scope("POST", "/v1/recommend", {"X-API-Key": READ}), receive, send)
        return await call(app, "GET", "/v1/model", READ)

    assert asyncio.run(leave_and_come()).status == 200
    assert application.reached == ["/v1/model"]


def test_a_full_service_refuses_at_once_is_alive_and_has_room_again_afterwards():
    async def fill() -> None:
        application = Application()
        app = secured(application, limits={"max_in_progress": 2})

        async def wait(key: str = READ) -> Answer:
            return await call(app, "POST", "/v1/rank", key)

        held = [asyncio.create_task(wait()) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await call(app, "GET", "/v1/model", READ)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["detail"] == "the service is busy"
        assert (await call(app, "GET", "/health/ready")).status == 200
        assert (await call(app, "GET", "/v1/model")).status == 401
        # One client hangs up: its place is free.
        held.pop().cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert application.cancelled == 1
        assert (await call(app, "GET", "/v1/model", READ)).status == 200
        application.go.set()
        assert (await held[0]).status == 200
        assert [(await wait()).status for _ in range(5)] == [200] * 5
        # Faults leave their places too.
        for _ in range(5):
            assert (await call(app, "POST", "/v1/batch", READ)).status == 500
        assert (await call(app, "GET", "/v1/model", READ)).status == 200

    asyncio.run(fill())
