"""The distill stage: a checkpoint -> a checkpoint with a smaller language model, cheap to serve.

The student begins as the first layers of the teacher's language model and learns to give the
teacher's text vectors, as whitened ones where the checkpoint has them whitened. Projection, IDs and
user encoder stay as they are.

One process does it, in one Ray task: it holds the items' tokens, the teacher's vectors of all items
(N x E float32, 1.5 GB for a million items of a 384-wide model) and both language models, and uses
one core or one GPU. An interrupted run starts anew.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import ray
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import DistillationConfig
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import TextEncoder, pad_tokens
from recsys.models.build import BACKBONE, ITEMS, LOG, load_model, save_model
from recsys.training.optimizer import learning_rate_factor

HELD_OUT = 0.1
"""Share of the items that the student never learns from and is measured on."""
ENCODE_BATCH = 256


@dataclass(frozen=True)
class Lesson:
    """What a distillation gave: the student, a row of log an epoch, and what was measured."""

    student: TextEncoder
    log: list[dict[str, float]]
    facts: dict[str, Any]


def distill(
    config: DistillationConfig, dataset: Artifact, teacher: Artifact, output: str
) -> Artifact:
    """Teach a smaller language model and write a `checkpoint` artifact with it.

    Raises:
        ValueError: the teacher has no language model, no more layers than the student is to have,
            or was trained on tokens of another one than the dataset holds.
    """
    _check(config, dataset, teacher)
    task = _distill.options(num_cpus=1, num_gpus=1 if config.use_gpu else 0)
    lesson: Lesson = ray.get(task.remote(config, dataset.uri, teacher.uri))
    return _publish(config, dataset, teacher, lesson, output)


def _check(config: DistillationConfig, dataset: Artifact, teacher: Artifact) -> None:
    if teacher.manifest.config["model"]["item_features"] == "id":
        raise ValueError(f"{teacher.uri} knows items by ID alone: there is no text to distill")
    theirs, ours = teacher.manifest.parents.get("dataset"), dataset.manifest.config["backbone"]
    backbone = teacher.manifest.config["model"]["backbone"]
    if theirs != dataset.digest and backbone != ours:
        raise ValueError(
            f"{teacher.uri} reads tokens of '{backbone}' and {dataset.uri} holds those of '{ours}'"
        )
    architecture = AutoConfig.for_model(**teacher.read_json(f"{BACKBONE}/config.json"))
    if config.num_layers >= architecture.num_hidden_layers:
        raise ValueError(
            f"distillation.num_layers {config.num_layers} must be less than the "
            f"{architecture.num_hidden_layers} layers of the teacher's language model"
        )


@ray.remote(max_retries=0)
def _distill(config: DistillationConfig, dataset_uri: str, teacher_uri: str) -> Lesson:
    torch.set_num_threads(1)
    dataset = open_artifact(dataset_uri, "dataset", check=False)
    model, _ = load_model(open_artifact(teacher_uri, "checkpoint", check=False))
    assert model.text_encoder is not None
    items = dataset.read_table("items.parquet", [schema.TOKEN_IDS, schema.REMOVED])
    rows = zip(items[schema.TOKEN_IDS].to_pylist(), items[schema.REMOVED].to_pylist(), strict=True)
    texts = [tokens for tokens, removed in rows if not removed]
    return teach(config, model.text_encoder, texts)


def teach(config: DistillationConfig, teacher: TextEncoder, texts: list[list[int]]) -> Lesson:
    """A student of the teacher, taught on all but a tenth of the texts' tokens."""
    device = torch.device("cuda" if config.use_gpu else "cpu")
    teacher = teacher.eval().to(device)
    student = first_layers(teacher, config.num_layers).to(device)
    targets_NE = encode(teacher, texts)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(config.seed))
    num_held_out = max(1, round(HELD_OUT * len(texts)))
    held_out, learned = order[:num_held_out], order[num_held_out:]
    before = agreement(student, texts, targets_NE, held_out)
    log = _learn(config, student, texts, targets_NE, learned)
    after = agreement(student, texts, targets_NE, held_out)
    return Lesson(
        student.cpu(),
        log,
        {
            "teacher_parameters": num_parameters(teacher.backbone),
            "parameters": num_parameters(student.backbone),
            "held_out_items": len(held_out),
            "held_out_cosine": after,
            "held_out_cosine_untaught": before,
        },
    )


