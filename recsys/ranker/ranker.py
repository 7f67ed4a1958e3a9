"""The final ranker: the order of what a search found, and how probably each item fits.

Shapes: C candidates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.ranker.calibration import Calibration
from recsys.ranker.cross import CrossScorer
from recsys.ranker.features import FEATURES, Candidates, ItemFacts, make_features
from recsys.ranker.trees import Trees

TREES, CALIBRATION, SETTINGS = "trees.txt", "calibration.json", "ranker.json"
RANKED = 200
"""Candidates of a search that can be ranked anew; what is below them stays below."""


@dataclass(frozen=True)
class FinalRanker:
    """Trees over features, and what share of the items with a score fits.

    `added_column` is the number column of the items that says when each was added, in Unix seconds;
    "" where there is none. The first `depth` candidates of the search's order are ranked: a log of
    what was shown teaches nothing of what stands deeper than anybody saw. `cross` is the causal
    language model of the name `cross_model`, where there is one.
    """

    trees: Trees
    calibration: Calibration
    added_column: str = ""
    depth: int = RANKED
    cross_model: str = ""
    cross: CrossScorer | None = None

    @property
    def reads_histories(self) -> bool:
        """Whether what a user's history makes of an item has a say."""
        return not self.trees.used.isdisjoint({"sequence", "sequence_below_best"})

    @property
    def reads_cross(self) -> bool:
        """Whether the causal language model has a say."""
        return not self.trees.used.isdisjoint({"cross", "cross_below_best"})

    def rank(
        self, found: Candidates, facts: ItemFacts, now: float = np.nan
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores, higher is better, and probabilities of the first `depth` candidates."""
        scores = self.trees.scores(make_features(found, facts, now)[: self.depth])
        return scores, self.calibration.of(scores)

    def files(self) -> dict[str, bytes]:
        """What `load_ranker` reads, by name: text and numbers, nothing that is executed."""
        settings = {
            "features": FEATURES,
            "added_column": self.added_column,
            "depth": self.depth,
            "cross_model": self.cross_model if self.reads_cross else "",
        }
        texts = {
            TREES: self.trees.to_text(),
            CALIBRATION: self.calibration.to_json(),
            SETTINGS: json.dumps(settings, indent=2),
        }
        return {name: text.encode() for name, text in texts.items()}


def load_ranker(read: Callable[[str], bytes]) -> FinalRanker:
    """The ranker whose files `read` gives by name.

    Raises:
        ValueError: it was fitted to other features than this release makes.
    """
    settings = json.loads(read(SETTINGS))
    if tuple(settings["features"]) != FEATURES:
        changed = sorted(set(settings["features"]) ^ set(FEATURES)) or ["their order"]
        raise ValueError(f"the ranker knows other features ({', '.join(changed)}): fit it again")
    model = settings["cross_model"]
    return FinalRanker(
        Trees.from_text(read(TREES).decode()),
        Calibration.from_json(read(CALIBRATION).decode()),
        settings["added_column"],
        settings["depth"],
        model,
        CrossScorer.load(model) if model else None,
    )
