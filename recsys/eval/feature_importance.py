"""What moves the recommendations of many users: which events, and how far simple rules tell it.

Shapes: H events of a history, K recommended items, C candidates of a user, X pairs of user and
item, F features, N items, D embedding size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys import schema
from recsys.data.collate import histories_of
from recsys.engine.catalogue import ATTRIBUTES, NO_VALUE, Catalogue
from recsys.engine.recommender import Recommender
from recsys.eval.beyond_accuracy import VectorsOf
from recsys.eval.segments import OTHER, UNKNOWN
from recsys.schema import History

TOP_K = 10
OTHERS = 40
"""Random items of each user, beside the K recommended ones, that the rules are to tell apart."""
RECENCY = {1: "newest", 2: "second newest", 5: "3 to 5", 10: "6 to 10", np.inf: "older"}
"""Names of an event's place from the end, by the last place that has the name."""
FEATURES = (
    *("cosine_to_last", "category_share", "brand_share", "train_events", "seen_before"),
    "price_ratio",
)
MAX_DEPTH = 3
MIN_LEAF = 0.01
"""Least share of the pairs that a rule is about: smaller groups would be noise."""
HELD_OUT = 0.3
"""Share of the users that the rules are not fitted to, and judged on."""
MIN_USERS = 10
"""Users without whom there are no rules: their quality could not be told."""


@dataclass(frozen=True)
class Sample:
    """Some users' histories, none empty and as the model sees them, and what each is recommended.

    `moved` are the contributions (H, K) of a user's events to the K items of `recommended`.
    """

    histories: list[History]
    recommended: list[list[int]]
    moved: list[np.ndarray]


@dataclass(frozen=True)
class Surrogate:
    """A shallow decision tree that imitates the recommender, and how well it does.

    `auc` and `r2` are of `num_scored` users that the tree was not fitted to: the chance that a
    recommended item has a higher value than another, and the share of the variance explained. The
    value of a rule is the share of the pairs under it whose item is recommended; `importance` is
    by feature its share of what the rules explain.
    """

    rules: str
    importance: dict[str, float]
    auc: float
    r2: float
    num_fitted: int
    num_scored: int


def draw_sample(rows: pa.Table, recommender: Recommender, num_users: int, seed: int = 0) -> Sample:
    """At most one held-out row of each of `num_users` random users; empty histories are left out.

    Raises:
        ValueError: no row has a history.
    """
    _, first = np.unique(rows[schema.USER_ID].to_numpy(), return_index=True)
    histories = [h for h in histories_of(rows.take(pa.array(np.sort(first)))) if len(h)]
    if not histories:
        raise ValueError("no held-out row has a history, so there is nothing to explain")
    drawn = np.random.default_rng(seed).permutation(len(histories))[:num_users]
    chosen = [histories[at] for at in np.sort(drawn)]
    ranked = recommender.rank(chosen, [TOP_K] * len(chosen), [[]] * len(chosen))
    recommended = [found.item_indexes for found in ranked]
    pairs = zip(chosen, recommended, strict=True)
    moved = [recommender.explainer.leave_one_out(h, items)[1] for h, items in pairs]
    seen = [h.last(len(m)) for h, m in zip(chosen, moved, strict=True)]
    return Sample(seen, recommended, moved)


def contribution_shares(
    sample: Sample, catalogue: Catalogue, event_names: Sequence[str], min_users: int
) -> dict[str, dict[str, dict[str, float]]]:
    """By kind and group of events their share of all positive contributions, and of all events.

    A group that matters as much as any other has the same share of both. k-anonymity: a group with
    fewer than `min_users` users joins `other`.
    """
    found: dict[str, dict[str, Counter[str]]] = {}
    users = zip(sample.histories, sample.recommended, sample.moved, strict=True)
    for history, items, moved_HK in users:
        raised_HK = np.maximum(moved_HK, 0.0)
        for kind, labels_HK in _labels(history, items, catalogue, event_names).items():
            _count(found.setdefault(kind, {}), labels_HK, raised_HK)
    return {kind: _shares(_merged(groups, min_users)) for kind, groups in found.items()}


