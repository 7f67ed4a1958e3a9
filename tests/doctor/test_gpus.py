"""What is said of GPUs that are there, missing, or hidden from torch."""

from __future__ import annotations

import pytest
import torch

from recsys.doctor.gpus import Gpus, check_gpus, check_nccl, find_gpus

NONE = Gpus([], None, driver=False)
HIDDEN = Gpus([], None, driver=True)
TWO = Gpus(["H100", "H100"], "13.0", driver=True)


@pytest.mark.parametrize(
    ("gpus", "needed", "verdict"),
    [
        (NONE, False, "ok"),
        (NONE, True, "fault"),
        (HIDDEN, False, "warning"),
        (HIDDEN, True, "fault"),
        (TWO, True, "ok"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_a_fault_where_one_is_needed(
    gpus: Gpus, needed: bool, verdict: str
):
    assert check_gpus(gpus, needed).verdict == verdict


def test_a_cpu_build_beside_a_driver_is_named():
    assert "the CPU build" in check_gpus(HIDDEN, needed=True).found


def test_gpus_that_cannot_sum_a_number_are_a_fault(monkeypatch: pytest.MonkeyPatch):
    def fail(_: object) -> None:
        raise RuntimeError("NCCL error: unhandled system error")

    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    monkeypatch.setattr(torch.cuda.nccl, "all_reduce", fail)
    assert "unhandled system error" in check_nccl(TWO).found
    monkeypatch.setattr(torch.cuda.nccl, "all_reduce", lambda _: None)
    assert check_nccl(TWO).verdict == "fault"


def test_what_is_found_fits_what_torch_says():
    assert len(find_gpus().names) == torch.cuda.device_count()
