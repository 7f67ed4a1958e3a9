"""Serve a checkpoint, its index and perhaps a final ranker over HTTP until stopped."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
import yaml

from recsys.artifact import open_artifact
from recsys.config import StorageConfig
from recsys.storage import configure_storage


@dataclass(frozen=True)
class Arguments:
    """What is served, and where."""

    checkpoint: str
    """Directory or URI of a checkpoint artifact."""
    index: str
    """Directory or URI of an index artifact."""
    ranker: str = ""
    """Directory or URI of a final ranker of search fitted to that index."""
    port: int = 8000
    """HTTP port."""
    serve_config: Path = Path("serve_configs/toy.yaml")
    """Replicas, batching and limits; its checkpoint, index, ranker and port are replaced."""


def write_config(arguments: Arguments) -> str:
    """A copy of the serve config with these arguments, absolute paths in place of relative ones."""
    config = yaml.safe_load(arguments.serve_config.read_text())
    config["http_options"]["port"] = arguments.port
    args = config["applications"][0]["args"]
    configure_storage(StorageConfig.model_validate(args.get("storage", {})))
    for name in ("checkpoint", "index", "ranker"):
        if place := getattr(arguments, name):
            open_artifact(place, name)
        args[name] = str(Path(place).absolute()) if place and "://" not in place else place
    path = Path(tempfile.mkdtemp(prefix="recsys-serve-")) / "serve.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


if __name__ == "__main__":
    try:
        path = write_config(tyro.cli(Arguments, description=__doc__))
    except ValueError as error:
        sys.exit(f"error: {error}")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    serve = str(Path(sys.executable).parent / "serve")
    os.execv(serve, [serve, "run", path])
