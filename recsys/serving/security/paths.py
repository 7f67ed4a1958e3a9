"""Which paths are public and which scope the others need.

Paths are compared letter by letter with the string the router will match: percent signs are decoded
by then, and nothing after it removes dots, doubles or cases. So there is no second reading of a
path by which it could be public here and another route there.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Scope

from recsys.config import SecurityConfig
from recsys.config.security import ScopeRule

ADMIN = "admin"


def route_path(scope: Scope) -> str:
    """The path below the place the application is mounted at, as Starlette's router sees it."""
    path, root = scope["path"], scope.get("root_path", "")
    below = path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/")
    return path[len(root) :] if root and below else path


def is_public(scope: Scope, config: SecurityConfig) -> bool:
    """Whether everybody may ask this; only to read."""
    return scope["method"] in ("GET", "HEAD") and route_path(scope) in config.public_paths


def needed_scope(scope: Scope, rules: Iterable[ScopeRule]) -> str:
    """The scope of the first rule that fits; `admin` where none does."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    path = route_path(scope)
    fitting = (r for r in rules if method in r.methods and any(_fits(path, p) for p in r.paths))
    return next((rule.scope for rule in fitting), ADMIN)


def _fits(path: str, pattern: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern
