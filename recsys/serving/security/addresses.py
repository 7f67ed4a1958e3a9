"""Where a request comes from, for counting failed logins, and under which name it came."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope


def client_of(scope: Scope, forwarded_hops: int) -> str:
    """The client's address; of IPv6 the /64, which one subscriber has as a whole.

    With `forwarded_hops` proxies the address is what the outermost of them appended to
    X-Forwarded-For; what stands left of that the client wrote itself.
    """
    address = (scope.get("client") or ("",))[0]
    if forwarded_hops:
        told = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
        address = told[-forwarded_hops].strip() if len(told) >= forwarded_hops else address
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if known.version == 4:
        return str(known)
    return str(ipaddress.ip_network((int(known), 64), strict=False))


def host_of(headers: Headers) -> str:
    """The name in `Host`, without its port; empty where there is none that can be read."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""
