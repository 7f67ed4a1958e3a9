"""What the doctor looks at, in which order; the checks themselves read no environment."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ray_jobs.ray_answers import check_ray
from recsys.config import StorageConfig
from recsys.doctor import builds, gpus, machine, packages, remote, tokens
from recsys.doctor.finding import Finding
from recsys.storage import configure_storage

PORTS = {8000: "the service", 8265: "Ray's dashboard", 6379: "Ray's head"}


@dataclass(frozen=True)
class Arguments:
    """What to look at."""

    uri: str | None = None
    """Directory or URI that artifacts are to be written to, such as s3://bucket/run; a probe is
    written there, read and deleted."""
    clock_url: str | None = None
    """Whose clock counts; else that of the store of `uri`."""
    folder: Path = Path("outputs")
    """Work folder of jobs on this machine."""
    min_free_gib: float = 20.0
    """Least room on its disk, and on that of /tmp, where Ray's objects go that memory lacks."""
    extras: tuple[str, ...] = ("s3", "train", "serve", "eval")
    """Extras whose packages are to be there."""
    needs_gpu: bool = False
    """Whether a machine without a usable GPU is a fault."""
    start_ray: bool = True
    """Start a Ray, or ask the one of RAY_ADDRESS, and run a task there."""
    storage: StorageConfig = field(default_factory=lambda: StorageConfig(max_attempts=5))
    """How the object store is reached."""


def examine(arguments: Arguments) -> list[Finding]:
    """All checks, in the order in which one mends them."""
    configure_storage(arguments.storage)
    needed, required = packages.declared_requirements()
    found = [packages.check_python(platform.python_version(), needed)]
    found += [packages.check_packages(required, extra) for extra in ("", *arguments.extras)]
    found.append(builds.check_compiler(os.environ.get("PATH", os.defpath)))
    found.append(builds.check_build_locks(_builds_folder(), time.time()))
    found += [
        machine.check_disk(f"disk of {name}", folder, arguments.min_free_gib)
        for name, folder in {"the work folder": arguments.folder, "Ray": Path("/tmp")}.items()
    ]
    found.append(machine.check_shared_memory(machine.memory_limit()))
    found += [machine.check_port(port, purpose) for port, purpose in PORTS.items()]
    found.append(tokens.check_token(os.environ, Path.home()))
    gpu = gpus.find_gpus()
    found += [gpus.check_gpus(gpu, arguments.needs_gpu), gpus.check_nccl(gpu)]
    if arguments.uri:
        found.append(remote.check_object_store(arguments.uri))
    if url := _clock_url(arguments):
        found.append(remote.check_clock(url, time.time()))
    if arguments.start_ray:
        found.append(check_ray(os.environ))
    return found


def _builds_folder() -> Path:
    """Where torch keeps what it builds."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"


def _clock_url(arguments: Arguments) -> str | None:
    """Whose clock is asked: that of the object store which the signatures are for."""
    if arguments.clock_url:
        return arguments.clock_url
    scheme = urlsplit(arguments.uri or "").scheme
    if scheme == "s3":
        named = arguments.storage.endpoint or os.environ.get("AWS_ENDPOINT_URL")
        return named or "https://s3.amazonaws.com"
    return "https://storage.googleapis.com" if scheme == "gs" else None
