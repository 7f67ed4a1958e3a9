"""Whether DeepSpeed's parts in C++ can be built, and whether a build that died is in the way."""

from __future__ import annotations

import shutil
from pathlib import Path

from recsys.doctor.finding import Finding

MAX_BUILD_S = 1_800
"""The longest part takes two minutes on a free core; a lock of half an hour is nobody's."""


def check_compiler(path: str) -> Finding:
    """Whether a C++ compiler is on `path`, a PATH; on a GPU DeepSpeed builds with it."""
    check = "C++ compiler"
    if found := shutil.which("c++", path=path) or shutil.which("g++", path=path):
        return Finding(check, "ok", found)
    return Finding(check, "fault", "none", "install g++, such as apt-get install g++")


def check_build_locks(folder: Path, now: float) -> Finding:
    """Whether locks are left below torch's folder of builds; `now` is Unix seconds.

    torch waits for a lock without end, so a build that was killed stops every training after it.
    """
    check = "builds"
    old = [lock for lock in sorted(folder.rglob("lock")) if _age(lock, now) > MAX_BUILD_S]
    if not old:
        return Finding(check, "ok", f"no old lock in {folder}")
    told = ", ".join(str(lock) for lock in old)
    advice = "a build was killed and training would wait for it: delete the lock"
    return Finding(check, "fault", f"{told}: {_age(old[0], now) / 60:.0f} min old", advice)


def _age(lock: Path, now: float) -> float:
    return now - lock.stat().st_mtime
