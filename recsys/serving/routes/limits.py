"""Sizes that a request may ask for."""

from __future__ import annotations

from collections.abc import Sized

from fastapi import HTTPException

from recsys.config import ServeArgs


def check_size(name: str, size: int, allowed: int) -> None:
    """Refuse a request that asks for more than the service allows.

    Raises:
        HTTPException: 422, naming the field, its size and what is allowed.
    """
    if size > allowed:
        raise HTTPException(422, f"{name}: {size} is more than this service allows: {allowed}")


def check_lists(args: ServeArgs, **lists: Sized | None) -> None:
    """Refuse lists longer than a history may be."""
    for name, values in lists.items():
        check_size(name, len(values or ()), args.max_request_history)
