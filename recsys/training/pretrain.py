"""The pretrain stage: dataset -> `backbone` artifact, a language model that knows the shop.

Beside its log the artifact holds the folder `backbone/` in Hugging Face's own format, which
`model.backbone` may name. A run goes on from the last epoch that it finished.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig, PretrainingConfig, TrainingConfig
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import Tokens, pad_tokens
from recsys.models.build import BACKBONE, LOG
from recsys.pretrained import backbone_digest
from recsys.training.checkpoint import Log, restore, save
from recsys.training.cursor import Cursor
from recsys.training.examples import Examples, make_examples
from recsys.training.lease import hold
from recsys.training.objectives import make_objective, mask_tokens, next_tokens
from recsys.training.resume import NOT_IN_NAME, read_best
from recsys.training.workers import run_workers
from recsys.training.zero import start_engine

LOG_EVERY = 10
"""Steps between two rows of the log."""


class PretrainJob(BaseModel):
    """One run, as it travels from driver to workers; `examples` is the folder they are in."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: ModelConfig
    config: PretrainingConfig
    examples: str


def pretrain(
    model: ModelConfig, config: PretrainingConfig, dataset: Artifact, output: str
) -> Artifact:
    """Go on training `model.backbone` on a dataset's texts and write a `backbone` artifact.

    Examples and shards for resume stay in `<output>-run`, as those of `train` do.

    Raises:
        ValueError: the backbone does not fit the objective or the dataset, or the dataset has too
            few examples for one step.
    """
    _check_tokens(model, dataset)
    new_head = make_objective(model, config)[1]
    examples = make_examples(dataset, config)
    if len(examples.pairs) < config.global_batch_size:
        raise ValueError(
            f"{dataset.uri} gives {len(examples.pairs)} examples: "
            f"pretraining.global_batch_size {config.global_batch_size} must not be larger"
        )
    run = f"{str(output).rstrip('/')}-run/{_run_name(model, config, dataset)}"
    job = PretrainJob(model=model, config=config, examples=f"{run}-examples")
    facts = {
        "num_texts": len(examples.token_ids),
        "num_examples": len(examples.pairs),
        "new_head": new_head,
    }
    with hold(run) as lease:
        examples.write(job.examples)
        settings = job.model_dump(mode="json")
        run_workers(pretrain_loop, settings, engine_settings(config), run, lease)
        return _publish(job, dataset, run, output, facts)


def _check_tokens(model: ModelConfig, dataset: Artifact) -> None:
    made_for = dataset.manifest.config["backbone"]
    if load_tokenizer(made_for).get_vocab() != load_tokenizer(model.backbone).get_vocab():
        raise ValueError(
            f"{dataset.uri} holds tokens of '{made_for}', and model.backbone is "
            f"'{model.backbone}', which has others: make the dataset again"
        )


def _run_name(model: ModelConfig, config: PretrainingConfig, dataset: Artifact) -> str:
    told = [model.backbone, model.pooling, config.model_dump_json(exclude=NOT_IN_NAME)]
    told += pretrain_parents(model, dataset).values()
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _publish(
    job: PretrainJob,
    dataset: Artifact,
    run: str,
    output: str,
    facts: dict[str, Any],
) -> Artifact:
    state, log = read_best(run, None)
    objective, _ = make_objective(job.model, job.config)
    objective.load_state_dict(state)
    writer = ArtifactWriter(output, "backbone")
    with tempfile.TemporaryDirectory() as folder:
        objective.backbone.save_pretrained(folder)
        load_tokenizer(job.model.backbone).save_pretrained(folder)
        writer.add_directory(Path(folder), BACKBONE)
    writer.add_json(LOG, log)
    parameters = sum(p.numel() for p in objective.backbone.parameters())
    return writer.publish(
        pretrain_settings(job.model, job.config),
        pretrain_parents(job.model, dataset),
        {**facts, "parameters": parameters},
    )


def pretrain_settings(model: ModelConfig, config: PretrainingConfig) -> dict[str, Any]:
    """What the manifest of a `backbone` artifact says of the config."""
    return {
        "pretraining": config.model_dump(mode="json"),
        "backbone": model.backbone,
        "pooling": model.pooling,
    }


def pretrain_parents(model: ModelConfig, dataset: Artifact) -> dict[str, str]:
    """The digests of what a backbone is made from: the dataset, and a backbone before it."""
    digest = backbone_digest(model.backbone)
    return {"dataset": dataset.digest} | ({"backbone": digest} if digest else {})


