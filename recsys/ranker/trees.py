"""Gradient-boosted trees that order lists of candidates, by LightGBM, with a listwise loss.

The loss of a list is the cross-entropy of its gains and the softmax of its scores (Cao, Qin, Liu,
Tsai & Li, "Learning to rank: from pairwise approach to listwise approach", ICML 2007, top one). A
gain may be any number from 0, so a judged relevance and a click over its place's examination are
both one: of the latter the mean over clicks is the loss of what attracts, wherever it was shown.

Shapes: R rows, F features, Q lists; rows of a list stand together.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lightgbm import Booster

LEAVES = (7, 15, 31)
"""Of a tree; the number with the least loss on validation lists stays."""
LEARNING_RATE, MAX_ROUNDS, PATIENCE = 0.1, 300, 20
MIN_ROWS = 20
"""Rows that a leaf needs."""
_LEAST_HESSIAN = 1e-6


@dataclass(frozen=True)
class Lists:
    """Candidates of Q searches: features (R, F), gains (R,) from 0, and rows of each list (Q,)."""

    features: np.ndarray
    gains: np.ndarray
    sizes: np.ndarray

    def __post_init__(self) -> None:
        rows = {len(self.features), len(self.gains), int(self.sizes.sum())}
        assert len(rows) == 1, rows
        assert (self.gains >= 0).all()
        assert (self.sizes > 0).all()

    @property
    def starts(self) -> np.ndarray:
        """(Q,) first row of each list."""
        return np.cumsum(self.sizes) - self.sizes


class Trees:
    """Features -> scores; higher is better. Of one list only their order is meant."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster
        self.used = frozenset(name for name, share in self.gain_of().items() if share)
        """Names of the features that some tree divides by."""

    @property
    def num_trees(self) -> int:
        """Trees that are summed."""
        return self._booster.num_trees()

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(R,) float64 of (R, F), in one thread.

        Raises:
            ValueError: there are more or fewer features than the trees were fitted to.
        """
        if features.shape[1] != self._booster.num_feature():
            raise ValueError(
                f"the ranker knows {self._booster.num_feature()} features, not "
                f"{features.shape[1]}: fit it again"
            )
        if not len(features):
            return np.empty(0)
        return np.asarray(self._booster.predict(features, num_threads=1), dtype=np.float64)

    def gain_of(self) -> dict[str, float]:
        """How much of the fall of the loss each feature brought, as shares, the largest first."""
        gains = self._booster.feature_importance("gain")
        shares = gains / max(gains.sum(), 1e-12)
        pairs = zip(self._booster.feature_name(), shares.tolist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    def to_text(self) -> str:
        """LightGBM's own text format, in which nothing can be executed."""
        return self._booster.model_to_string()

    @classmethod
    def from_text(cls, text: str) -> Trees:
        """What `to_text` gave.

        Raises:
            ValueError: it is no such text, or LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        try:
            return cls(lightgbm.Booster(model_str=text))
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"this is no text of LightGBM's trees: {error}") from error


def fit_trees(
    train: Lists, valid: Lists, names: Sequence[str], seed: int = 0, num_threads: int = 1
) -> Trees:
    """Of trees fitted to `train` those whose number and leaves have the least loss on `valid`.

    One thread by default: LightGBM brings its own OpenMP, and beside torch's both would take every
    core. The same lists give the same trees.

    Raises:
        ValueError: no list has a gain, or LightGBM is not installed.
    """
    for name, lists in (("train", train), ("valid", valid)):
        if not lists.gains.any():
            raise ValueError(f"no {name} list has an item that fits: give more queries or clicks")
    fitted = [_fit(train, valid, names, leaves, seed, num_threads) for leaves in LEAVES]
    booster, _ = min(fitted, key=lambda pair: pair[1])
    return Trees.from_text(booster.model_to_string(num_iteration=booster.best_iteration))


def listwise_loss(scores: np.ndarray, lists: Lists) -> float:
    """Mean over gains of minus the logarithm of their items' shares of their lists' softmax."""
    shares, _ = _shares(scores, lists)
    return float(-(lists.gains @ np.log(shares.clip(1e-30))) / lists.gains.sum())


def _fit(
    train: Lists, valid: Lists, names: Sequence[str], leaves: int, seed: int, num_threads: int
) -> tuple[Booster, float]:
    lightgbm = _lightgbm()

    def objective(scores: np.ndarray, _: Any) -> tuple[np.ndarray, np.ndarray]:
        return _gradients(scores, train)

    def loss(scores: np.ndarray, _: Any) -> tuple[str, float, bool]:
        return "loss", listwise_loss(scores, valid), False

    options = {
        "objective": objective,
        "metric": "none",
        "num_leaves": leaves,
        "learning_rate": LEARNING_RATE,
        "min_data_in_leaf": MIN_ROWS,
        "num_threads": num_threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(train.features, train.gains, feature_name=list(names), params=options)
    held_out = data.create_valid(valid.features, valid.gains)
    booster = lightgbm.train(
        options,
        data,
        MAX_ROUNDS,
        valid_sets=[held_out],
        feval=loss,
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return booster, float(booster.best_score["valid_0"]["loss"])


def _gradients(scores: np.ndarray, lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """(R,) each, p the shares and g the gains: sum(g) p - g, and sum(g) p (1 - p)."""
    shares, totals = _shares(scores, lists)
    return totals * shares - lists.gains, np.maximum(totals * shares * (1 - shares), _LEAST_HESSIAN)


def _shares(scores: np.ndarray, lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """(R,) each: the share of a row in the softmax of its list, and its list's sum of gains."""
    starts, sizes = lists.starts, lists.sizes
    raised = np.exp(scores - np.maximum.reduceat(scores, starts).repeat(sizes))
    shares = raised / np.add.reduceat(raised, starts).repeat(sizes)
    return shares, np.add.reduceat(lists.gains, starts).repeat(sizes)


def _lightgbm() -> Any:
    """Only now: it is an extra, and loads in a second."""
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        raise ValueError("a ranker needs lightgbm: install recsys[rank]") from error
