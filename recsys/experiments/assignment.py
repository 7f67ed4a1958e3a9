"""Who sees which variant: a pure function of config and user, the same in every replica.

A keyed hash gives each user two numbers from 0 to 1. The first says whether the user is in the
experiment: yes where it is below `ramp`. The second says which variant. As `ramp` has no part in
the second, a higher ramp adds users and moves none. Nothing is stored, so a changed config holds
from the next request on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from itertools import accumulate

from recsys.config import ExperimentConfig


def assign(experiments: Iterable[ExperimentConfig], user_id: str, now: datetime) -> dict[str, str]:
    """The user's variant by experiment, of those that run at `now` and that the user is in."""
    running = [each for each in experiments if each.is_running(now)]
    found = {each.name: variant_of(each, user_id) for each in running}
    return {name: variant for name, variant in found.items() if variant is not None}


def variant_of(experiment: ExperimentConfig, user_id: str) -> str | None:
    """The user's variant, or None for a user who is not in the experiment."""
    entry, place = _numbers(experiment.salt, user_id)
    if entry >= experiment.ramp:
        return None
    tops = accumulate(variant.share for variant in experiment.variants)
    found = (v.name for v, top in zip(experiment.variants, tops, strict=True) if place < top)
    return next(found, experiment.variants[-1].name)  # shares sum to 1 but for rounding


def _numbers(salt: str, user_id: str) -> tuple[float, float]:
    """Two independent numbers in [0, 1) from BLAKE2b keyed with the salt (RFC 7693)."""
    text = user_id.encode("utf-8", "surrogatepass")  # JSON can carry half a surrogate pair
    digest = blake2b(text, digest_size=16, key=salt.encode()).digest()
    # A float holds 53 bits: with all 64 the largest numbers would round up to 1.
    first, second = (int.from_bytes(digest[n : n + 8]) >> 11 for n in (0, 8))
    return first * 2.0**-53, second * 2.0**-53
