"""Whether torch sees the GPUs, and whether they can talk to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.cuda import nccl

from recsys.doctor.finding import Finding

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpus:
    """What there is: names that torch gives, the CUDA torch was built for, whether a driver is."""

    names: list[str]
    cuda: str | None
    driver: bool


def find_gpus(driver: Path = NVIDIA_DRIVER) -> Gpus:
    """The GPUs of this machine as torch and the kernel see them."""
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return Gpus(names, torch.version.cuda, driver.is_file())


def check_gpus(gpus: Gpus, needed: bool) -> Finding:
    """Whether torch can use the GPUs that are there, or any where they are `needed`."""
    check = "GPUs"
    if gpus.names:
        return Finding(check, "ok", f"{len(gpus.names)}: {', '.join(sorted(set(gpus.names)))}")
    if gpus.driver:
        built = f"built for CUDA {gpus.cuda}" if gpus.cuda else "the CPU build"
        advice = "install torch's CUDA build, or a driver that fits it"
        found = f"there is an NVIDIA driver, and torch, {built}, sees no GPU"
        return Finding(check, "fault" if needed else "warning", found, advice)
    if needed:
        advice = "take a machine with GPUs, or set training.use_gpu = false"
        return Finding(check, "fault", "none", advice)
    return Finding(check, "ok", "none; all is done on CPU cores")


def check_nccl(gpus: Gpus) -> Finding:
    """Sum a number over all GPUs of this machine by NCCL."""
    check = "NCCL"
    if not gpus.names:
        return Finding(check, "ok", "not needed: workers on CPU cores talk by gloo")
    try:
        ones = [torch.ones(1, device=f"cuda:{n}") for n in range(len(gpus.names))]
        nccl.all_reduce(ones)
        sums = [each.item() for each in ones]
    except (RuntimeError, AttributeError) as error:
        advice = "run with NCCL_DEBUG=INFO; in a container give it shared memory and all GPUs"
        return Finding(check, "fault", f"a sum over the GPUs failed: {error}", advice)
    if sums != [len(gpus.names)] * len(gpus.names):
        return Finding(check, "fault", f"a sum over the GPUs is {sums}", "mistrust this machine")
    told = ".".join(map(str, nccl.version()))
    return Finding(check, "ok", f"{told}: a sum over {len(gpus.names)} GPUs is right")
