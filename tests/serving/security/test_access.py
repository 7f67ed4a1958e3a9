"""Nobody gets anywhere without a key, by no spelling of a path, and only where its scope goes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import SecurityConfig
from recsys.serving.security.addresses import client_of
from recsys.serving.security.paths import needed_scope
from recsys.serving.security.secure import secure
from tests.serving.security.calling import KEYS, Application, ask, http_scope, secured

APPLICATION = Application()
SECURED = secured(APPLICATION, rates={"failed_auth_burst": 100_000})
ROUTES = [
    ("GET", "/"),
    ("GET", "/page/page.js"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/v1/model"),
    ("GET", "/v1/items/i1"),
    ("POST", "/v1/recommend"),
    ("POST", "/v1/events"),
    ("DELETE", "/v1/users/alice"),
    ("GET", "/no/such/path"),
    ("OPTIONS", "/v1/recommend"),
    ("HEAD", "/v1/model"),
    ("TRACE", "/v1/model"),
    ("BREW", "/"),
]
TRICKS = [
    "//v1/model",
    "/v1//model",
    "/v1/model/",
    "/V1/MODEL",
    "/%76%31/model",
    "/%2e%2e/v1/model",
    "/health/live/../v1/model",
    "/health/live/../../v1/model",
    "/health/live/%2e%2e/%2e%2e/v1/model",
    "/health/live%2f..%2f..%2fv1/model",
    "/health/live;/v1/model",
    "/health/live/",
    "/health/live/v1/model",
    "//health/live",
    "/health//live",
    "/Health/Live",
    "/./health/live",
    "/health/./live",
    "/health/live%00",
    "/health/live%20",
    "/health/live%3f",
    "/health/live\\..\\v1\\model",
    "/health/livex",
    "/health",
    "/v1/items/../model",
    "/v1/model?x=/health/live",
    "health/live",
    "",
    "*",
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_is_closed_without_a_key(method, path):
    before = len(APPLICATION.reached)
    answer = ask(SECURED, method, path)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(APPLICATION.reached) == before


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("root", ["", "/shop"])
def test_no_spelling_of_a_path_opens_it(path, root):
    before = len(APPLICATION.reached)
    for method in ("GET", "HEAD", "POST"):
        assert ask(SECURED, method, root + path, root_path=root).status == 401
    assert len(APPLICATION.reached) == before


@settings(deadline=None, max_examples=100)
@given(
    path=st.text(st.sampled_from("/.%2eEfF\\;?healtivrdy\x00 v1") | st.characters(), max_size=30)
)
def test_no_path_at_all_is_open_but_the_public_ones(path):
    scope = http_scope("GET", "", {}) | {"path": path}
    status = ask(SECURED, "GET", "", path=scope["path"]).status
    assert status == (200 if path in ("/health/live", "/health/ready") else 401)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/%68ealth/live"])
@pytest.mark.parametrize("root", ["", "/shop"])
def test_a_public_path_is_open_to_read_and_only_to_read(path, root):
    assert ask(SECURED, "GET", root + path, root_path=root).status == 200
    assert ask(SECURED, "POST", root + path, root_path=root).status == 401
    assert ask(SECURED, "DELETE", root + path, root_path=root).status == 401


def test_paths_are_public_only_where_the_config_says():
    app = secured(Application(), public_paths=["/"])
    assert [ask(app, "GET", path).status for path in ("/", "/health/live")] == [200, 401]


OPENED = {
    "read": {"/", "/page/page.js", "/openapi.json", "/v1/model", "/v1/items/i1", "/v1/recommend"},
    "events": {"/v1/events"},
    "admin": {"/docs", "/redoc", "/metrics", "/v1/users/alice", "/no/such/path"},
}


@pytest.mark.parametrize(("method", "path"), ROUTES[:12])
@pytest.mark.parametrize("scope", list(OPENED))
def test_a_key_opens_what_its_scope_says_and_nothing_else(method, path, scope):
    answer = ask(SECURED, method, path, KEYS[scope])
    if path in OPENED[scope]:
        assert answer.status == (404 if path in {"/metrics", "/no/such/path"} else 200)
    else:
        assert answer.status == 403
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert f"'the-{scope}' may not" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/model"),
        ("PUT", "/v1/recommend"),
        ("GET", "/v1/events"),
        ("POST", "/v1/items/i1"),
        ("GET", "/v1/admin/../model"),
        ("GET", "/v1/models"),
        ("GET", "/v1/model/"),
        ("GET", "/pages/x"),
        ("get", "/v1/model"),
        ("POST", "/v1/new_route"),
    ],
)
def test_what_no_rule_names_needs_admin(method, path):
    assert needed_scope(http_scope(method, path, {}), SecurityConfig().rules) == "admin"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEYS['read']}"},
        {"Authorization": f"bearer   {KEYS['read']} "},
        {"X-API-Key": KEYS["read"]},
    ],
)
def test_a_key_is_taken_from_either_header(headers):
    answer = ask(SECURED, "GET", "/v1/model", headers=headers)
    assert (answer.status, answer.json()["caller"]) == (200, "the-read")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": KEYS["read"]},
        {"Authorization": f"Basic {KEYS['read']}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"X-API-Key": ""},
        {"X-API-Key": KEYS["read"][:-1]},
        {"X-API-Key": KEYS["read"].upper()},
        {"X-API-Key": f"{KEYS['read']}, {KEYS['admin']}"},
        {"Authorization": f"Bearer {KEYS['read']}", "X-API-Key": KEYS["read"]},
        {"Cookie": f"key={KEYS['read']}"},
    ],
)
def test_anything_else_is_no_key(headers):
    answer = ask(SECURED, "GET", "/v1/model", headers=headers)
    assert answer.status == 401
    assert KEYS["read"].encode() not in answer.body


def test_a_key_in_the_query_is_no_key():
    assert ask(SECURED, "GET", f"/v1/model?api_key={KEYS['read']}").status == 401


printable = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=80)


@settings(deadline=None, max_examples=60)
@given(
    headers=st.dictionaries(st.sampled_from(["Authorization", "X-API-Key"]), printable),
    prefix=st.sampled_from(["", "Bearer ", "Bearer rk_", "Bearer a.b.", "Basic "]),
)
def test_no_header_that_is_not_a_key_comes_in_or_breaks_anything(headers, prefix):
    sent = {name: prefix + value for name, value in headers.items()}
    assert ask(SECURED, "GET", "/v1/model", headers=sent).status == 401


def test_a_websocket_is_closed_and_start_and_stop_reach_the_application():
    application = Application()
    app = secured(application)
    sent: list[dict] = []
    inbox: list[Any] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return inbox.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def both() -> None:
        await app({"type": "websocket", "path": "/health/live", "headers": []}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    asyncio.run(both())
    assert application.started
    assert sent[1:] == [{"type": f"lifespan.{what}.complete"} for what in ("startup", "shutdown")]


def test_an_ordinary_client_gets_an_answer():
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=SECURED)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            return await client.post(
                "/v1/recommend", json={"history": []}, headers={"X-API-Key": KEYS["read"]}
            )

    answer = asyncio.run(get())
    assert (answer.status_code, answer.json()["caller"]) == (200, "the-read")
    assert APPLICATION.bodies[-1] == b'{"history":[]}'


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_without_authentication_only_this_machine_s_names_are_answered(host, status):
    open_app = secured(Application(), require_auth=False, keys=None)
    answer = ask(open_app, "DELETE", "/v1/users/alice", headers={"Host": host})
    assert answer.status == status
    if status == 200:
        assert answer.json()["caller"] == "anybody"
    # A probe comes under an address of its own.
    assert ask(open_app, "GET", "/health/live", headers={"Host": "10.0.0.7:8000"}).status == 200


@pytest.mark.parametrize(
    ("fields", "given_keys", "told"),
    [
        ({}, {}, "make one by `python -m ray_jobs.api_key"),
        ({}, {"keys": '{"keys": []}'}, "make one by"),
        ({}, {"keys": "[]"}, "not a file of keys"),
        ({"keys_file": "keys.json"}, {"keys": '{"keys": []}'}, "not from both"),
        ({"keys_file": "no/such/keys.json"}, {}, "no/such/keys.json"),
        ({"require_auth": False}, {"keys": '{"keys": []}'}, "take one of them out"),
        ({"require_auth": False}, {"token_key": "x" * 32}, "take one of them out"),
        ({}, {"token_key": "x" * 32}, "set security.tokens"),
        (
            {"tokens": {"algorithm": "HS256", "issuer": "i", "audience": "a"}},
            {},
            "tokens need one key",
        ),
    ],
)
def test_a_service_that_nobody_could_enter_or_anybody_does_not_start(fields, given_keys, told):
    with pytest.raises(ValueError, match=told):
        secure(APPLICATION.fastapi, SecurityConfig(**fields), **given_keys)


@pytest.mark.parametrize(
    "fields",
    [
        {"require_auth": False, "keys_file": "keys.json"},
        {"cors_origins": ["*"]},
        {"public_paths": ["/v1/*"]},
        {"public_paths": ["health"]},
        {"rules": [{"scope": "read", "methods": ["GET"], "paths": ["/v1*/x"]}]},
        {"rules": [{"scope": "read", "methods": ["GET"], "paths": ["/v1*"]}]},
        {"rules": [{"scope": "root", "methods": ["GET"], "paths": ["/"]}]},
    ],
)
def test_a_config_that_opens_more_than_it_says_is_refused(fields):
    with pytest.raises(ValueError, match="require_auth|cors_origins|public_paths|rules"):
        SecurityConfig(**fields)


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}


def test_a_browser_s_question_is_answered_only_for_the_origins_of_the_config():
    ours, theirs = {"Origin": "https://shop.example"}, {"Origin": "https://evil.example"}
    closed = ask(SECURED, "OPTIONS", "/v1/recommend", headers=ours | PREFLIGHT)
    assert closed.status == 401
    assert "access-control-allow-origin" not in closed.headers
    app = secured(Application(), cors_origins=["https://shop.example"])
    answer = ask(app, "OPTIONS", "/v1/recommend", headers=ours | PREFLIGHT)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    refused = ask(app, "OPTIONS", "/v1/recommend", headers=theirs | PREFLIGHT)
    assert refused.status == 400
    assert "access-control-allow-origin" not in refused.headers
    unknown = ask(app, "POST", "/v1/recommend", headers=ours)
    assert unknown.status == 401
    assert unknown.headers["access-control-allow-origin"] == "https://shop.example"


@pytest.mark.parametrize(
    ("client", "forwarded", "hops", "expected"),
    [
        ("192.0.2.1", "", 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", 0, "192.0.2.1"),
        ("192.0.2.1", "6.6.6.6, 198.51.100.9", 1, "198.51.100.9"),
        ("192.0.2.1", "6.6.6.6, 198.51.100.9, 10.0.0.1", 2, "198.51.100.9"),
        ("192.0.2.1", "198.51.100.9", 2, "192.0.2.1"),
        ("192.0.2.1", "junk", 1, "unknown"),
        ("2001:db8:1:2:3:4:5:6", "", 0, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "", 0, "2001:db8:1:2::/64"),
        ("", "", 0, "unknown"),
    ],
)
def test_a_client_is_told_by_what_it_cannot_choose(client, forwarded, hops, expected):
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    scope = http_scope("GET", "/", headers, client=(client, 1) if client else None)
    assert client_of(scope, hops) == expected
