"""JSON Web Tokens (RFC 7519, 8725): one algorithm, pinned; the key must be of its kind."""

from __future__ import annotations

import re
from collections.abc import Callable

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from recsys.config.security import TokenConfig
from recsys.serving.security.principal import Principal, Unauthorised

TokenKey = bytes | RSAPublicKey | EllipticCurvePublicKey
MIN_SECRET_BYTES = 32
"""RFC 7518, 3.2: a secret is no shorter than the hash."""
MIN_RSA_BITS = 2_048
"""RFC 7518, 3.3."""
NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,64}")


def parse_token_key(text: str, algorithm: str) -> TokenKey:
    """The key of an algorithm, from a secret or a PEM public key.

    Raises:
        ValueError: the key is of another kind, or too short. The key is not repeated.
    """
    if algorithm == "HS256":
        return _secret(text.strip())
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{algorithm} needs a PEM public key ('BEGIN PUBLIC KEY')") from None
    return fitting_key(key, algorithm)


def fitting_key(key: object, algorithm: str) -> RSAPublicKey | EllipticCurvePublicKey:
    """The public key, if it is of the algorithm's kind and long enough.

    Raises:
        ValueError: it is not.
    """
    fits = (
        isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS
        if algorithm == "RS256"
        else isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    )
    if fits:
        assert isinstance(key, RSAPublicKey | EllipticCurvePublicKey)
        return key
    raise ValueError(
        f"the public key does not fit {algorithm}: RS256 needs RSA of {MIN_RSA_BITS} bits or more, "
        "ES256 needs the curve P-256"
    )


def _secret(text: str) -> bytes:
    if "-----BEGIN" in text:
        raise ValueError("HS256 needs a secret; this is a PEM key, which others may know")
    if len(text.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret of HS256 needs {MIN_SECRET_BYTES} bytes or more")
    return text.encode()


class TokenReader:
    """Turns tokens of one issuer into callers; `key_of` is asked for the key of each token."""

    def __init__(self, config: TokenConfig, key_of: Callable[[str], TokenKey]) -> None:
        self._config = config
        self._key_of = key_of

    def principal_of(self, token: str) -> Principal:
        """Who was given a token.

        Raises:
            Unauthorised: signature, algorithm, times, issuer, audience or name are not right.
            UnknownKey: the key that it names is not known.
        """
        claims = self._claims(token)
        name, scopes = claims[self._config.name_claim], claims.get("scope")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Unauthorised(f"token whose {self._config.name_claim} is no name")
        words = scopes.split(" ") if isinstance(scopes, str) else ()
        return Principal(f"token:{name}", frozenset(words))

    def _claims(self, token: str) -> dict:
        config = self._config
        try:
            return jwt.decode(
                token,
                self._key_of(token),
                algorithms=[config.algorithm],
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.leeway_s,
                options={"require": ["exp", "iss", "aud", config.name_claim]},
            )
        except jwt.PyJWTError as error:
            raise Unauthorised(f"token refused: {type(error).__name__}") from None
