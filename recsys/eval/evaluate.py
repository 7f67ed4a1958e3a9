"""The evaluate stage: checkpoint + index + held-out rows -> `report` artifact.

Full ranking over all items, through the engine that also serves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import EvaluationConfig
from recsys.data.collate import histories_of, read_rows, targets_of
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Ranked, Recommender
from recsys.eval.baselines import Popularity, load_id_only
from recsys.eval.metrics import catalogue_coverage, ranking_metrics
from recsys.eval.report import render_report
from recsys.eval.segments import segments
from recsys.schema import History

NUM_EXAMPLES = 6
NO_ITEM = -1

log = logging.getLogger(__name__)


class Ranker(Protocol):
    """Whatever ranks items for histories."""

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The best items for each history."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """The rows to score, and what segments need to know of them."""

    histories: list[History]
    targets: list[np.ndarray]
    train_counts: np.ndarray


def evaluate(
    config: EvaluationConfig,
    dataset: Artifact,
    checkpoint: Artifact,
    index: Artifact,
    output: str,
    id_only: Artifact | None = None,
) -> Artifact:
    """Score the model, popularity and, where given, an ID-only checkpoint; write the report.

    Raises:
        ValueError: the artifacts were not made from one another, or there are no rows to score.
    """
    _check_lineage(dataset, checkpoint, index)
    catalogue = Catalogue(index.read_table("items.parquet"))
    held_out = _read_held_out(dataset, config, catalogue)
    rankers: dict[str, Ranker] = {
        "model": Recommender.load(checkpoint, index, config.filter_seen),
        "popularity": Popularity(catalogue.train_counts, config.filter_seen, catalogue.removed),
    }
    if id_only is not None:
        rankers["id_only"] = load_id_only(id_only, catalogue, config.filter_seen)
    ranked = {name: _rank_all(r, held_out.histories, config) for name, r in rankers.items()}
    scores = {name: score_segments(rows, held_out, config.cutoffs) for name, rows in ranked.items()}
    report = {
        "split": _describe_split(dataset, config, held_out),
        "models": scores,
        "data": _describe_data(dataset),
        "examples": _examples(ranked["model"], held_out, catalogue),
    }
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    return _write(config, report, parents | ({"id_only": id_only} if id_only else {}), output)


def _check_lineage(dataset: Artifact, checkpoint: Artifact, index: Artifact) -> None:
    for child in (checkpoint, index):
        if child.manifest.parents["dataset"] != dataset.digest:
            raise ValueError(f"{child.uri} was not made from {dataset.uri}: make it again")


def _read_held_out(dataset: Artifact, config: EvaluationConfig, catalogue: Catalogue) -> HeldOut:
    rows = read_rows(dataset, config.split)
    return HeldOut(histories_of(rows), targets_of(rows), catalogue.train_counts.numpy())


def _rank_all(ranker: Ranker, histories: list[History], config: EvaluationConfig) -> np.ndarray:
    """(R, K) ranked item indexes, K the largest cutoff, filled up with `NO_ITEM`."""
    top_k = max(config.cutoffs)
    ranked = np.full((len(histories), top_k), NO_ITEM, dtype=np.int64)
    for start in range(0, len(histories), config.batch_size):
        some = histories[start : start + config.batch_size]
        found = ranker.rank(some, [top_k] * len(some), [[]] * len(some))
        for row, result in zip(ranked[start:], found, strict=False):
            row[: len(result.item_indexes)] = result.item_indexes
    return ranked


def score_segments(
    ranked: np.ndarray, held_out: HeldOut, cutoffs: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Mean metrics for each segment; `users` is its number of rows."""
    lengths = np.array([len(history) for history in held_out.histories])
    found: dict[str, dict[str, float]] = {}
    for name, rows, targets in segments(lengths, held_out.targets, held_out.train_counts):
        values = ranking_metrics(ranked[rows], targets, cutoffs)
        found[name] = {metric: float(value.mean()) for metric, value in values.items()}
        found[name] |= {"users": len(rows)}
    num_items = len(held_out.train_counts)
    found["all"] |= {f"coverage@{k}": catalogue_coverage(ranked, num_items, k) for k in cutoffs}
    return found


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


def _examples(ranked: np.ndarray, held_out: HeldOut, catalogue: Catalogue) -> list[dict]:
    def titles(items: np.ndarray) -> list[str]:
        ids = catalogue.vocabulary.item_ids
        return [catalogue.titles[i] or str(ids[i]) for i in items if i != NO_ITEM]

    step = max(1, len(ranked) // NUM_EXAMPLES)
    return [
        {
            "history": titles(held_out.histories[row].last(5).item_indexes),
            "target": titles(held_out.targets[row][:5]),
            "recommended": titles(ranked[row, :5]),
        }
        for row in range(0, len(ranked), step)[:NUM_EXAMPLES]
    ]


def _write(
    config: EvaluationConfig, report: dict, parents: dict[str, Artifact], output: str
) -> Artifact:
    log_rows = parents["checkpoint"].read_json("training_log.json")
    quality = parents["dataset"].read_json("quality.json")
    writer = ArtifactWriter(output, "report")
    writer.add_json("report.json", report)
    writer.add_bytes("report.html", render_report(report, log_rows, quality).encode())
    digests = {name: artifact.digest for name, artifact in parents.items()}
    _log_summary(report)
    return writer.publish({"evaluation": config.model_dump(mode="json")}, digests)


def _log_summary(report: dict) -> None:
    for name, scores in report["models"].items():
        shown = {k: v for k, v in scores["all"].items() if k in ("recall@10", "ndcg@10", "mrr@10")}
        found = "  ".join(f"{metric} {value:.4f}" for metric, value in shown.items())
        log.info("%-10s %s  (%d rows)", name, found, scores["all"]["users"])
