"""The explain stage: checkpoint + index + held-out rows -> `explanations` artifact."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import EvaluationConfig, ModelConfig
from recsys.data.collate import read_rows
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Recommender
from recsys.eval.beyond_accuracy import VectorsOf
from recsys.eval.explain_page import render_explanations
from recsys.eval.feature_importance import (
    Sample,
    contribution_shares,
    draw_sample,
    fit_surrogate,
)
from recsys.eval.held_out import check_lineage
from recsys.index.item_index import VECTORS, load_index

NUM_USERS = 500
"""Users that shares and rules are of: two digits of a percent are enough."""
NUM_EXAMPLES, NUM_SHOWN, NUM_TITLES = 6, 3, 8
"""Users on the page, recommended items of each, and newest titles of a history."""


def explain(
    config: EvaluationConfig, dataset: Artifact, checkpoint: Artifact, index: Artifact, output: str
) -> Artifact:
    """Explain what the recommender answers to users of `config.split`; write JSON and a page.

    Examples show titles alone: no user and no time.

    Raises:
        ValueError: the artifacts were not made from one another, or no row has a history.
    """
    check_lineage(dataset, checkpoint, index)
    recommender = Recommender.load(checkpoint, index, config.filter_seen)
    catalogue = Catalogue(index.read_table("items.parquet"))
    sample = draw_sample(read_rows(dataset, config.split), recommender, NUM_USERS)
    events = dataset.manifest.config["prepare"]["events"]
    surrogate = fit_surrogate(sample, catalogue, _text_vectors(checkpoint, index))
    report = {
        "num_users": len(sample.histories),
        "shares": contribution_shares(sample, catalogue, events, config.min_group_size),
        "surrogate": None if surrogate is None else asdict(surrogate),
        "examples": _examples(sample, recommender, catalogue),
    }
    writer = ArtifactWriter(output, "explanations")
    writer.add_json("explanations.json", report)
    writer.add_bytes("explanations.html", render_explanations(report).encode())
    parents = {"dataset": dataset, "checkpoint": checkpoint, "index": index}
    return writer.publish(
        {"evaluation": config.model_dump(mode="json")},
        {name: artifact.digest for name, artifact in parents.items()},
    )


def _text_vectors(checkpoint: Artifact, index: Artifact) -> VectorsOf:
    """What the model makes of an item's text: the first half of a hybrid model's vectors.

    A model of IDs has no text; its whole vectors say what it takes for alike.
    """
    model = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    stored = load_index(index.read_bytes(VECTORS))

    def vectors_of(items: np.ndarray) -> np.ndarray:
        vectors = stored.vectors_of(torch.as_tensor(items, dtype=torch.int64))
        text = vectors.chunk(model.num_parts, dim=-1)[0].float()
        return torch.nn.functional.normalize(text, dim=-1).numpy()

    return vectors_of


def _examples(
    sample: Sample, recommender: Recommender, catalogue: Catalogue
) -> list[dict[str, Any]]:
    step = max(1, len(sample.histories) // NUM_EXAMPLES)
    return [
        _example(sample, user, recommender, catalogue)
        for user in range(0, len(sample.histories), step)[:NUM_EXAMPLES]
    ]


def _example(
    sample: Sample, user: int, recommender: Recommender, catalogue: Catalogue
) -> dict[str, Any]:
    history, items = sample.histories[user], sample.recommended[user][:NUM_SHOWN]
    found = recommender.explainer.explain(history, items)
    return {
        "history": [catalogue.name(int(i)) for i in history.last(NUM_TITLES).item_indexes],
        "recommended": [
            {
                "title": catalogue.name(item),
                "sentence": told.sentence,
                "contributions": [round(moved, 4) for *_, moved in told.events],
            }
            for item, told in zip(items, found, strict=True)
        ],
    }
