"""Whether Ray's ports ask for a token, and whether the token is a secret."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from recsys.doctor.finding import Finding

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
CHECK = "token"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_token(environ: Mapping[str, str], home: Path) -> Finding:
    """Look where Ray looks for its token: the environment, a file that it names, `~/.ray`."""
    mode = environ.get(MODE)
    if mode is None and "RAY_ADDRESS" not in environ:
        return Finding(CHECK, "ok", "each job starts a Ray of its own, with a token of its own")
    if mode is None or mode == "disabled":
        advice = f"set {MODE}=token everywhere: who reaches Ray's ports can run any program"
        return Finding(CHECK, "warning", f"{MODE} is {mode or 'not set'}", advice)
    if mode != "token":
        return Finding(CHECK, "ok", f"{MODE} is {mode}; its token is not looked at")
    if environ.get(TOKEN):
        return Finding(CHECK, "ok", f"{MODE} is token, {TOKEN} is set")
    return _check_file(_token_file(environ, home))


def token_in(environ: Mapping[str, str], home: Path) -> str | None:
    """The token that Ray would send; None where there is none."""
    file = _token_file(environ, home)
    return environ.get(TOKEN) or (file.read_text().strip() if file.is_file() else None)


def _token_file(environ: Mapping[str, str], home: Path) -> Path:
    named = environ.get(TOKEN_PATH)
    return Path(named) if named else home / ".ray" / "auth_token"


def _check_file(path: Path) -> Finding:
    if not path.is_file() or not path.read_text().strip():
        told = "is empty" if path.is_file() else "is not there"
        advice = f"set {TOKEN}, or put the cluster's token into that file"
        return Finding(CHECK, "fault", f"{MODE} is token and {path} {told}", advice)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS:
        advice = f"chmod 600 {path}, and make a new token if others use this machine"
        return Finding(CHECK, "fault", f"{path} has mode {mode:04o}: others can use it", advice)
    return Finding(CHECK, "ok", f"{path} has mode {mode:04o}")
