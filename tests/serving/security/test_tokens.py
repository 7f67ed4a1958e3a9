"""Tokens: only of the issuer, for us, in time, by the one algorithm, and signed by its key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config.security import TokenConfig
from recsys.serving.security.principal import Unauthorised
from recsys.serving.security.tokens import TokenReader, parse_token_key
from tests.serving.security.calling import KEYS, Application, ask, secured

SECRET = "a secret of thirty-two bytes or more"
ISSUER, AUDIENCE = "https://login.shop.example", "recommender"
RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Any) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


SIGNERS = {"HS256": SECRET, "RS256": RSA_KEY, "ES256": EC_KEY}
KEY_TEXTS = {"HS256": SECRET, "RS256": pem_of(RSA_KEY), "ES256": pem_of(EC_KEY)}
ALGORITHMS = list(SIGNERS)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None takes one out."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 300,
        "client_id": "shop",
        "scope": "read events",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def config(algorithm: str, **fields: Any) -> TokenConfig:
    return TokenConfig.model_validate(
        {"algorithm": algorithm, "issuer": ISSUER, "audience": AUDIENCE, **fields}
    )


def reader(algorithm: str, **fields: Any) -> TokenReader:
    key = parse_token_key(KEY_TEXTS[algorithm], algorithm)
    return TokenReader(config(algorithm, **fields), lambda _: key)


READERS = {algorithm: reader(algorithm) for algorithm in ALGORITHMS}


def signed(algorithm: str = "HS256", key: Any = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key or SIGNERS[algorithm], algorithm)


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def hmac_signed(header: dict[str, Any], payload: dict[str, Any], secret: bytes) -> str:
    """A token made by hand, which a library would refuse to make."""
    text = f"{segment(header)}.{segment(payload)}"
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_names_the_caller_and_its_scopes(algorithm):
    principal = READERS[algorithm].principal_of(signed(algorithm))
    assert principal.name == "token:shop"
    assert principal.scopes == {"read", "events"}


BAD_CLAIMS = {
    "expired": {"exp": 1_700_000_000},
    "no exp": {"exp": None},
    "exp is text": {"exp": "tomorrow"},
    "endless exp": {"exp": float("inf")},
    "not yet": {"nbf": 4_000_000_000},
    "other issuer": {"iss": "https://login.evil.example"},
    "no issuer": {"iss": None},
    "other audience": {"aud": "accounting"},
    "other audiences": {"aud": ["accounting", "mail"]},
    "no audience": {"aud": None},
    "no name": {"client_id": None},
    "empty name": {"client_id": ""},
    "name with a newline": {"client_id": "shop\nfake line"},
    "name is no text": {"client_id": {"a": 1}},
    "long name": {"client_id": "x" * 65},
}


@pytest.mark.parametrize("change", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_that_is_not_for_us_now_is_refused(algorithm, change):
    with pytest.raises(Unauthorised, match="token"):
        READERS[algorithm].principal_of(signed(algorithm, **change))


@pytest.mark.parametrize(
    "scope", [{"scope": None}, {"scope": ["admin"]}, {"scope": {"admin": 1}}, {"scope": "ADMIN"}]
)
def test_scopes_that_are_no_words_open_nothing(scope):
    assert "admin" not in READERS["HS256"].principal_of(signed(**scope)).scopes


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "HS512", "PS256", "RS512", "ES384"])
@pytest.mark.parametrize("signature", ["", "."])
def test_a_token_without_a_signature_or_with_another_algorithm_is_refused(
    algorithm, alg, signature
):
    unsigned = f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(claims())}"
    with pytest.raises(Unauthorised):
        READERS[algorithm].principal_of(unsigned + signature)
    # With the right signature on it too.
    by_hand = hmac_signed({"alg": alg, "typ": "JWT"}, claims(), SECRET.encode())
    with pytest.raises(Unauthorised):
        READERS[algorithm].principal_of(by_hand)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_public_key_is_no_secret(algorithm, ending):
    secret = (KEY_TEXTS[algorithm].rstrip("\n") + ending).encode()
    confused = hmac_signed({"alg": "HS256", "typ": "JWT"}, claims(), secret)
    with pytest.raises(Unauthorised):
        READERS[algorithm].principal_of(confused)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_only_the_right_key_signs(algorithm, other):
    wrong = {
        "HS256": "another secret of thirty-two bytes",
        "RS256": RSA_OTHER,
        "ES256": EC_OTHER,
    }
    with pytest.raises(Unauthorised):
        READERS[algorithm].principal_of(signed(other, wrong[other]))
    if other != algorithm:
        with pytest.raises(Unauthorised):
            READERS[algorithm].principal_of(signed(other))


RSA_OTHER = rsa.generate_private_key(65_537, 2_048)
EC_OTHER = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_header_cannot_bring_its_own_key(algorithm):
    own = {"jwk": {"kty": "oct", "k": "AAAA"}, "jku": "https://evil.example/keys", "kid": "../x"}
    brought = hmac_signed({"alg": algorithm} | own, claims(), b"\0" * 32)
    with pytest.raises(Unauthorised):
        READERS[algorithm].principal_of(brought)


@pytest.mark.parametrize("depth", [10, 3_000])
def test_deep_json_is_refused_and_breaks_nothing(depth):
    deep = base64.urlsafe_b64encode(b"[" * depth).rstrip(b"=").decode()
    for token in (f"{deep}.e30.AA", f"{segment({'alg': 'HS256'})}.{deep}.AA"):
        with pytest.raises(Unauthorised):
            READERS["HS256"].principal_of(token)


parts = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=30)
json_parts = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
).map(segment)


@settings(deadline=None, max_examples=100)
@given(texts=st.lists(parts | json_parts | st.just(segment({"alg": "HS256"})), max_size=5))
def test_no_text_with_dots_is_a_token_or_breaks_anything(texts):
    with pytest.raises(Unauthorised):
        READERS["HS256"].principal_of(".".join(texts))


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 400), letter=st.sampled_from("Ab9_-.=+ "))
def test_no_letter_of_a_token_can_be_changed(place, letter):
    token = signed("HS256", exp=4_000_000_000)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    # The last letter of a signature carries two bits that are not part of it.
    if changed[:-1] != token[:-1]:
        with pytest.raises(Unauthorised):
            READERS["HS256"].principal_of(changed)


PRIVATE = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SMALL = pem_of(rsa.generate_private_key(65_537, 1_024))
P384 = pem_of(ec.generate_private_key(ec.SECP384R1()))


@pytest.mark.parametrize(
    ("algorithm", "text", "told"),
    [
        ("HS256", "short", "32 bytes or more"),
        ("HS256", "", "32 bytes or more"),
        ("HS256", KEY_TEXTS["RS256"], "needs a secret"),
        ("RS256", SECRET, "PEM public key"),
        ("RS256", PRIVATE, "PEM public key"),
        ("RS256", SMALL, "RSA of 2048 bits"),
        ("RS256", KEY_TEXTS["ES256"], "does not fit RS256"),
        ("ES256", KEY_TEXTS["RS256"], "does not fit ES256"),
        ("ES256", P384, "curve P-256"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_at_start_and_not_repeated(algorithm, text, told):
    with pytest.raises(ValueError, match=told) as caught:
        parse_token_key(text, algorithm)
    assert not text or text not in str(caught.value)


def test_a_token_goes_through_the_service_beside_keys():
    tokens = config("ES256").model_dump()
    app = secured(Application(), tokens=tokens, token_key=KEY_TEXTS["ES256"])
    token = signed("ES256")
    assert ask(app, "GET", "/v1/model", token).json()["caller"] == "token:shop"
    assert ask(app, "GET", "/v1/model", headers={"X-API-Key": token}).status == 200
    assert ask(app, "DELETE", "/v1/users/alice", token).status == 403
    assert ask(app, "GET", "/v1/model", KEYS["read"]).status == 200
    refused = ask(app, "GET", "/v1/model", signed("ES256", exp=1_700_000_000))
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert ask(secured(Application()), "GET", "/v1/model", token).status == 401


def test_the_key_of_tokens_changes_without_a_restart(tmp_path):
    path = tmp_path / "public.pem"
    path.write_text(KEY_TEXTS["ES256"])
    tokens = config("ES256", key_file=str(path)).model_dump()
    app = secured(Application(), tokens=tokens, keys=None, check_files_s=0.0)
    old, new = signed("ES256"), signed("ES256", EC_OTHER)
    assert [ask(app, "GET", "/v1/model", token).status for token in (old, new)] == [200, 401]
    path.write_text(pem_of(EC_OTHER))
    assert [ask(app, "GET", "/v1/model", token).status for token in (old, new)] == [401, 200]
