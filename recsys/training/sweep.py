"""Settings chosen on validation rows: many short trainings with Ray Tune, of which the best go on.

Trials that come equally far are compared by validation NDCG@10 at an epoch's end, and all but the
best stop there: asynchronous successive halving (ASHA, Li et al. 2020, arXiv 1810.05934). Test rows
are not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import ModelConfig, SweepConfig, TrainingConfig
from recsys.config.sweep import Range, Value
from recsys.models.build import SCORE
from recsys.storage import steady_filesystem
from recsys.training.lease import hold
from recsys.training.sweep_page import sweep_page
from recsys.training.trainer import cache_text, fit, make_job

log = logging.getLogger(__name__)

SECTIONS = {"model": ModelConfig, "training": TrainingConfig}
NOT_SWEPT = {"training.epochs", "training.num_workers", "training.use_gpu", "model.backbone"}
"""What trials must have alike: the scale they are compared on, the machine, and the dataset's
tokens."""
DRAWS = {
    (False, False): tune.uniform,
    (True, False): tune.loguniform,
    (False, True): tune.randint,
    (True, True): tune.lograndint,
}
"""How a range is drawn from, by `log` and `whole`."""


@dataclass(frozen=True)
class Trial:
    """One try: its values by full key, its score after each epoch, and why it ended early."""

    values: dict[str, Value]
    scores: list[float]
    error: str = ""

    @property
    def best(self) -> float:
        """Its best epoch, which is what a training keeps; minus infinity where there is none."""
        return max(self.scores, default=-math.inf)


def sweep(
    config: SweepConfig,
    model: ModelConfig,
    training: TrainingConfig,
    dataset: Artifact,
    output: str,
) -> Artifact:
    """Try settings and write a `sweep` artifact: all trials, a page, and the best as TOML.

    An interrupted sweep of the same place, space, settings and dataset is gone on with.

    Raises:
        ValueError: a key of the space is no setting that can be swept, or a value is not allowed.
        RuntimeError: no trial came to the end of an epoch.
    """
    check_space(config, model, training)
    cache_text(model, training, dataset, f"{output}-run")
    found = _tuner(config, model, training, dataset, output).fit()
    trials = sorted((_trial(result) for result in found), key=lambda t: t.best, reverse=True)
    if not trials or not trials[0].scores:
        raise RuntimeError(f"no trial came to an epoch's end; the first: {trials[:1]}")
    return _publish(config, model, training, dataset, trials, output)


def check_space(config: SweepConfig, model: ModelConfig, training: TrainingConfig) -> None:
    """Try the ends of each range and each value of a list, alone.

    Raises:
        ValueError: a key or a value does not fit; the message names it. Or training is private.
    """
    if training.privacy.is_on:
        raise ValueError(
            "a sweep chooses by validation users, and each trial adds to epsilon: "
            "set training.privacy.noise_multiplier to 0"
        )
    for key, values in config.space.items():
        section, _, name = key.partition(".")
        known = SECTIONS.get(section)
        if known is None or name not in known.model_fields or key in NOT_SWEPT:
            raise ValueError(
                f"sweep.space: {key!r} cannot be swept; allowed are settings of {list(SECTIONS)} "
                f"by their full key, such as 'training.learning_rate', but {sorted(NOT_SWEPT)}"
            )
        for value in _ends(values):
            try:
                settings_with({key: value}, model, training)
            except ValueError as error:
                raise ValueError(f"sweep.space: {key} = {value!r}: {error}") from error


def settings_with(
    values: dict[str, Value], model: ModelConfig, training: TrainingConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """Both sections with `values` by full key in place of their own.

    Raises:
        ValueError: a value is not allowed, or does not fit the others.
    """
    told = {"model": model.model_dump(), "training": training.model_dump()}
    for key, value in values.items():
        section, _, name = key.partition(".")
        told[section][name] = value
    return ModelConfig.model_validate(told["model"]), TrainingConfig.model_validate(
        told["training"]
    )


def trials_name(
    config: SweepConfig, model: ModelConfig, training: TrainingConfig, dataset: Artifact
) -> str:
    """Folder of the trials. Another space, setting or dataset has another: trials of one are not
    taken for those of the other."""
    told = [config.model_dump_json(), model.model_dump_json(), training.model_dump_json()]
    digest = hashlib.sha256("\n".join([*told, dataset.digest]).encode()).hexdigest()
    return f"trials_{digest[:16]}"


def as_toml(values: dict[str, Value]) -> str:
    """Values by full key as the lines of a config file."""
    lines = []
    for section in sorted({key.partition(".")[0] for key in values}):
        lines.append(f"[{section}]")
        # A JSON scalar is a TOML one.
        lines += [
            f"{key.partition('.')[2]} = {json.dumps(value)}"
            for key, value in values.items()
            if key.startswith(f"{section}.")
        ]
    return "\n".join(lines) + "\n"


def _ends(values: Range | tuple[Value, ...]) -> tuple[Value, ...]:
    if not isinstance(values, Range):
        return values
    ends = (values.low, values.high)
    return tuple(int(end) for end in ends) if values.whole else ends


def _domain(values: Range | tuple[Value, ...]) -> Any:
    if not isinstance(values, Range):
        return tune.choice(list(values))
    low, high = _ends(values)
    # Tune leaves out the upper end of whole numbers.
    return DRAWS[values.log, values.whole](low, high + 1 if values.whole else high)  # pyright: ignore


def _tuner(
    config: SweepConfig,
    model: ModelConfig,
    training: TrainingConfig,
    dataset: Artifact,
    output: str,
) -> tune.Tuner:
    run, name = f"{output}-run", trials_name(config, model, training, dataset)
    trial = partial(_run_trial, model=model, training=training, dataset=dataset.uri, run=run)
    fs, path = steady_filesystem(run)
    place = f"{path}/{name}"
    if tune.Tuner.can_restore(place, storage_filesystem=fs):
        log.info("%s: going on with an interrupted sweep", place)
        return tune.Tuner.restore(place, trial, storage_filesystem=fs, restart_errored=True)
    return tune.Tuner(
        trial,
        param_space={key: _domain(values) for key, values in config.space.items()},
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            scheduler=_halving(config, training),
            search_alg=BasicVariantGenerator(
                random_state=config.seed, max_concurrent=config.at_once
            ),
            num_samples=config.trials,
            time_budget_s=config.minutes * 60 or None,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=fs,
            verbose=0,
            callbacks=[Teller()],
        ),
    )


def _halving(config: SweepConfig, training: TrainingConfig) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="epoch",
        max_t=training.epochs,
        grace_period=min(config.min_epochs, training.epochs),
        reduction_factor=config.keep_one_of,
        stop_last_trials=False,  # they end by themselves, and leave nothing behind
    )


def _run_trial(
    values: dict[str, Value], model: ModelConfig, training: TrainingConfig, dataset: str, run: str
) -> None:
    """What Ray Tune runs: a training that tells each epoch's score."""
    settings = settings_with(values, model, training)
    job, place = make_job(*settings, open_artifact(dataset, "dataset", check=False), run)
    with hold(place) as lease:
        fit(job, place, lease, (TuneReportCallback(),))


