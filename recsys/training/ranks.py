"""What the ranks of a run tell one another."""

from __future__ import annotations

import torch
import torch.distributed


def gather(values_X: torch.Tensor, device: torch.device) -> torch.Tensor:
    """This column of every rank, one rank's after the other's; ranks may have different lengths.

    Every rank must call it, and all get the same, on the CPU. `device` is where the process group
    sends from. Without a process group it is this rank's column alone.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return values_X.cpu()
    mine_X = values_X.to(device)
    sizes = _gather_equal(torch.tensor([len(mine_X)], device=device))
    lengths = torch.cat(sizes).tolist()
    padded = mine_X.new_zeros(max(1, *lengths))
    padded[: len(mine_X)] = mine_X
    parts = _gather_equal(padded)
    return torch.cat([p[:n] for p, n in zip(parts, lengths, strict=True)]).cpu()


def _gather_equal(tensor: torch.Tensor) -> list[torch.Tensor]:
    found = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, tensor)
    return found
