"""Nobody gets past this layer unknown, whatever the path, and nobody without the path's scope."""

from __future__ import annotations

from typing import get_args

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.config import SecurityConfig
from recsys.config.security import Scope as ScopeName
from recsys.serving.security.addresses import client_of, host_of
from recsys.serving.security.buckets import Buckets
from recsys.serving.security.credentials import NOBODY, Credentials
from recsys.serving.security.paths import is_public, needed_scope
from recsys.serving.security.principal import Principal, Unauthorised
from recsys.serving.security.refusal import Refusal, too_many

ANYBODY = Principal("anybody", frozenset(get_args(ScopeName)))
"""Who calls a service that requires no authentication."""
HOW = "send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"


class Authentication:
    """Puts the caller into `state["principal"]`; on public paths there is none."""

    def __init__(
        self,
        app: ASGIApp,
        config: SecurityConfig,
        credentials: Credentials | None,
        failures: Buckets,
    ) -> None:
        """`credentials` is None where `config.require_auth` is false, and only there."""
        assert (credentials is None) == (not config.require_auth)
        self._app, self._config = app, config
        self._credentials, self._failures = credentials, failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if not is_public(scope, self._config):
            principal = await self._principal_of(scope)
            scope["state"]["principal"] = principal
            needed = needed_scope(scope, self._config.rules)
            if needed not in principal.scopes:
                raise _forbidden(principal, needed)
        await self._app(scope, receive, send)

    async def _principal_of(self, scope: Scope) -> Principal:
        headers = Headers(scope=scope)
        if self._credentials is None:
            return self._anybody(headers)
        try:
            return await self._credentials.find(headers)
        except Unauthorised as error:
            raise self._unauthorised(scope, str(error)) from None

    def _anybody(self, headers: Headers) -> Principal:
        # A page of the web can reach this machine under a name of its own (DNS rebinding); its
        # name gives it away.
        if host_of(headers) not in self._config.open_hosts:
            raise Refusal(403, "this name is not one of security.open_hosts", "host")
        return ANYBODY

    def _unauthorised(self, scope: Scope, reason: str) -> Refusal:
        # Asked for after the credentials were found wrong, never before: who shares an address
        # with an attacker, as all do behind one proxy, still gets in with the right key.
        rates = self._config.rates
        client = client_of(scope, self._config.forwarded_hops)
        wait = self._failures.take(client, rates.failed_auth_s, rates.failed_auth_burst)
        if wait:
            return too_many("too many failed logins", reason, wait)
        if reason == NOBODY:
            return Refusal(401, HOW, reason, {"WWW-Authenticate": "Bearer"})
        told = f"the credentials are unknown, expired or malformed; {HOW}"
        return Refusal(401, told, reason, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _forbidden(principal: Principal, needed: str) -> Refusal:
    told = (
        f"'{principal.name}' may not do this: it takes the scope '{needed}', as everything does "
        "that has no rule, unknown paths too"
        if needed == "admin"
        else f"'{principal.name}' may not do this: it takes the scope '{needed}'"
    )
    challenge = f'Bearer error="insufficient_scope", scope="{needed}"'
    return Refusal(403, told, f"scope {needed}", {"WWW-Authenticate": challenge})
