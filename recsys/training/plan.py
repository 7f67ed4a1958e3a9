"""What a training run would do, told without running it: `ray_jobs.train --dry-run`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from math import ceil

import psutil
import torch

from recsys.artifact import Artifact, find_manifest, open_artifact
from recsys.config import JobConfig, ModelConfig, PrepareConfig, TrainingConfig
from recsys.models.build import ModelShape, text_size
from recsys.training.guarantee import Guarantee, promise_on
from recsys.training.job import check_training
from recsys.training.memory import (
    DataSize,
    Memory,
    Weights,
    Workload,
    count_weights,
    estimate_memory,
    workload,
)
from recsys.training.optimizer import learning_rate_factor
from recsys.training.zero import deepspeed_config

GIB = 1 << 30
LESS_MEMORY = (
    "use more workers or machines, a higher zero_stage, accumulation, loss_chunk, num_negatives or "
    "activation_checkpointing"
)


@dataclass(frozen=True)
class Plan:
    """A run before it starts; `source` says where the data's size is from.

    `promise` is what a private run promises on a dataset that is there.
    """

    model: ModelConfig
    training: TrainingConfig
    shape: ModelShape
    data: DataSize
    source: str
    weights: Weights
    work: Workload
    memory: Memory
    promise: Guarantee | None = None

    @property
    def digest(self) -> str:
        """First 16 digits of the sha256 of model and training config; equal configs share it."""
        told = self.model.model_dump_json() + "\n" + self.training.model_dump_json()
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def steps_an_epoch(self) -> int:
        """Steps of an epoch; the last may be smaller."""
        drawn = self.promise.users if self.promise else self.data.windows
        return ceil(drawn / self.training.global_batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.training.epochs * self.steps_an_epoch


@dataclass(frozen=True)
class Machine:
    """What this machine has; `gpus` are bytes of each GPU."""

    gpus: tuple[int, ...]
    ram: int


def plan_at(job: JobConfig, place: str, items: int | None, windows: int | None) -> Plan:
    """The plan of a run on the dataset at `place`, or on one of this size where none is yet.

    A window of assumed data is as long as may be, so that memory and time are at their most.

    Raises:
        ValueError: there is no dataset and no size to assume, or there are both, or an option does
            not fit the dataset.
    """
    if find_manifest(place) is None:
        if not (items and windows and min(items, windows) > 0):
            raise ValueError(
                f"{place} is no dataset: run prepare first, or tell the size it will have with "
                "--items and --windows, each above 0"
            )
        data = DataSize(items, windows, windows * job.prepare.max_history)
        return _plan(job, job.prepare, data, "assumed: there is no dataset yet")
    if items is not None or windows is not None:
        raise ValueError(f"{place} is there and has a size: leave out --items and --windows")
    return _plan_on(job, open_artifact(place, "dataset"))


def _plan_on(job: JobConfig, dataset: Artifact) -> Plan:
    start = job.training.start_from
    checkpoint = open_artifact(start, "checkpoint") if start else None
    check_training(job.model, job.training, dataset, checkpoint)
    facts = dataset.manifest.facts
    prepare = PrepareConfig.model_validate(dataset.manifest.config["prepare"])
    data = DataSize(facts["num_items"], facts["rows"]["train"], facts["train_targets"])
    told = _plan(job, prepare, data, dataset.uri)
    return replace(told, promise=promise_on(job.training, dataset))


def _plan(job: JobConfig, prepare: PrepareConfig, data: DataSize, source: str) -> Plan:
    model, training = job.model, job.training
    shape = ModelShape(
        num_items=data.items,
        max_history=prepare.max_history,
        num_events=len(prepare.events),
        text_size=text_size(model),
    )
    return Plan(
        model=model,
        training=training,
        shape=shape,
        data=data,
        source=source,
        weights=count_weights(model, training, shape),
        work=workload(training, shape, data),
        memory=estimate_memory(model, training, shape, data, prepare.max_item_tokens),
    )


def this_machine() -> Machine:
    """The GPUs that torch sees here, and the main memory."""
    count = torch.cuda.device_count()
    gpus = tuple(torch.cuda.get_device_properties(n).total_memory for n in range(count))
    return Machine(gpus, psutil.virtual_memory().total)


def render(plan: Plan, machine: Machine) -> str:
    """The plan as text for people, a heading and lines under it each."""
    settings = json.dumps(deepspeed_config(plan.training), indent=2)
    parts = [
        f"config {plan.digest}",
        *_data_lines(plan),
        "",
        "learning rate of all but the backbone",
        *_rate_lines(plan),
        "",
        "memory of a rank, estimated",
        *_memory_lines(plan),
        "",
        "this machine has",
        *_machine_lines(plan, machine),
        "",
        "DeepSpeed",
        settings,
    ]
    return "\n".join(parts)


def _data_lines(plan: Plan) -> list[str]:
    training, data, work = plan.training, plan.data, plan.work
    kind = "GPU" if training.use_gpu else "CPU"
    return [
        f"data     {data.items:,} items, {data.windows:,} windows, {data.targets:,} targets "
        f"({plan.source})",
        f"model    {plan.weights.learning:,} weights learn, {plan.weights.frozen:,} are frozen",
        f"workers  {training.num_workers}, a {kind} each, ZeRO stage {training.zero_stage}, "
        f"{training.precision}",
        f"batch    {training.global_batch_size} windows a step: {training.num_workers} workers x "
        f"{training.accumulation} parts x {work.windows} windows",
        f"scores   {work.positions:,} positions x {work.candidates:,} items in a part, at most",
        f"steps    {training.epochs} epochs x {plan.steps_an_epoch:,} = {plan.total_steps:,}",
        *_promise_lines(plan),
    ]


def _promise_lines(plan: Plan) -> list[str]:
    if not plan.training.privacy.is_on:
        return []
    if plan.promise is None:
        return ["privacy  epsilon follows from the number of users: prepare the dataset first"]
    told = plan.promise
    return [
        f"privacy  epsilon {told.epsilon:.2f} at delta {told.delta:g} for one of {told.users:,} "
        f"users; {told.sample_rate:.3%} of them a step"
    ]


def _rate_lines(plan: Plan) -> list[str]:
    training, total = plan.training, plan.total_steps
    warmup = min(max(1, round(training.warmup_share * total)), total) - 1
    steps = sorted({0, warmup, total // 4, total // 2, 3 * total // 4, total - 1})
    return [
        f"  step {step:>9,}  "
        f"{training.learning_rate * learning_rate_factor(step, total, training.warmup_share):.3g}"
        for step in steps
    ]


def _memory_lines(plan: Plan) -> list[str]:
    found = plan.memory
    return [
        *(_line(name, size) for name, size in found.on_device.items()),
        _line("device, at most", found.device),
        _line("host, offloaded", found.host),
        _line("host, at the start", found.host_start),
    ]


def _line(name: str, size: int) -> str:
    return f"  {name:<20}{size / GIB:10.3f} GiB"


def _machine_lines(plan: Plan, machine: Machine) -> list[str]:
    gpus = ", ".join(f"{size / GIB:.1f} GiB" for size in machine.gpus) or "none"
    lines = [f"  GPUs     {gpus}", f"  memory   {machine.ram / GIB:.1f} GiB"]
    return lines + [f"  WARNING  {text}" for text in warnings(plan, machine)]


def warnings(plan: Plan, machine: Machine) -> list[str]:
    """Where the estimate is more than this machine has; the run may be meant for another."""
    found, training = plan.memory, plan.training
    if training.use_gpu:
        return _gpu_warnings(plan, machine)
    needed = training.num_workers * max(found.device, found.host_start)
    if needed <= machine.ram:
        return []
    return [f"{training.num_workers} workers need {needed / GIB:.1f} GiB together: {LESS_MEMORY}"]


def _gpu_warnings(plan: Plan, machine: Machine) -> list[str]:
    if not machine.gpus:
        return ["use_gpu is true and torch sees no GPU here: a cluster's workers must have them"]
    found, smallest = plan.memory, min(machine.gpus)
    here = min(plan.training.num_workers, len(machine.gpus))
    told = []
    if found.device > smallest:
        told.append(
            f"a rank needs {found.device / GIB:.1f} GiB, a GPU has {smallest / GIB:.1f} GiB: "
            + LESS_MEMORY
        )
    on_host = here * max(found.host, found.host_start)
    if on_host > machine.ram:
        told.append(f"{here} ranks on this host need {on_host / GIB:.1f} GiB of its memory")
    return told
