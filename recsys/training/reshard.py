"""A checkpoint of one number of ranks loaded by another: DeepSpeed's universal checkpoint, mended.

DeepSpeed 0.19.8 refuses ZeRO shards of another world size, except in its universal form, which its
loader restores in part. Under ZeRO-3 it gives every parameter group the first one's settings, so
that weight decay reaches what has none, and lets all groups count steps in one shared tensor, so
that Adam counts each step once a group. It never restores a module's buffers. `load_resharded` does
what it leaves out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recsys.training.zero import TAG, convert_to_universal

UNIVERSAL = f"{TAG}-universal"
"""The folder beside `TAG` with the universal form."""


def reshard(directory: Path) -> None:
    """Make the universal form of a whole checkpoint's shards, in the same directory.

    Takes the disk space of the shards once more. ZeRO stage 0 has no shards and needs no other
    form.
    """
    if list((directory / TAG).glob("*_optim_states.pt")):
        convert_to_universal(directory / TAG, directory / UNIVERSAL)


def load_resharded(engine: Any, directory: Path) -> dict[str, Any]:
    """Load what `reshard` made into an engine of any number of ranks; returns the client state."""
    folder = directory / UNIVERSAL
    if not folder.is_dir():
        return engine.load_checkpoint(str(directory), tag=TAG)[1]
    engine._config.load_universal_checkpoint = True  # no method sets it after the start
    try:
        _, client = engine.load_checkpoint(str(directory), tag=UNIVERSAL)
    finally:
        engine._config.load_universal_checkpoint = False
    _mend_optimizer(engine.optimizer.optimizer, folder)
    _mend_buffers(engine.module, folder)
    return client


def _mend_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    saved = torch.load(folder / "zero" / "optimizer_state.pt", "cpu", weights_only=False)
    for group, told in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        group.update({name: value for name, value in told.items() if name != "params"})
    for state in optimizer.state.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()


@torch.no_grad()
def _mend_buffers(module: torch.nn.Module, folder: Path) -> None:
    first = sorted(folder.glob("*_model_states.pt"))[0]
    saved = torch.load(first, "cpu", weights_only=False)["module"]
    for name, buffer in module.named_buffers():
        if name in saved:
            buffer.copy_(saved[name])
