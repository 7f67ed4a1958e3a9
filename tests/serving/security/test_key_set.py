"""Keys at a URL: rotated without a restart, fetched seldom, and kept where the provider is down."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError
from starlette.types import ASGIApp

from recsys.config.security import TokenConfig
from tests.serving.security.calling import Application, ask, secured
from tests.serving.security.test_tokens import AUDIENCE, EC_KEY, ISSUER, RSA_KEY, claims

OTHER_KEY = rsa.generate_private_key(65_537, 2_048)
WEAK_KEY = rsa.generate_private_key(65_537, 1_024)
P384_KEY = ec.generate_private_key(ec.SECP384R1())
COOLDOWN_S, REFRESH_S = 30.0, 300.0


class Provider(ThreadingHTTPServer):
    """Publishes `body` with `status`, and counts who came."""

    def __init__(self) -> None:
        self.status, self.body, self.calls = 200, b"{}", 0
        super().__init__(("127.0.0.1", 0), Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/keys"

    def publish(self, **keys: Any) -> None:
        self.body = json.dumps({"keys": [jwk(kid, key) for kid, key in keys.items()]}).encode()


class Answering(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.server.calls += 1
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Silent."""


def jwk(kid: str, key: Any, **more: str) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Service:
    """A guarded application that follows the provider, and its clock."""

    def __init__(self, provider: Provider, algorithm: str = "RS256") -> None:
        self.now = 0.0
        tokens = {
            "algorithm": algorithm,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "jwks_url": provider.url,
            "jwks_cooldown_s": COOLDOWN_S,
            "jwks_refresh_s": REFRESH_S,
        }
        rates = {"failed_auth_burst": 1_000}
        self.app: ASGIApp = secured(
            Application(), tokens=tokens, rates=rates, clock=lambda: self.now
        )

    def status(self, kid: str | None, key: Any = RSA_KEY, algorithm: str = "RS256") -> int | None:
        headers = {} if kid is None else {"kid": kid}
        token = jwt.encode(claims(), key, algorithm, headers)
        return ask(self.app, "GET", "/v1/model", token).status


def test_the_key_that_a_token_names_decides(provider: Provider) -> None:
    provider.publish(one=RSA_KEY, two=OTHER_KEY)
    service = Service(provider)
    assert service.status("one") == 200
    assert service.status("two", OTHER_KEY) == 200
    assert service.status("one", OTHER_KEY) == 401
    assert service.status(None) == 401
    assert provider.calls == 1


def test_a_new_key_is_fetched_when_it_is_first_named(provider: Provider) -> None:
    provider.publish(one=RSA_KEY)
    service = Service(provider)
    provider.publish(two=OTHER_KEY)
    service.now += COOLDOWN_S
    assert service.status("two", OTHER_KEY) == 200
    assert service.status("one") == 401
    assert provider.calls == 2


def test_unknown_keys_cause_no_more_fetches_than_one_a_cooldown(provider: Provider) -> None:
    provider.publish(one=RSA_KEY)
    service = Service(provider)
    for kid in ("a", "b", "c"):
        assert service.status(kid) == 401
    assert provider.calls == 1
    service.now += COOLDOWN_S
    assert {service.status(kid) for kid in ("a", "b", "c")} == {401}
    assert provider.calls == 2
    provider.status = 500
    service.now += COOLDOWN_S
    assert {service.status(kid) for kid in ("a", "b", "c")} == {401}
    assert provider.calls == 3


@pytest.mark.parametrize(("status", "body"), [(500, b""), (200, b"<html>"), (200, b'{"keys": 3}')])
def test_a_provider_that_fails_costs_no_known_key(
    provider: Provider, status: int, body: bytes
) -> None:
    provider.publish(one=RSA_KEY)
    service = Service(provider)
    provider.status, provider.body = status, body
    service.now += COOLDOWN_S
    assert service.status("new", OTHER_KEY) == 401
    assert provider.calls == 2
    assert service.status("one") == 200


def test_a_service_starts_without_its_provider_and_finds_it_later(provider: Provider) -> None:
    provider.status = 503
    service = Service(provider)
    provider.status = 200
    provider.publish(one=RSA_KEY)
    assert service.status("one") == 401
    service.now += COOLDOWN_S
    assert service.status("one") == 200


def test_a_key_that_was_taken_back_goes_with_the_next_refresh(provider: Provider) -> None:
    provider.publish(one=RSA_KEY, two=OTHER_KEY)
    service = Service(provider)
    provider.publish(two=OTHER_KEY)
    service.now += REFRESH_S
    # Whoever comes first still gets the old keys, and does not wait; an unknown kid does.
    assert service.status("two", OTHER_KEY) == 200
    service.now += REFRESH_S
    assert service.status("none") == 401
    assert service.status("one") == 401
    assert service.status("two", OTHER_KEY) == 200


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_only_strong_keys_of_the_one_algorithm_for_signatures_count(provider: Provider) -> None:
    provider.publish(weak=WEAK_KEY, curve=EC_KEY, big=P384_KEY, good=RSA_KEY)
    keys = json.loads(provider.body)["keys"]
    keys += [jwk("enc", OTHER_KEY, use="enc"), {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}]
    provider.body = json.dumps({"keys": keys}).encode()
    service = Service(provider)
    assert service.status("good") == 200
    assert service.status("weak", WEAK_KEY) == 401
    assert service.status("enc", OTHER_KEY) == 401
    assert service.status("curve", EC_KEY, "ES256") == 401
    assert service.status("secret", "secret" * 8, "HS256") == 401
    service = Service(provider, "ES256")
    assert service.status("curve", EC_KEY, "ES256") == 200
    assert service.status("good") == 401


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"algorithm": "HS256"}, "a secret is never published"),
        ({"key_file": "key.pem"}, "not from both"),
        ({"jwks_url": "http://login.shop.example/keys"}, "jwks_url"),
        ({"jwks_url": "https://user:password@login.shop.example/keys"}, "jwks_url"),
        ({"jwks_url": "file:///etc/passwd"}, "jwks_url"),
    ],
)
def test_a_config_that_is_not_safe_is_refused(fields: dict[str, str], said: str) -> None:
    good = {
        "algorithm": "RS256",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks_url": "https://login.shop.example/keys",
    }
    assert TokenConfig.model_validate(good).jwks_url == good["jwks_url"]
    with pytest.raises(ValidationError, match=said):
        TokenConfig.model_validate(good | fields)
