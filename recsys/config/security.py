"""Who may call the HTTP service, how often, and how large and how long a request may be."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from recsys.config.section import Names, Section

Scope = Literal["read", "events", "items", "admin"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Path = Annotated[str, Field(pattern=r"^/[^*?#]*$")]
PathPattern = Annotated[str, Field(pattern=r"^/([^*?#]*|([^*?#]*/)?\*)$")]


class ScopeRule(Section):
    """Which scope some paths need."""

    scope: Scope
    """The scope. `admin` opens what no rule names; it does not hold the others."""
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)]
    """Methods; GET means HEAD too."""
    paths: Annotated[tuple[PathPattern, ...], Field(strict=False, min_length=1)]
    """Paths as the router matches them, letter by letter; `/v1/items/*` is all below it."""


JWKS_URL = r"^(https://[^@]+|http://(localhost|127\.0\.0\.1)(:\d+)?/.*)$"

RULES = (
    ScopeRule(
        scope="read",
        methods=("GET",),
        paths=(
            "/",
            "/page/*",
            "/openapi.json",
            "/v1/model",
            "/v1/items/*",
            "/v1/suggest",
        ),
    ),
    ScopeRule(
        scope="read",
        methods=("POST",),
        paths=("/v1/recommend", "/v1/batch", "/v1/similar_items", "/v1/rank", "/v1/search"),
    ),
    ScopeRule(scope="events", methods=("POST",), paths=("/v1/events",)),
    ScopeRule(scope="items", methods=("PUT", "DELETE"), paths=("/v1/items/*",)),
)


class TokenConfig(Section):
    """JSON Web Tokens of an identity provider. A secret is never a setting."""

    algorithm: Literal["HS256", "RS256", "ES256"]
    """The one algorithm; a token that names another is refused."""
    issuer: Annotated[str, Field(min_length=1)]
    """What `iss` must be."""
    audience: Annotated[str, Field(min_length=1)]
    """What `aud` must be or hold."""
    key_file: str | None = None
    """File with the PEM public key, or with the secret of HS256; read again when it changes."""
    jwks_url: Annotated[str, Field(pattern=JWKS_URL)] | None = None
    """Where the issuer publishes its keys (RFC 7517), in place of a file: `https://`, or `http://`
    on this machine. The token's `kid` names one of them."""
    jwks_refresh_s: PositiveFloat = 300.0
    """Seconds after which the keys are fetched again: so long a key that was taken back counts."""
    jwks_cooldown_s: PositiveFloat = 30.0
    """Seconds between two fetches that unknown keys cause, whoever sends them."""
    jwks_timeout_s: PositiveFloat = 5.0
    """Seconds after which a fetch is given up."""
    name_claim: Annotated[str, Field(min_length=1)] = "client_id"
    """The claim that names the caller, in logs too: a program, not a person (RFC 9068)."""
    leeway_s: NonNegativeFloat = 10.0
    """How far the clocks may be apart."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.jwks_url and self.key_file:
            raise ValueError("keys come from jwks_url or from key_file, not from both")
        if self.jwks_url and self.algorithm == "HS256":
            raise ValueError("a secret is never published: jwks_url needs RS256 or ES256")
        return self


class RateConfig(Section):
    """How often a caller may ask. Each replica counts for itself: with 4 replicas it is 4 times."""

    per_key_s: PositiveFloat = 50.0
    """Requests a second of a key or token that has no rate of its own."""
    burst_s: PositiveFloat = 2.0
    """How many seconds' worth of requests may come at once."""
    failed_auth_s: PositiveFloat = 0.2
    """Failed logins a second of one address before it is told to wait."""
    failed_auth_burst: PositiveInt = 10
    """Failed logins of one address that may come at once."""
    max_callers: PositiveInt = 10_000
    """Callers, and addresses, whose counts are remembered; the longest unseen are forgotten."""


class LimitConfig(Section):
    """How large and how long one request may be, and how many there may be at a time."""

    timeout_s: PositiveFloat = 10.0
    """Seconds after which a request is given up; `X-Request-Timeout-Ms` may shorten it."""
    body_chunk_timeout_s: PositiveFloat = 5.0
    """Seconds in which the next part of a body must come."""
    max_body_bytes: PositiveInt = 4 * 2**20
    """Largest body."""
    max_header_bytes: PositiveInt = 16 * 2**10
    """Largest path, query and headers together."""
    max_in_progress: PositiveInt = 64
    """Requests of one replica at a time; more are told to come back."""


class SecurityConfig(Section):
    """The safety of the HTTP service."""

    require_auth: bool = True
    """False lets everybody in, under a name of `open_hosts`: for a laptop, on 127.0.0.1."""
    open_hosts: Names = ("localhost", "127.0.0.1", "::1")
    """Names (`Host`) under which a service without authentication answers."""
    keys_file: str | None = None
    """JSON file that `ray_jobs.api_key` writes; read again when it changes."""
    check_files_s: NonNegativeFloat = 1.0
    """Seconds between two looks at the files of keys."""
    tokens: TokenConfig | None = None
    """Tokens that are accepted beside keys."""
    public_paths: Annotated[tuple[Path, ...], Field(strict=False)] = (
        "/health/live",
        "/health/ready",
    )
    """Paths that everybody may GET, letter by letter."""
    rules: Annotated[tuple[ScopeRule, ...], Field(strict=False)] = RULES
    """The scope of each path: the first rule that fits. What none names needs `admin`."""
    forwarded_hops: NonNegativeInt = 0
    """Proxies of yours that append to X-Forwarded-For; 0 does not believe that header."""
    cors_origins: Names = ()
    """Origins (`https://shop.example`) whose pages may call; none by default."""
    rates: RateConfig = RateConfig()
    """How often."""
    limits: LimitConfig = LimitConfig()
    """How large and how long."""

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        if not self.require_auth and (self.keys_file or self.tokens):
            raise ValueError("require_auth = false ignores keys: take out keys_file and tokens")
        if "*" in self.cors_origins:
            raise ValueError("cors_origins: name each origin; '*' would be every page of the web")
        return self
