"""What is logged of a request: one record of fields, none of which holds a path, a text or a user.

With `logging_config: {encoding: JSON}` Ray writes a record as one JSON object a line, the fields
under the key `request`; as text the message alone.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import Scope

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

access = logging.getLogger("recsys.serving.access")


def log_as_serve_does() -> None:
    """Into the replica's own log, in its encoding."""
    log = logging.getLogger("recsys")
    log.setLevel(logging.INFO)
    for handler in logging.getLogger("ray.serve").handlers:
        log.addHandler(handler)


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """One record for a request that is over."""
    fields = access_fields(scope, status, seconds)
    line = "{method} {route} {status} {ms} ms".format_map(fields)
    access.info(line, extra={"request": fields})


def access_fields(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    """What is told of a request.

    `route` is the route's pattern, None where none was reached; `refused` says why a layer did not
    let it through; `trace_id` and `model_version` are there where a route answered.
    """
    state = scope["state"]
    principal = state.get("principal")
    return {
        "request_id": state["request_id"],
        "trace_id": state.get("trace_id"),
        "method": scope["method"] if scope["method"] in METHODS else "other",
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "ms": round(1e3 * seconds, 1),
        "key": principal.name if principal else None,
        "refused": state.get("refused"),
        "model_version": state.get("model_version"),
    }