def _labels(
    history: History, items: Sequence[int], catalogue: Catalogue, event_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """(H, K) for each kind of group the names of the pairs' groups."""
    shape = (len(history), len(items))
    from_end_H = np.arange(len(history), 0, -1)
    recency_H = np.array([*RECENCY.values()])[np.searchsorted([*RECENCY], from_end_H)]
    events_H = np.array(event_names)[history.events]
    found = {"recency": recency_H, "event": events_H}
    labels = {kind: np.broadcast_to(of_H[:, None], shape) for kind, of_H in found.items()}
    for name in ATTRIBUTES:
        codes = catalogue.codes(name)
        events_H1, items_K = codes[history.item_indexes][:, None], codes[list(items)]
        same = np.where(events_H1 == items_K, "the same", "another")
        known = (events_H1 != NO_VALUE) & (items_K != NO_VALUE)
        labels[name] = np.where(known, same, UNKNOWN)
    return labels


def _count(groups: dict[str, Counter[str]], labels_HK: np.ndarray, raised_HK: np.ndarray) -> None:
    for label in np.unique(labels_HK):
        inside = labels_HK == label
        told = {"contribution": raised_HK[inside].sum(), "events": inside.sum(), "users": 1}
        groups.setdefault(str(label), Counter()).update(told)


def _merged(groups: dict[str, Counter[str]], min_users: int) -> dict[str, Counter[str]]:
    large = {label: told for label, told in groups.items() if told["users"] >= min_users}
    small = [told for told in groups.values() if told["users"] < min_users]
    return large | ({OTHER: sum(small, Counter())} if small else {})


def _shares(groups: dict[str, Counter[str]]) -> dict[str, dict[str, float]]:
    totals = sum(groups.values(), Counter())
    return {
        label: {n: float(told[n] / max(totals[n], 1e-12)) for n in ("contribution", "events")}
        for label, told in groups.items()
    }


def fit_surrogate(
    sample: Sample, catalogue: Catalogue, vectors_of: VectorsOf, seed: int = 0
) -> Surrogate | None:
    """Rules that tell recommended items from random ones; None for fewer than `MIN_USERS` users.

    `vectors_of` gives vectors of length 1, in which items are alike.
    """
    if len(sample.histories) < MIN_USERS:
        return None
    # scikit-learn takes a second to import, and no other stage needs it.
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.tree import DecisionTreeRegressor, export_text

    rng = np.random.default_rng(seed)
    told = [_pairs(sample, user, catalogue, vectors_of, rng) for user in range(len(sample.moved))]
    order = rng.permutation(len(told))
    cut = round(len(told) * HELD_OUT)
    (test_XF, test_X), (fit_XF, fit_X) = (
        _joined(told, part) for part in (order[:cut], order[cut:])
    )
    smallest = max(1, round(MIN_LEAF * len(fit_X)))
    tree = DecisionTreeRegressor(max_depth=MAX_DEPTH, min_samples_leaf=smallest, random_state=seed)
    values_X = tree.fit(fit_XF, fit_X).predict(test_XF)
    return Surrogate(
        rules=export_text(tree, feature_names=list(FEATURES), decimals=3),
        importance=dict(zip(FEATURES, tree.feature_importances_.tolist(), strict=True)),
        auc=float(roc_auc_score(test_X, values_X)),
        r2=float(r2_score(test_X, values_X)),
        num_fitted=len(told) - cut,
        num_scored=cut,
    )


def _joined(
    told: list[tuple[np.ndarray, np.ndarray]], users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = zip(*(told[user] for user in users), strict=True)
    return np.concatenate(features), np.concatenate(labels)


def _pairs(
    sample: Sample,
    user: int,
    catalogue: Catalogue,
    vectors_of: VectorsOf,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (C, F) of a user's recommended items and of random others, and which are which."""
    recommended = np.array(sample.recommended[user])
    left = np.setdiff1d(np.flatnonzero(~catalogue.removed.numpy()), recommended)
    others = rng.choice(left, size=min(OTHERS, len(left)), replace=False)
    items_C = np.concatenate([recommended, others])
    is_recommended_C = np.arange(len(items_C)) < len(recommended)
    return features_of(sample.histories[user], items_C, catalogue, vectors_of), is_recommended_C


def features_of(
    history: History, items_C: np.ndarray, catalogue: Catalogue, vectors_of: VectorsOf
) -> np.ndarray:
    """(C, F) the `FEATURES` of items for a history.

    - cosine_to_last: cosine of the vectors of the item and of the newest event's item.
    - category_share, brand_share: share of the history's events with the item's value, 0 where the
      item has none.
    - train_events: the item's training events; a tree does not care whether it is their logarithm.
    - seen_before: 1 where the item is in the history.
    - price_ratio: price through the median price of the history; 1 where unknown.
    """
    seen_H = history.item_indexes
    cosines_C = vectors_of(items_C) @ vectors_of(seen_H[-1:])[0]
    shares = [_value_share(catalogue.codes(name), seen_H, items_C) for name in ATTRIBUTES]
    counts_C = catalogue.train_counts.numpy()[items_C]
    prices = catalogue.prices
    known_H = prices[seen_H][~np.isnan(prices[seen_H])]
    usual = float(np.median(known_H)) if len(known_H) else 0.0
    ratios_C = prices[items_C] / usual if usual > 0 else np.ones(len(items_C))
    ratios_C = np.nan_to_num(ratios_C, nan=1.0)
    columns = [cosines_C, *shares, counts_C, np.isin(items_C, seen_H), ratios_C]
    return np.stack(columns, axis=1).astype(np.float64)


def _value_share(codes_N: np.ndarray, seen_H: np.ndarray, items_C: np.ndarray) -> np.ndarray:
    items_C1 = codes_N[items_C][:, None]
    return ((items_C1 == codes_N[seen_H]) & (items_C1 != NO_VALUE)).mean(axis=1)
