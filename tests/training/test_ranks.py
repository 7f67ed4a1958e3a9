"""Real processes that gather columns of different lengths."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing

from recsys.training.ranks import gather

COLUMNS = ([1, 2, 3], [7])


def rank(number: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=len(COLUMNS)
    )
    cpu = torch.device("cpu")
    found = {
        "items": gather(torch.tensor(COLUMNS[number], dtype=torch.int64), cpu),
        "numbers": gather(torch.tensor(COLUMNS[number]) / 2, cpu),
        "none": gather(torch.zeros(0, dtype=torch.int64), cpu),
    }
    torch.save(found, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def test_all_ranks_get_all_columns_one_after_the_other(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(rank, (str(tmp_path),), nprocs=len(COLUMNS))
    for number in range(len(COLUMNS)):
        found = torch.load(tmp_path / f"{number}.pt")
        assert found["items"].tolist() == [1, 2, 3, 7]
        assert found["items"].dtype == torch.int64
        assert found["numbers"].tolist() == [0.5, 1.0, 1.5, 3.5]
        assert found["none"].shape == (0,)


def test_a_process_alone_has_its_own_column() -> None:
    assert gather(torch.tensor([4, 2]), torch.device("cpu")).tolist() == [4, 2]
