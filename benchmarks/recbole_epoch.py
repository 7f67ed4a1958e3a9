"""An epoch of SASRec's size against RecBole's SASRec, on the same interactions.

Width 64, two layers of two heads, histories of at most 50, full softmax, about as many targets a
step, one thread each. RecBole makes a sample of each target with the history before it; the trainer
learns all targets of a history in one pass. RecBole runs in its own environment, which the first
run makes in `--peer-env`. Epochs in turns, in CPU seconds, so that other work on the machine counts
little. Ratio: targets a second, over those of RecBole.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from recsys.config import ModelConfig
from recsys.data.collate import collate_windows
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import softmax_loss
from recsys.schema import History

PACKAGES = ("recbole==1.2.1", "numpy<2", "pandas<3", "torch==2.5.1")
USERS, ITEMS, MAX_HISTORY, SIZE, BATCH, ROUNDS = 600, 1_500, 50, 64, 256, 3
"""`BATCH` is targets a step."""
DROPOUT, RATE = 0.2, 1e-3
TARGET = 2.0


def main(peer_env: Path) -> None:
    """Run both and print the result as one JSON object."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    python = _peer_python(peer_env)
    histories = _histories(np.random.default_rng(0))
    learner = Learner(histories)
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        _write(histories, Path(folder) / "shop")
        with _start_peer(python, folder) as peer:
            assert peer.stdin is not None
            assert peer.stdout is not None
            num_samples = int(peer.stdout.readline())
            for _ in range(ROUNDS + 1):
                ours.append(learner.epoch())
                peer.stdin.write("epoch\n")
                peer.stdin.flush()
                theirs.append(float(peer.stdout.readline()))
            peer.stdin.close()
    assert num_samples == learner.num_targets, (num_samples, learner.num_targets)
    _report(ours[1:], theirs[1:], num_samples)  # the first of each warms up


def _peer_python(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def _start_peer(python: Path, folder: str) -> subprocess.Popen[str]:
    settings = {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": MAX_HISTORY,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_size": SIZE,
        "inner_size": 4 * SIZE,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "learning_rate": RATE,
        "train_batch_size": BATCH,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    script = Path(__file__).with_name("recbole_peer.py").resolve()
    return subprocess.Popen(
        [python, script, folder, json.dumps(settings)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _histories(random: np.random.Generator) -> list[np.ndarray]:
    """Of 5 to 52 events, 15 on average; items by Zipf's law."""
    shares = 1 / np.arange(1, ITEMS + 1)
    lengths = 5 + random.geometric(0.1, USERS).clip(max=MAX_HISTORY + 2 - 5)
    return [random.choice(ITEMS, length, p=shares / shares.sum()) for length in lengths]


def _write(histories: list[np.ndarray], folder: Path) -> None:
    folder.mkdir()
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    rows += [
        f"{user}\t{item}\t{place}"
        for user, items in enumerate(histories)
        for place, item in enumerate(items)
    ]
    (folder / "shop.inter").write_text("\n".join(rows) + "\n")


class Learner:
    """The trainer's model, batches and loss; the last two events of a user are held out."""

    def __init__(self, histories: list[np.ndarray]) -> None:
        config = ModelConfig(item_features="id", embedding_size=SIZE, dropout=DROPOUT)
        shape = ModelShape(num_items=ITEMS, max_history=MAX_HISTORY, num_events=1, text_size=0)
        self._model = build_model(config, shape).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=RATE)
        self._windows = [History.of_items(items[:-2]) for items in histories]
        self.num_targets = sum(len(window) - 1 for window in self._windows)
        self._random = np.random.default_rng(0)

    def epoch(self) -> float:
        """Learn all targets once; returns the CPU seconds."""
        started = time.process_time()
        order = self._random.permutation(len(self._windows))
        for rows in np.array_split(order, -(-self.num_targets // BATCH)):
            batch = collate_windows([self._windows[row] for row in rows])
            users_PD, items_CD, targets_P = self._model(batch, ItemInputs(torch.arange(ITEMS)))
            loss = softmax_loss(users_PD, items_CD, targets_P, temperature=0.07)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return time.process_time() - started


def _report(ours: list[float], theirs: list[float], num_targets: int) -> None:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    result = {
        "benchmark": "recbole_epoch",
        "peer": "RecBole 1.2.1, SASRec",
        "ratio": round(statistics.median(ratios), 2),
        "target": TARGET,
        "higher_is_better": True,
        "detail": {
            "ratios": [round(ratio, 2) for ratio in ratios],
            "epoch_cpu_seconds": {
                "ours": round(statistics.median(ours), 2),
                "recbole": round(statistics.median(theirs), 2),
            },
            "targets_per_second": {
                "ours": round(num_targets / statistics.median(ours)),
                "recbole": round(num_targets / statistics.median(theirs)),
            },
            "targets": num_targets,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-env", type=Path, required=True, help="folder of RecBole's own venv")
    main(parser.parse_args().peer_env)
