"""The key of users' pseudonyms: read here, and handed to the library as bytes."""

from __future__ import annotations

import os
from pathlib import Path

from recsys.data.privacy import parse_key

VARIABLE = "RECSYS_USER_KEY"


def read_user_key(path: Path | None) -> bytes | None:
    """The key from a file, or from `RECSYS_USER_KEY`; None where there is neither.

    Raises:
        ValueError: the key is not text, or too short or too long.
    """
    if path is not None:
        return parse_key(path.read_bytes())
    text = os.environ.get(VARIABLE)
    return parse_key(text.encode()) if text else None
