"""`import_path: recsys.serving.app:build_app` of every serve config.

Ray turns a config's `args` into `ServeArgs` by the annotation itself, so annotations here are no
strings (no `from __future__ import annotations`).
"""

from ray.serve import Application

from recsys.config import ServeArgs
from recsys.serving.deployments import RecommenderDeployment


def build_app(args: ServeArgs) -> Application:
    """The Serve application; Ray checks `args` against `ServeArgs`, unknown keys refused."""
    return RecommenderDeployment.bind(args)
