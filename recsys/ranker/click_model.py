"""What of a click is the item and what is its place: the position-based model of clicks.

A click takes that the place is looked at and that the item attracts, independently:

    P(click) = examination[place] * attraction[query, item]

Craswell, Zoeter, Taylor & Ramsey, "An experimental comparison of click position-bias models",
WSDM 2008; Chuklin, Markov & de Rijke, "Click Models for Web Search", 2015. Only products are seen,
so examination is told in times of that of the first place.

Most pairs of a query and an item are shown a few times only. The likelihood of 0s and 1s, with a
free attraction for each pair, is then far off, however long the log (Neyman & Scott 1948): with 2.5
times each, its maximum by EM has 1.4 to 3.1 times the true examination. That of a Poisson count
with the same mean is not (Wooldridge, "Distribution-free estimation of some nonlinear panel data
models", 1999), so it is the one that is maximised, by turns in examination and in attraction.

Shapes: R items shown, P pairs of a query and an item, K places, G groups of one pair at one place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_ROUNDS, TOLERANCE = 2_000, 1e-6
MAX_WEIGHT = 20.0
"""Largest inverse examination: above it few clicks would decide."""
PRIOR_LOOKS = 1.0
"""Looks with clicks of the mean attraction that each pair has beside its own."""
_LEAST = 1e-9


@dataclass(frozen=True)
class PositionModel:
    """How likely each place is looked at, and how each pair attracts one who looks.

    `places` (K,) ascending count from 1; `examination` (K,) is 1 at the first.
    `attraction` (P,) is the chance of a click at the first place, and the mean one for pairs that
    were never shown. `looks` (P,) is how often each pair was looked at, in looks at the first
    place. Of the places `unknown` no clicked item leads, by being shown at several, to the first.
    """

    places: np.ndarray
    examination: np.ndarray
    attraction: np.ndarray
    looks: np.ndarray
    unknown: np.ndarray
    rounds: int

    def examination_of(self, places: np.ndarray) -> np.ndarray:
        """(R,) examination; a place that is not known has that of the next one above it."""
        rows = np.searchsorted(self.places, places, side="right") - 1
        return self.examination[rows.clip(0)]

    def weights(self, places: np.ndarray, max_weight: float = MAX_WEIGHT) -> np.ndarray:
        """(R,) what a click at each place counts: 1 / examination, at most `max_weight`.

        Joachims, Swaminathan & Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM
        2017.
        """
        return np.minimum(1 / self.examination_of(places).clip(_LEAST), max_weight)


def fit_position_model(pairs: np.ndarray, places: np.ndarray, clicked: np.ndarray) -> PositionModel:
    """The most likely model of R items shown: (R,) pair numbers from 0, places from 1, 0 or 1.

    Raises:
        ValueError: arrays do not fit each other, nothing at the first place was clicked, or no item
            was shown there and elsewhere: then nobody can tell whether places or items drew clicks.
    """
    groups, unknown = _with_known_places(_grouped(pairs, places, clicked))
    clicks_P = groups.clicks_of_pairs()
    clicks_K = np.bincount(groups.row, groups.clicks)
    examination, rounds, step = np.ones(len(groups.places)), 0, np.inf
    while step > TOLERANCE and rounds < MAX_ROUNDS:
        attraction = clicks_P / groups.looks(examination).clip(_LEAST)
        drawn_K = np.bincount(groups.row, groups.shown * attraction[groups.pair])
        better = clicks_K / drawn_K.clip(_LEAST)
        better /= better[0]
        step, rounds, examination = float(np.abs(better - examination).max()), rounds + 1, better
    looks = groups.looks(examination)
    prior = clicks_P.sum() / looks.sum() * PRIOR_LOOKS
    attraction = (clicks_P + prior) / (looks + PRIOR_LOOKS)
    return PositionModel(groups.places, examination, attraction, looks, unknown, rounds)


@dataclass(frozen=True)
class _Groups:
    """(G,) each: pair, row of the place, times shown, clicks."""

    pair: np.ndarray
    row: np.ndarray
    shown: np.ndarray
    clicks: np.ndarray
    places: np.ndarray
    num_pairs: int

    def clicks_of_pairs(self) -> np.ndarray:
        """(P,) clicks."""
        return np.bincount(self.pair, self.clicks, self.num_pairs)

    def looks(self, examination_K: np.ndarray) -> np.ndarray:
        """(P,) times shown, each as much as its place is looked at."""
        looked = self.shown * examination_K[self.row]
        return np.bincount(self.pair, looked, self.num_pairs)


def _grouped(pairs: np.ndarray, places: np.ndarray, clicked: np.ndarray) -> _Groups:
    _check(pairs, places, clicked)
    known, rows = np.unique(places, return_inverse=True)
    keys, group = np.unique(pairs.astype(np.int64) * len(known) + rows, return_inverse=True)
    clicks = np.bincount(group, clicked)
    pair, row = np.divmod(keys, len(known))
    return _Groups(pair, row, np.bincount(group), clicks, known, int(pairs.max()) + 1)


def _check(pairs: np.ndarray, places: np.ndarray, clicked: np.ndarray) -> None:
    lengths = {len(pairs), len(places), len(clicked)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"arrays must have one length above 0, not {sorted(lengths)}")
    if pairs.min() < 0 or places.min() < 1:
        raise ValueError("pairs count from 0 and places from 1")
    if not np.isin(clicked, (0, 1)).all():
        raise ValueError("clicked must be 0 or 1")
    if not clicked[places == places.min()].any():
        raise ValueError(
            f"nothing at place {places.min()} was clicked, in whose looks others are told: "
            "give a longer log"
        )


def _with_known_places(groups: _Groups) -> tuple[_Groups, np.ndarray]:
    """The groups at places that can be told from their items, and the other places."""
    known_K = _linked(groups)
    if known_K.sum() == 1 and len(known_K) > 1:
        raise ValueError(
            f"no clicked item was shown at place {groups.places[0]} and at another one: show items "
            "in another order for a share of the requests"
        )
    kept = known_K[groups.row]
    row = (np.cumsum(known_K) - 1)[groups.row]
    arrays = groups.pair[kept], row[kept], groups.shown[kept], groups.clicks[kept]
    return _Groups(*arrays, groups.places[known_K], groups.num_pairs), groups.places[~known_K]


def _linked(groups: _Groups) -> np.ndarray:
    """(K,) whether a chain of clicked pairs, each at several places, leads to the first place."""
    # scipy is an extra; lightgbm, without which a click model has no use, needs it as well.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    clicked = groups.clicks_of_pairs()[groups.pair] > 0
    size = groups.num_pairs + len(groups.places)
    edges = groups.pair[clicked], groups.num_pairs + groups.row[clicked]
    graph = coo_array((np.ones(clicked.sum()), edges), shape=(size, size))
    _, part = connected_components(graph, directed=False)
    part_of_place = part[groups.num_pairs :]
    return part_of_place == part_of_place[0]