def first_layers(teacher: TextEncoder, num_layers: int) -> TextEncoder:
    """A copy of a text encoder with the first layers of its language model alone."""
    body: Any = teacher.backbone
    config = copy.deepcopy(body.config)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
    backbone = AutoModel.from_config(config, dtype=torch.float32)
    missing, _ = backbone.load_state_dict(body.state_dict(), strict=False)
    assert not missing, missing
    student = TextEncoder(backbone, teacher.size, teacher.pooling)
    student.set_whitening(teacher.whitening_mean, teacher.whitening)
    return student


@torch.inference_mode()
def encode(encoder: TextEncoder, texts: list[list[int]]) -> torch.Tensor:
    """(N, E) float32 text vectors on the CPU; texts of similar length are encoded together."""
    encoder.eval()
    device = encoder.whitening.device
    order = torch.tensor([len(text) for text in texts]).argsort(stable=True)
    vectors_NE = torch.empty(len(texts), encoder.size)
    for rows in order.split(ENCODE_BATCH):
        tokens = pad_tokens([texts[row] for row in rows.tolist()])
        vectors_NE[rows] = encoder(tokens.to(device)).float().cpu()
    return vectors_NE


def agreement(
    student: TextEncoder, texts: list[list[int]], targets_NE: torch.Tensor, rows: torch.Tensor
) -> float:
    """Mean cosine of the student's and the teacher's vectors of some texts."""
    found_RE = encode(student, [texts[row] for row in rows.tolist()])
    return F.cosine_similarity(found_RE, targets_NE[rows]).mean().item()


def _learn(
    config: DistillationConfig,
    student: TextEncoder,
    texts: list[list[int]],
    targets_NE: torch.Tensor,
    learned: torch.Tensor,
) -> list[dict[str, float]]:
    """Teach the student in place; returns the mean loss of each epoch."""
    device = student.whitening.device
    steps = -(-len(learned) // config.batch_size)
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(step, steps * config.epochs, config.warmup_share),
    )
    # Without dropout, as the teacher's vectors are: what is learned is a function, not a task.
    student.eval().requires_grad_(True)
    generator = torch.Generator().manual_seed(config.seed)
    log: list[dict[str, float]] = []
    for epoch in range(config.epochs):
        losses = []
        order = learned[torch.randperm(len(learned), generator=generator)]
        for rows in order.split(config.batch_size):
            tokens = pad_tokens([texts[row] for row in rows.tolist()]).to(device)
            loss = vector_loss(student(tokens), targets_NE[rows].to(device), config.loss)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        mean = sum(losses) / len(losses)
        log.append({"step": steps * (epoch + 1), "epoch": epoch, "loss": mean})
    student.requires_grad_(False)
    return log


def vector_loss(found_BE: torch.Tensor, right_BE: torch.Tensor, kind: str) -> torch.Tensor:
    """Mean distance of vectors: `cosine` is one minus the cosine, `mse` the squared error."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(found_BE, right_BE).mean()
    return F.mse_loss(found_BE, right_BE)


def num_parameters(module: nn.Module) -> int:
    """Numbers that a module has learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def _publish(
    config: DistillationConfig, dataset: Artifact, teacher: Artifact, lesson: Lesson, output: str
) -> Artifact:
    model, _ = load_model(teacher)
    model.text_encoder = lesson.student
    writer = ArtifactWriter(output, "checkpoint")
    save_model(model, writer, load_tokenizer(teacher.manifest.config["model"]["backbone"]))
    writer.add_table(ITEMS, teacher.read_table(ITEMS))
    writer.add_json(LOG, lesson.log)
    return writer.publish(
        distilled_settings(config, teacher),
        {"dataset": dataset.digest, "teacher": teacher.digest},
        {**teacher.manifest.facts, "distillation": lesson.facts},
    )


def distilled_settings(config: DistillationConfig, teacher: Artifact) -> dict[str, Any]:
    """What the manifest of a distilled checkpoint says of the config: the teacher's, and how."""
    return {**teacher.manifest.config, "distillation": config.model_dump(mode="json")}
