"""The driver's side of training: cached text vectors, the Ray Train run, the artifact."""

from __future__ import annotations

import hashlib
import json

import torch
from safetensors.torch import load, save

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter, find_manifest, open_artifact, write_file
from recsys.config import IndexConfig, ModelConfig, TrainingConfig
from recsys.data.tokenize import load_tokenizer
from recsys.index.embed import embed_text
from recsys.models.backbone import TextEncoder, fit_whitening, load_text_encoder, merge_lora
from recsys.models.build import (
    ITEMS,
    LOG,
    SCORE,
    ModelShape,
    add_heads,
    build_model,
    save_model,
    text_size,
)
from recsys.models.recommender_model import RecommenderModel
from recsys.models.warm_start import read_whitening
from recsys.pretrained import backbone_digest
from recsys.storage import has_file, read_bytes
from recsys.training.job import TEXT_VECTORS, TrainJob, check_training
from recsys.training.lease import hold
from recsys.training.loop import train_loop
from recsys.training.resume import NOT_IN_NAME, read_best
from recsys.training.workers import run_workers


def train(model: ModelConfig, training: TrainingConfig, dataset: Artifact, output: str) -> Artifact:
    """Train on a dataset and write a `checkpoint` artifact.

    Shards for resume stay in `<output>-run`, in a folder named by config and dataset: the same
    call goes on where an interrupted one stopped, also with another number of workers.

    Raises:
        ValueError: an option does not fit the dataset or the model.
        LeaseError: another trainer is at work on the same run.
        ShardError: no checkpoint of the run is good.
    """
    start = open_artifact(training.start_from, "checkpoint") if training.start_from else None
    check_training(model, training, dataset, start)
    run_uri = f"{str(output).rstrip('/')}-run"
    parents = training_parents(model, training, dataset)
    job = _make_job(model, training, dataset, start, run_uri)
    run, settings = f"{run_uri}/{_run_name(model, training, parents)}", job.model_dump(mode="json")
    with hold(run) as lease:
        run_workers(train_loop, settings, training, run, lease, SCORE)
        return _publish(job, dataset, parents, run, output)


def training_parents(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact
) -> dict[str, str]:
    """The digests of all that a checkpoint is made from: a path may be given another content."""
    parents = {"dataset": dataset.digest}
    if training.start_from and (start := find_manifest(training.start_from)):
        parents["start_from"] = start.digest
    if model.item_features != "id" and (digest := backbone_digest(model.backbone)):
        parents["backbone"] = digest
    return parents


def _run_name(model: ModelConfig, training: TrainingConfig, parents: dict[str, str]) -> str:
    told = [model.model_dump_json(), training.model_dump_json(exclude=NOT_IN_NAME)]
    told += parents.values()
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _make_job(
    model: ModelConfig,
    training: TrainingConfig,
    dataset: Artifact,
    start: Artifact | None,
    run_uri: str,
) -> TrainJob:
    cache = _cache_text(model, training, dataset, start, run_uri)
    return TrainJob(
        dataset=dataset.uri,
        model=model,
        training=training,
        shape=_shape(model, dataset),
        text_vectors=f"{run_uri}/{cache}" if cache else None,
    )


def _shape(model: ModelConfig, dataset: Artifact) -> ModelShape:
    prepare = dataset.manifest.config["prepare"]
    return ModelShape(
        num_items=dataset.manifest.facts["num_items"],
        max_history=prepare["max_history"],
        num_events=len(prepare["events"]),
        text_size=text_size(model),
    )


def _cache_text(
    model: ModelConfig,
    training: TrainingConfig,
    dataset: Artifact,
    start: Artifact | None,
    run_uri: str,
) -> str | None:
    """Name of the file with a frozen backbone's text vectors, made unless it is already there."""
    if model.item_features == "id" or model.tuning != "frozen":
        return None
    items = next(f.sha256 for f in dataset.manifest.files if f.path == "items.parquet")
    told = [items, model.backbone, model.pooling, model.backbone_precision, str(model.whiten)]
    told += [backbone_digest(model.backbone), start.digest if start else ""]
    name = f"text_vectors_{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.safetensors"
    if not has_file(f"{run_uri}/{name}"):
        index = IndexConfig(num_workers=training.num_workers, use_gpu=training.use_gpu)
        text_NE = embed_text(dataset, model, index)
        write_file(run_uri, name, save(_text_tensors(model, text_NE, start)))
    return name


def _text_tensors(
    model: ModelConfig, text_NE: torch.Tensor, start: Artifact | None
) -> dict[str, torch.Tensor]:
    if not model.whiten:
        return {TEXT_VECTORS: text_NE}
    mean_E, whitening_EE = read_whitening(start) if start else fit_whitening(text_NE)
    whitened_NE = (text_NE - mean_E) @ whitening_EE
    return {TEXT_VECTORS: whitened_NE, "mean": mean_E, "whitening": whitening_EE}


def _publish(
    job: TrainJob,
    dataset: Artifact,
    parents: dict[str, str],
    run: str,
    output: str,
) -> Artifact:
    state, steps = read_best(run, SCORE)
    writer = ArtifactWriter(output, "checkpoint")
    save_model(_trained(job, state), writer, load_tokenizer(job.model.backbone))
    writer.add_table(ITEMS, dataset.read_table("items.parquet", [schema.ITEM_ID]))
    writer.add_json(LOG, steps)
    config = {"model": job.model, "training": job.training}
    return writer.publish(
        {name: section.model_dump(mode="json") for name, section in config.items()},
        parents,
        {"shape": job.shape.model_dump(), "prepare": dataset.manifest.config["prepare"]},
    )


def _trained(job: TrainJob, state: dict[str, torch.Tensor]) -> RecommenderModel:
    """The model as it serves: float32, LoRA merged, the text encoder in place."""
    text = None if job.model.item_features == "id" else load_text_encoder(job.model)
    frozen = job.model.tuning == "frozen"
    model = build_model(job.model, job.shape, None if frozen else text)
    add_heads(model, job.training.heads, job.model, job.shape)
    model.load_state_dict(state)
    if text is not None:
        _finish_text(job, text)
    model.text_encoder = text
    return model


def _finish_text(job: TrainJob, text: TextEncoder) -> None:
    text.backbone = merge_lora(text.backbone)
    if job.text_vectors and job.model.whiten:
        tensors = load(read_bytes(job.text_vectors))
        text.set_whitening(tensors["mean"], tensors["whitening"])