def pretrain_loop(settings: dict[str, Any]) -> None:
    """What every Ray Train worker runs: from the last checkpoint on, one after every epoch."""
    job = PretrainJob.model_validate(settings)
    run = _start(job)
    cursor, log = restore(run.engine)
    while cursor.epoch < job.config.epochs:
        loss = _epoch(run, cursor, log)
        cursor = Cursor(cursor.epoch + 1, 0, cursor.step + run.steps)
        if run.rank == 0:
            print(f"epoch {cursor.epoch}/{job.config.epochs} done  loss {loss:.4f}", flush=True)
        save(run.engine, cursor, log, {"loss": loss})


@dataclass(frozen=True)
class _Run:
    """What one rank holds while it trains."""

    config: PretrainingConfig
    rank: int
    world_size: int
    engine: Any
    examples: Examples
    tokenizer: PreTrainedTokenizerBase
    steps: int


def _start(job: PretrainJob) -> _Run:
    context = ray.train.get_context()
    if ray.train.torch.get_device().type == "cpu":
        torch.set_num_threads(1)  # one worker a core; more threads would share it
    examples = Examples.read(job.examples)
    steps = len(examples.pairs) // job.config.global_batch_size
    torch.manual_seed(job.config.seed)  # of a head that has no trained weights
    objective, _ = make_objective(job.model, job.config)
    return _Run(
        config=job.config,
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        engine=start_engine(objective, engine_settings(job.config), job.config.epochs * steps),
        examples=examples,
        tokenizer=load_tokenizer(job.model.backbone),
        steps=steps,
    )


def engine_settings(config: PretrainingConfig) -> TrainingConfig:
    """The settings of the same names as `train` has them, for the engine that both share."""
    shared = set(TrainingConfig.model_fields) & set(PretrainingConfig.model_fields)
    return TrainingConfig.model_validate(config.model_dump(include=shared))


def _epoch(run: _Run, cursor: Cursor, log: Log) -> float:
    """All steps of an epoch; returns the ranks' mean loss. Examples left of a batch wait for the
    next epoch, whose order is another."""
    run.engine.train()
    order = np.random.default_rng([run.config.seed, cursor.epoch]).permutation(
        len(run.examples.pairs)
    )
    size, losses = run.config.global_batch_size, []
    for number in range(run.steps):
        rows = order[number * size : (number + 1) * size][run.rank :: run.world_size]
        losses.append(_step(run, rows, cursor.step + number))
        if (cursor.step + number + 1) % LOG_EVERY == 0:
            log.append(
                {
                    "step": cursor.step + number + 1,
                    "epoch": cursor.epoch,
                    "loss": _mean(run, losses[-LOG_EVERY:]),
                    "learning_rate": run.engine.get_lr()[0],
                }
            )
    return _mean(run, losses)


def _step(run: _Run, rows: np.ndarray, step: int) -> float:
    # Masks and dropout follow from the step alone, so that a resumed run repeats them.
    seed = run.config.seed * 1_000_003 + step * run.world_size + run.rank
    torch.manual_seed(seed)
    tokens, labels = make_batch(run.examples, run.config.objective, rows, run.tokenizer, seed)
    loss = run.engine(tokens.to(run.engine.device), labels.to(run.engine.device))
    run.engine.backward(loss)
    run.engine.step()
    value = loss.item()
    if not np.isfinite(value):
        raise FloatingPointError(
            f"loss is {value} at step {step}: lower pretraining.learning_rate, or use fp32"
        )
    return value


def make_batch(
    examples: Examples,
    objective: str,
    rows: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> tuple[Tokens, torch.Tensor]:
    """The tokens of these examples and their labels, as the objective takes them."""
    pairs = examples.pairs[rows]
    texts = pairs.T.flatten() if objective == "contrastive" else pairs[:, 0]
    tokens = pad_tokens(examples.token_ids.take(texts).to_pylist())
    if objective == "contrastive":
        return tokens, torch.from_numpy(examples.groups[texts])
    if objective == "masked":
        return mask_tokens(tokens, tokenizer, seed)
    return tokens, next_tokens(tokens)


def _mean(run: _Run, losses: list[float]) -> float:
    """Of this rank's losses the mean over all ranks."""
    mean = torch.tensor(float(np.mean(losses)), dtype=torch.float64, device=run.engine.device)
    torch.distributed.all_reduce(mean)
    return mean.item() / run.world_size
