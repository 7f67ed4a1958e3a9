"""The evaluate stage: checkpoint + index + held-out rows -> `report` artifact.

Full ranking over all items, through the engine that also serves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import EvaluationConfig, IndexConfig, ModelConfig
from recsys.data.collate import histories_of, read_rows, target_values_of, targets_of
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Recommender
from recsys.eval.baselines import load_sequence, make_baselines
from recsys.eval.beyond_accuracy import VectorsOf
from recsys.eval.confidence import confidence, fairness
from recsys.eval.examples import examples, worst_mistakes
from recsys.eval.held_out import ITEMS, check_lineage, read_held_out
from recsys.eval.item_map import ItemMap, make_item_map
from recsys.eval.predictions import HeldOutTargets, Scores, evaluate_heads
from recsys.eval.ranking import POPULARITY, Ranker, rank_all, score_rankers
from recsys.eval.report import render_report
from recsys.eval.report_models import TRAINED
from recsys.eval.row_scores import ROW_METRICS, ROWS, RowScores
from recsys.eval.segments import ALL, HeldOut, Labels
from recsys.index.embed import embed_text
from recsys.index.item_index import VECTORS, ItemIndex, load_index
from recsys.models.build import LOG, load_model

log = logging.getLogger(__name__)


def evaluate(
    config: EvaluationConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    output: str,
    sequences: Mapping[str, Artifact] | None = None,
) -> Artifact:
    """Score the model and its baselines and write the report.

    `sequences` are the checkpoints of those baselines that the train stage makes, by name.

    Raises:
        ValueError: the artifacts were not made from one another, there are no rows to score, the
            dataset lacks a column that is to make segments, or a baseline cannot be made.
    """
    check_lineage(dataset, checkpoint, index)
    catalogue = Catalogue(index.read_table(ITEMS))
    held_out = read_held_out(dataset, config, catalogue.train_counts.numpy())
    sequences = sequences or {}
    text = _zero_shot_text(config, dataset, checkpoint)
    # Popularity is always there: serendipity is told from what everyone is shown.
    names = dict.fromkeys((POPULARITY, *config.baselines))
    rankers: dict[str, Ranker] = {
        TRAINED: Recommender.load(checkpoint, index, config.filter_seen),
        **make_baselines(list(names), dataset, catalogue, config.filter_seen, text),
    }
    for name, trained in sequences.items():
        rankers[name] = load_sequence(trained, catalogue, config.filter_seen)
    stored = load_index(index.read_bytes(VECTORS))
    vectors_of = _vectors_of(stored)
    scored = score_rankers(rankers, held_out, config, vectors_of)
    report = {
        "split": _describe_split(dataset, config, held_out),
        "models": scored.means,
        "confidence": confidence(scored.rows, TRAINED),
        "fairness": fairness(scored.rows),
        "heads": _judge_heads(config, dataset, checkpoint, stored),
        "data": _describe_data(dataset),
        **_to_look_at(rankers[TRAINED], scored.trained, held_out, catalogue, config),
    }
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index, **sequences}
    item_map = _map_of(index, catalogue, vectors_of)
    return _write(config, report, scored.rows, item_map, parents, output)


def _zero_shot_text(
    config: EvaluationConfig, dataset: Artifact, checkpoint: Artifact
) -> torch.Tensor | None:
    """(N, E) the pretrained language model's own vectors, where a baseline asks for them."""
    if "lm_zero_shot" not in config.baselines:
        return None
    model = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    return embed_text(dataset, model, IndexConfig())


def _vectors_of(stored: ItemIndex) -> VectorsOf:
    return lambda items: stored.vectors_of(torch.from_numpy(items)).numpy()


def _judge_heads(
    config: EvaluationConfig, dataset: Artifact, checkpoint: Artifact, stored: ItemIndex
) -> dict[str, dict[str, Scores]]:
    """How well values and probabilities are predicted, where the model has heads for that."""
    model, shape = load_model(checkpoint, with_text=False)
    if model.heads is None:
        return {}
    rows = read_rows(dataset, config.split)
    held_out = HeldOutTargets(histories_of(rows), targets_of(rows), target_values_of(rows))
    return evaluate_heads(model, stored.vectors, held_out, shape.max_history, config.batch_size)


def _to_look_at(
    trained: Ranker,
    ranked: np.ndarray,
    held_out: HeldOut,
    catalogue: Catalogue,
    config: EvaluationConfig,
) -> dict[str, list[dict]]:
    def rank_deep(rows: np.ndarray, depth: int) -> np.ndarray:
        histories = [held_out.histories[row] for row in rows]
        return rank_all(trained, histories, depth, config.batch_size)

    return {
        "examples": examples(ranked, held_out, catalogue),
        "mistakes": worst_mistakes(ranked, held_out, catalogue, rank_deep),
    }


def _map_of(index: Artifact, catalogue: Catalogue, vectors_of: VectorsOf) -> ItemMap:
    items = index.read_table(ITEMS)
    there = np.flatnonzero(~catalogue.removed.numpy())
    has_category = "category" in items.column_names
    column = items["category"] if has_category else pa.nulls(len(items))
    return make_item_map(vectors_of, there, Labels.of(column))


def _describe_split(
    dataset: Artifact, config: EvaluationConfig, held_out: HeldOut
) -> dict[str, Any]:
    return {
        **{name: value for name, value in dataset.manifest.facts["split"].items() if value},
        "part": config.split,
        "rows": len(held_out.histories),
        "filter_seen": config.filter_seen,
    }


def _describe_data(dataset: Artifact) -> dict[str, int]:
    facts = dataset.manifest.facts
    rows = {f"{part}_rows": number for part, number in facts["rows"].items()}
    return {"num_users": facts["num_users"], "num_items": facts["num_items"]} | rows


def _write(
    config: EvaluationConfig,
    report: dict,
    rows: RowScores,
    item_map: ItemMap,
    parents: dict[str, Artifact],
    output: str,
) -> Artifact:
    log_rows = parents["checkpoint"].read_json(LOG)
    quality = parents["dataset"].read_json("quality.json")
    writer = ArtifactWriter(output, "report")
    writer.add_json("report.json", report)
    writer.add_table(ROWS, rows.to_table())
    writer.add_bytes("report.html", render_report(report, log_rows, quality, item_map).encode())
    digests = {name: artifact.digest for name, artifact in parents.items()}
    _log_summary(report)
    return writer.publish({"evaluation": config.model_dump(mode="json")}, digests)


def _log_summary(report: dict) -> None:
    for name, scores in report["models"].items():
        shown = {metric: scores[ALL][metric] for metric in ROW_METRICS}
        found = "  ".join(f"{metric} {value:.4f}" for metric, value in shown.items())
        log.info("%-10s %s  (%d rows)", name, found, scores[ALL]["users"])
