"""RecBole's SASRec, for `benchmarks.recbole_epoch`; runs in an environment of its own.

Arguments are the folder of the interactions and RecBole's own settings as JSON. It prints the
number of samples of an epoch, and then, for each line that it reads, the CPU seconds of one more.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from recbole.config import Config  # pyright: ignore[reportMissingImports]
from recbole.data import create_dataset, data_preparation  # pyright: ignore[reportMissingImports]
from recbole.model.sequential_recommender import SASRec  # pyright: ignore[reportMissingImports]
from recbole.trainer import Trainer  # pyright: ignore[reportMissingImports]


def main(folder: str, settings: str) -> None:
    """Train an epoch for each line of standard input."""
    torch.set_num_threads(1)
    told = {"data_path": folder, "checkpoint_dir": folder, **json.loads(settings)}
    config = Config(model="SASRec", dataset="shop", config_dict=told)
    data, _, _ = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, SASRec(config, data.dataset))
    print(len(data.dataset), flush=True)
    for epoch, _ in enumerate(sys.stdin):
        started = time.process_time()
        trainer._train_epoch(data, epoch)
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    sys.argv, arguments = sys.argv[:1], sys.argv[1:]  # RecBole reads them too
    main(*arguments)
