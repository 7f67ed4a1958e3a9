"""A request that is not answered, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping


class Refusal(Exception):
    """Raised by a layer; the layer `Faults` turns it into a problem body."""

    def __init__(
        self, status: int, detail: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """`detail` is for the client, `reason` a word or two for the log."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason
        self.headers = dict(headers or {})


def too_many(detail: str, reason: str, wait_s: float) -> Refusal:
    """429 with the whole seconds to wait, at least one."""
    return Refusal(429, detail, reason, {"Retry-After": str(max(1, math.ceil(wait_s)))})