class Teller(tune.Callback):
    """Says in the log how each trial is doing."""

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any):
        """Called by Ray Tune after each report of a trial."""
        if SCORE in result:
            told = ", ".join(f"{key} {value}" for key, value in trial.config.items())
            log.info("epoch %d  %s %.4f  %s", result["epoch"], SCORE, result[SCORE], told)


def _trial(result: Any) -> Trial:
    """What is kept of a result of Ray Tune."""
    rows = result.metrics_dataframe
    scores = [] if rows is None or SCORE not in rows else rows[SCORE].dropna().tolist()
    return Trial(result.config, scores, str(result.error or "").strip().rpartition("\n")[2])


def _publish(
    config: SweepConfig,
    model: ModelConfig,
    training: TrainingConfig,
    dataset: Artifact,
    trials: list[Trial],
    output: str,
) -> Artifact:
    best = as_toml(trials[0].values)
    writer = ArtifactWriter(output, "sweep")
    writer.add_json("trials.json", [asdict(trial) for trial in trials])
    writer.add_bytes("best.toml", best.encode())
    rows = [(trial.values, trial.scores, trial.error) for trial in trials]
    writer.add_bytes("sweep.html", sweep_page(SCORE, rows, best, training.epochs).encode())
    told = {"sweep": config, "model": model, "training": training}
    return writer.publish(
        {name: section.model_dump(mode="json") for name, section in told.items()},
        {"dataset": dataset.digest},
        {"best": trials[0].best, "trials": len(trials)},
    )
