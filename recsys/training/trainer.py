"""The driver's side of training: cached text vectors, the Ray Train run, the artifact."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import ray.train
import ray.train.torch
import torch
from safetensors.torch import load, save

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter, open_artifact, write_file
from recsys.config import IndexConfig, ModelConfig, TrainingConfig
from recsys.data.tokenize import load_tokenizer
from recsys.index.embed import embed_text
from recsys.models.backbone import TextEncoder, fit_whitening, load_text_encoder, merge_lora
from recsys.models.build import (
    ITEMS,
    ModelShape,
    add_heads,
    build_model,
    save_model,
    text_size,
)
from recsys.models.recommender_model import RecommenderModel
from recsys.models.warm_start import read_whitening
from recsys.pretrained import backbone_digest
from recsys.storage import has_file, read_bytes, steady_filesystem
from recsys.training.checkpoint import LOG
from recsys.training.job import TEXT_VECTORS, TrainJob, check_training
from recsys.training.loop import train_loop
from recsys.training.zero import consolidated_state

SCORE = "valid_ndcg@10"
"""The best epoch by this becomes the checkpoint artifact."""


def train(model: ModelConfig, training: TrainingConfig, dataset: Artifact, output: str) -> Artifact:
    """Train on a dataset and write a `checkpoint` artifact.

    Shards for resume stay in `<output>-run`, in a folder named by config and dataset: the same
    call goes on where an interrupted one stopped.

    Raises:
        ValueError: an option does not fit the dataset or the model.
    """
    check_training(model, training, dataset)
    start = _open_start(training)
    run_uri = f"{str(output).rstrip('/')}-run"
    job = _make_job(model, training, dataset, run_uri)
    name = _run_name(model, training, dataset, start)
    result = _fit(job, run_uri, name)
    kept = result.best_checkpoints or []
    best, _ = max(kept, key=lambda pair: pair[1].get(SCORE, float("-inf")))
    return _publish(job, dataset, start, best, output)


def _open_start(training: TrainingConfig) -> Artifact | None:
    return open_artifact(training.start_from, "checkpoint") if training.start_from else None


def _run_name(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, start: Artifact | None
) -> str:
    told = [model.model_dump_json(), training.model_dump_json(), dataset.digest]
    told += [start.digest] if start else []
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _make_job(
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, run_uri: str
) -> TrainJob:
    cache = _cache_text(model, training, dataset, run_uri)
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
    model: ModelConfig, training: TrainingConfig, dataset: Artifact, run_uri: str
) -> str | None:
    """Name of the file with a frozen backbone's text vectors, made unless it is already there."""
    if model.item_features == "id" or model.tuning != "frozen":
        return None
    items = next(f.sha256 for f in dataset.manifest.files if f.path == "items.parquet")
    start = _open_start(training)
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


def _fit(job: TrainJob, run_uri: str, name: str) -> ray.train.Result:
    training = job.training
    fs, place = steady_filesystem(run_uri)
    trainer = ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config=job.model_dump(mode="json"),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if training.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.num_workers, use_gpu=training.use_gpu
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=place,
            storage_filesystem=fs,
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute=SCORE
            ),
        ),
    )
    return trainer.fit()


def _publish(
    job: TrainJob,
    dataset: Artifact,
    start: Artifact | None,
    checkpoint: ray.train.Checkpoint,
    output: str,
) -> Artifact:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.to_directory(folder)
        state = consolidated_state(Path(folder))
        log = json.loads((Path(folder) / LOG).read_text())
    writer = ArtifactWriter(output, "checkpoint")
    save_model(_trained(job, state), writer, load_tokenizer(job.model.backbone))
    writer.add_table(ITEMS, dataset.read_table("items.parquet", [schema.ITEM_ID]))
    writer.add_json(LOG, log)
    config = {"model": job.model, "training": job.training}
    return writer.publish(
        {name: section.model_dump(mode="json") for name, section in config.items()},
        {"dataset": dataset.digest} | ({"start_from": start.digest} if start else {}),
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
