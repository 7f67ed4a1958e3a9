"""Where trainings are broken, what an unbroken one comes to, and how a broken one is judged."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load

from benchmarks.chaos.report import Outcome
from benchmarks.chaos.trained import Training, log_of
from recsys.artifact import open_artifact
from recsys.models.build import WEIGHTS

STEPS_AN_EPOCH, EPOCHS, EVERY = 40, 8, 20
"""About; a checkpoint comes at each epoch's end and every 20 steps."""
MOST_LOST = 2 * EVERY
"""Steps that a fault may cost: those since the last save, and since the one before it where the
last is still being uploaded. A save waits for the upload of the one before."""
BREAK_AT = 110
"""Two epochs are over then, so that there are checkpoints of both kinds to go back to."""
SAME, SAME_SHARDED_ANEW = 1e-6, 1e-5
"""Furthest that a loss in fp32 may be from the unbroken run's: with as many workers, with fewer."""


@dataclass(frozen=True)
class Injected:
    """When a fault was injected and noticed (Unix seconds), and the last step before."""

    at: float
    detected: float | None
    before: int


@dataclass(frozen=True)
class Truth:
    """The losses of a run, in the order of its log, and the weights that it published."""

    losses: list[tuple[float, float]]
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, output: Path) -> Truth:
        """Of a run that has ended: (step, loss) of training and (step, valid_loss)."""
        path = log_of(output)
        assert path is not None, output
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        losses = [(row["step"], row.get("loss", row.get("valid_loss", 0.0))) for row in rows]
        checkpoint = open_artifact(str(output / "checkpoint"), "checkpoint")
        return cls(losses, load(checkpoint.read_bytes(WEIGHTS)))

    def distance(self, other: Truth) -> float:
        """Largest difference of any loss or weight; infinite where another step was made, or one
        twice."""
        if [step for step, _ in self.losses] != [step for step, _ in other.losses]:
            return math.inf
        apart = [abs(a - b) for (_, a), (_, b) in zip(self.losses, other.losses, strict=True)]
        apart += [float((self.weights[n] - w).abs().max()) for n, w in other.weights.items()]
        return max(apart)

    @property
    def finite(self) -> bool:
        """Whether no loss and no weight is NaN or infinite."""
        losses = all(math.isfinite(loss) for _, loss in self.losses)
        return losses and all(bool(torch.isfinite(w).all()) for w in self.weights.values())


@dataclass
class Scene:
    """A dataset to train on, a folder for outputs, and the cluster that runs now."""

    dataset: Path
    folder: Path
    kills: int
    address: str = ""
    flags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = open_artifact(str(self.dataset), "dataset", check=False).manifest.facts["rows"]
        batch = 2 * max(1, round(rows["train"] / STEPS_AN_EPOCH / 2))
        training = {
            "precision": "fp32",
            "global-batch-size": batch,
            "epochs": EPOCHS,
            "checkpoint-every": EVERY,
            "log-every": 1,
        }
        self.flags = ["--config", "ray_jobs/configs/toy.toml", "--model.item-features", "id"]
        self.flags += ["--model.dropout", "0"]
        for name, value in training.items():
            self.flags += [f"--training.{name}", str(value)]

    def output(self, name: str) -> Path:
        """A folder with the dataset in it, made anew by the first who asks."""
        place = self.folder / name
        if not place.exists():
            place.mkdir()
            (place / "dataset").symlink_to(self.dataset.absolute())
        return place

    def training(self, name: str, *flags: str, sick: tuple[str, ...] = ()) -> Training:
        """The command on this scene's cluster; the same name goes on with the same run."""
        return Training(self.address, self.output(name), [*self.flags, *flags], sick)

    @cached_property
    def truth(self) -> Truth:
        """What a run comes to that nobody breaks."""
        with self.training("unbroken") as run:
            if run.until_end() != 0:
                raise RuntimeError(f"the unbroken run failed:\n{run.tail()}")
        return Truth.of(run.output)

    @cached_property
    def _interrupted(self) -> tuple[Path, int]:
        with self.training("interrupted") as run:
            run.until_step(BREAK_AT)
            run.stop()
            return run.output, run.step

    def interrupted(self, name: str) -> int:
        """Make `name` a copy of a run that was interrupted; returns its last step."""
        place, step = self._interrupted
        shutil.copytree(place, self.folder / name, symlinks=True)
        return step

    def outcome(
        self,
        run: Training,
        fault: Injected,
        checked: str,
        fits: bool = True,
        same: float = SAME,
        most_lost: int = MOST_LOST,
        lost: int | None = None,
    ) -> Outcome:
        """Passed where `run`, which went on after the fault, ended as the unbroken one did.

        `lost` steps were made again; where it is not told, it follows from where the run went on.
        """
        truth = self.truth
        whole = run.process.returncode == 0
        distance = truth.distance(Truth.of(run.output)) if whole else math.inf
        resumed = [step for _, step in run.resumed()]
        if lost is None:
            lost = fault.before - (resumed[0] if resumed else 0)
        back = [when for when, step in run.steps if when > fault.at and step > fault.before]
        passed = fits and distance <= same and lost <= most_lost
        said = f"losses and weights within {distance:.1g} of the unbroken run's; {checked}"
        detected = None if fault.detected is None else fault.detected - fault.at
        recovered = back[0] - fault.at if back else None
        detail = {"distance": distance, "resumed_at": resumed, "tail": "" if passed else run.tail()}
        return Outcome(detected, recovered, lost, passed, said, detail)
