"""The password of the history store: read here, and handed to the library."""

from __future__ import annotations

import os

VARIABLE = "RECSYS_STORE_PASSWORD"


def read_store_password() -> str | None:
    """The password from the environment; None where there is none."""
    return os.environ.get(VARIABLE) or None
