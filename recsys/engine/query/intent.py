"""What kind of query it is: multinomial logistic regression on what was found in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self, get_args

import numpy as np
import torch
import torch.nn.functional as F

from recsys.engine.query.lexicon import Lexicon
from recsys.engine.query.query_words import EMPTY_KEYS, EXPLORING, EXPLORING_CHINESE
from recsys.engine.query.titles import TitleMatch
from recsys.engine.query.understanding import Intent, Slot
from recsys.engine.query.units import Unit

INTENTS: tuple[Intent, ...] = get_args(Intent)
FEATURES = (
    "category",
    "category_sureness",
    "category_share",
    "brand",
    "values",
    "price",
    "denied",
    "recipient",
    "explores",
    "explores_without_category",
    "other_known_share",
    "other_known",
    "unknown_share",
    "model_number",
    "length",
    "title_asked",
    "title_covered",
    "title_both",
    "title_unique",
    "nothing",
)
"""What is looked at, in this order; all between 0 and 1."""
FORMAT = 1
_HELD_OUT_EVERY = 5
_DECAY = 1e-4
"""Weight of the squared coefficients in the mean loss."""
_STEPS = 60


def intent_features(
    folded: str, units: Sequence[Unit], slots: Sequence[Slot], title: TitleMatch, lexicon: Lexicon
) -> np.ndarray:
    """(len(FEATURES),) float32 of one query."""
    wanted = [slot for slot in slots if not slot.negated]
    kinds = [slot.kind for slot in wanted]
    category = next((slot for slot in wanted if slot.kind == "category"), None)
    told = [u for u in units if u.key not in EMPTY_KEYS]
    free = [u for u in told if not any(_within(u, slot) for slot in slots)]
    known = sum(lexicon.is_known(unit) for unit in free)
    explores = _explores(folded, units)
    number = sum(len(told) > 0 and _is_model_number(unit.word) for unit in free)
    values = [
        category is not None,
        category.confidence if category else 0.0,
        sum(_within(u, category) for u in told) / max(len(told), 1) if category else 0.0,
        "brand" in kinds,
        min(sum(kind in ("colour", "size", "attribute") for kind in kinds), 2) / 2,
        "price" in kinds,
        any(slot.negated for slot in slots),
        "recipient" in kinds,
        explores,
        explores and category is None,
        known / max(len(told), 1),
        known > 0,
        (len(free) - known) / max(len(told), 1),
        number > 0,
        min(len(told), 12) / 12,
        title.asked,
        title.covered,
        title.asked * title.covered,
        title.asked * title.covered / max(title.matches, 1),
        not told,
    ]
    return np.array(values, dtype=np.float32)


def _within(unit: Unit, slot: Slot) -> bool:
    return slot.start is not None and slot.end is not None and slot.start <= unit.start < slot.end


def _explores(folded: str, units: Sequence[Unit]) -> bool:
    if any(unit.word in EXPLORING for unit in units):
        return True
    return any(word in folded for word in EXPLORING_CHINESE)


def _is_model_number(word: str) -> bool:
    return any(c.isdigit() for c in word) and any(c.isalpha() for c in word)


class IntentClassifier:
    """Probabilities of the intents."""

    def __init__(self, weights: np.ndarray) -> None:
        """`weights`: (len(FEATURES) + 1, len(INTENTS)), the last row the bias."""
        allowed = (len(FEATURES) + 1, len(INTENTS))
        if weights.shape != allowed or not np.isfinite(weights).all():
            raise ValueError(
                f"the weights of a query classifier are {allowed} finite numbers, not "
                f"{weights.shape}: fit it again"
            )
        self._weights = weights

    @classmethod
    def fit(cls, features_NF: np.ndarray, intents: Sequence[Intent]) -> Self:
        """Fit by L-BFGS, then calibrate by one temperature on every fifth query, held out.

        Temperature scaling as in Guo et al., 2017, https://arxiv.org/abs/1706.04599. Same input,
        same classifier.
        """
        inputs_NF = torch.as_tensor(_with_bias(features_NF), dtype=torch.float64)
        labels_N = torch.tensor([INTENTS.index(intent) for intent in intents])
        held_out = torch.arange(len(labels_N)) % _HELD_OUT_EVERY == 0
        weights = torch.zeros(len(FEATURES) + 1, len(INTENTS), dtype=torch.float64)
        decay = _DECAY

        def loss(w: torch.Tensor) -> torch.Tensor:
            fit = F.cross_entropy(inputs_NF[~held_out] @ w, labels_N[~held_out])
            return fit + decay * w[:-1].square().sum()

        weights = _minimise(weights, loss)
        logits = inputs_NF[held_out] @ weights
        cold = torch.zeros(1, dtype=torch.float64)
        cold = _minimise(cold, lambda c: F.cross_entropy(logits * c.exp(), labels_N[held_out]))
        return cls((weights * cold.exp()).numpy())

    def probabilities(self, features_F: np.ndarray) -> np.ndarray:
        """(len(INTENTS),) probabilities of one query."""
        logits = _with_bias(features_F[None])[0] @ self._weights
        shares = np.exp(logits - logits.max())
        return shares / shares.sum()

    def to_bytes(self) -> bytes:
        """As JSON."""
        told = {"format": FORMAT, "features": FEATURES, "intents": INTENTS}
        return json.dumps(told | {"weights": self._weights.round(6).tolist()}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            ValueError: it is of another version, or was not written by it.
        """
        told = json.loads(data)
        wanted = [FORMAT, list(FEATURES), list(INTENTS)]
        given = [told.get(key) for key in ("format", "features", "intents")]
        if given != wanted:
            raise ValueError(
                f"the query classifier is of format {given[0]} and its features or intents differ "
                f"from this version's, format {FORMAT}: run the index stage again"
            )
        return cls(np.array(told["weights"], dtype=np.float64))


def _with_bias(features_NF: np.ndarray) -> np.ndarray:
    return np.hstack([features_NF, np.ones((len(features_NF), 1))])


def _minimise(start: torch.Tensor, loss) -> torch.Tensor:
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    optimizer.step(closure)
    return weights.detach()
