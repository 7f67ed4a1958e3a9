"""Two ranks of a process group on CPU, one thread each, started without Ray."""

from __future__ import annotations

import datetime
import os
import pickle
import socket
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.multiprocessing.spawn import spawn

WORLD_SIZE = 2
TIMEOUT = datetime.timedelta(minutes=2)
"""A rank waits so long for the other."""


def run_ranks(work: Callable[..., Any], *told: object) -> Any:
    """Run `work(rank, *told)` in each rank; returns what rank 0 returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        spawn(_rank, (work, told, port, answer), nprocs=WORLD_SIZE)
        return pickle.loads(answer.read_bytes())


def _rank(
    rank: int, work: Callable[..., Any], told: tuple[object, ...], port: int, answer: Path
) -> None:
    # DeepSpeed and torch read where they are from these.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD_SIZE),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    # DeepSpeed calls torch by names that are about to go, and torch says so at each call.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    found = work(rank, *told)
    if rank == 0:
        answer.write_bytes(pickle.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
