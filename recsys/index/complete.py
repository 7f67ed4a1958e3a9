"""Missing categories and brands, filled from the nearest items that have one.

Near is by the language model's own vectors of title and description: a text that named the
attribute would give masked answers away, and items without it would read differently.

Shapes: N items, Q items asked about, L labelled items, K neighbours, E width of the language model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from recsys import schema
from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig, ModelConfig, PrepareConfig
from recsys.data.items import start_tokenizing
from recsys.index.embed import embed_tokens
from recsys.models.backbone import fit_whitening

ATTRIBUTES = ("category", "brand")
FIELDS = ("title", "description")
ATTRIBUTES_FILE = "attributes.parquet"
NUM_NEIGHBOURS = 10
MIN_LABELLED = 20
MAX_ASKED = 20_000
"""Labelled items asked about at most to choose a threshold: two points of a percent are enough."""
CHUNK_VALUES = 1 << 26
"""Similarities held at once: 256 MiB."""
ONE_SIDED_95 = 1.645
"""Standard normal quantile of 0.95."""


@dataclass(frozen=True)
class Masked:
    """How well known values that were hidden are found again.

    `accuracy` is that of all answers; `coverage` is the share of the answers that are sure enough
    to be filled in, `precision` the share of those that are right: None where there are none.
    """

    num_values: int
    accuracy: float
    precision: float | None
    coverage: float


@dataclass(frozen=True)
class Plan:
    """How an attribute is filled: whether vectors are whitened, and from which confidence on.

    `threshold` is None where no confidence is precise enough; nothing is filled then. `masked` was
    measured on a tenth of the known values, which had no part in choosing the plan.
    """

    whiten: bool
    threshold: float | None
    masked: Masked


def complete(
    dataset: Artifact, model: ModelConfig, index: IndexConfig, min_precision: float, output: str
) -> Artifact:
    """Write the `attributes` of a dataset's items: what was given, and what could be filled."""
    items = dataset.read_table("items.parquet")
    told = items.select([n for n in (schema.ITEM_INDEX, *FIELDS) if n in items.column_names])
    prepared = PrepareConfig.model_validate(dataset.manifest.config["prepare"])
    fields = prepared.model_copy(update={"text_fields": FIELDS})
    tokens = pa.concat_tables(ray.get(start_tokenizing(told, fields, model.backbone)))
    table, plans = complete_items(items, embed_tokens(tokens, model, index), min_precision)
    writer = ArtifactWriter(output, "attributes")
    writer.add_table(ATTRIBUTES_FILE, table)
    return writer.publish(
        {"model": model.model_dump(mode="json"), "min_precision": min_precision},
        {"dataset": dataset.digest},
        {name: _facts(table, name, plan) for name, plan in plans.items()},
    )


def _facts(table: pa.Table, name: str, plan: Plan | None) -> dict[str, Any]:
    sources = table[f"{name}_source"].to_pylist()
    counts = {source: sources.count(source) for source in ("given", "filled")}
    return counts | {"missing": sources.count(None), "plan": asdict(plan) if plan else None}


def complete_items(
    items: pa.Table, vectors_NE: torch.Tensor, min_precision: float
) -> tuple[pa.Table, dict[str, Plan | None]]:
    """Each item's attributes with source and confidence, and the plan of each attribute.

    The source is `given`, `filled` or null; the confidence of what was given is null. A given value
    is never changed, and an item without title and description is not filled. There is no plan
    where fewer than `MIN_LABELLED` values are known.
    """
    readable_N = np.logical_or.reduce([_known(_values(items, name)) for name in FIELDS])
    near = {False: vectors_NE, True: whitened(vectors_NE, readable_N)}
    columns, plans = {schema.ITEM_ID: items[schema.ITEM_ID]}, {}
    for name in ATTRIBUTES:
        values_N = _values(items, name)
        filled, plans[name] = _fill(values_N, readable_N, near, min_precision)
        columns |= {f"{name}{suffix}": column for suffix, column in filled.items()}
    return pa.table(columns), plans


def _values(items: pa.Table, name: str) -> np.ndarray:
    """(N,) texts as objects, None where there are none."""
    found = items[name].to_pylist() if name in items.column_names else [None] * len(items)
    return np.array([*found, None], dtype=object)[:-1]


def _known(values_N: np.ndarray) -> np.ndarray:
    return values_N.astype(bool)


def whitened(vectors_NE: torch.Tensor, rows_N: np.ndarray) -> torch.Tensor:
    """(N, E) vectors whitened over `rows_N`, as they are where these are too few.

    No label is seen, so that masked items may be among them.
    """
    sample = vectors_NE[torch.as_tensor(rows_N)]
    if len(sample) < MIN_LABELLED:
        return vectors_NE
    mean_E, whitening_EE = fit_whitening(sample)
    return (vectors_NE - mean_E) @ whitening_EE


def _fill(
    values_N: np.ndarray,
    readable_N: np.ndarray,
    near: dict[bool, torch.Tensor],
    min_precision: float,
) -> tuple[dict[str, pa.Array], Plan | None]:
    """Columns of one attribute by the end of their names, and the plan."""
    known_N = _known(values_N)
    nothing_N = np.full(len(values_N), None, dtype=object)
    values_N, sources_N = np.where(known_N, values_N, nothing_N), nothing_N
    sources_N[known_N] = "given"
    confidences_N = np.full(len(values_N), np.nan, dtype=np.float32)
    labelled, asked = np.flatnonzero(known_N & readable_N), np.flatnonzero(~known_N & readable_N)
    names, numbers = np.unique(values_N[labelled].astype(str), return_inverse=True)
    labels_L = torch.as_tensor(numbers)
    plan = make_plan({way: v[labelled] for way, v in near.items()}, labels_L, min_precision)
    if plan is not None and plan.threshold is not None and len(asked):
        vectors_NE = near[plan.whiten]
        answers_Q, sure_Q = answer(vectors_NE[asked], vectors_NE[labelled], labels_L)
        fit_Q = (sure_Q >= plan.threshold).numpy()
        rows = asked[fit_Q]
        values_N[rows], sources_N[rows] = names[answers_Q.numpy()[fit_Q]], "filled"
        confidences_N[rows] = sure_Q.numpy()[fit_Q]
    return {
        "": pa.array(values_N, pa.large_string()),
        "_source": pa.array(sources_N, pa.string()),
        "_confidence": pa.array(confidences_N, pa.float32(), from_pandas=True),
    }, plan


def make_plan(
    near: dict[bool, torch.Tensor], labels_L: torch.Tensor, min_precision: float
) -> Plan | None:
    """Choose whitening and threshold on nine tenths of the labelled items; measure on the tenth.

    `near` holds the plain and the whitened (L, E) vectors. Each of the nine tenths, or of
    `MAX_ASKED` of them, is asked about with its own label left out. The vectors that fill more at
    `min_precision` are taken, or else those with the more accurate answers.
    """
    if len(labels_L) < MIN_LABELLED:
        return None
    masked, rest = masked_tenth(len(labels_L))
    rated: list[tuple[Masked, Plan]] = []
    for whiten, vectors_LE in near.items():
        asked, own = vectors_LE[rest], torch.arange(len(rest))[:MAX_ASKED]
        answers = answer(asked[own], asked, labels_L[rest], own)
        threshold = find_threshold(answers[1], answers[0] == labels_L[rest][own], min_precision)
        chosen_on = measure(*answers, labels_L[rest][own], threshold)
        answers = answer(vectors_LE[masked], asked, labels_L[rest])
        plan = Plan(whiten, threshold, measure(*answers, labels_L[masked], threshold))
        rated.append((chosen_on, plan))
    return max(rated, key=lambda pair: (pair[0].coverage, pair[0].accuracy))[1]


def masked_tenth(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of `num` labelled items that are masked, and the others; both in random order."""
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    return order[: num // 10][:MAX_ASKED], order[num // 10 :]


def answer(
    queries_QE: torch.Tensor,
    labelled_LE: torch.Tensor,
    labels_L: torch.Tensor,
    own_Q: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Q,) the label that each query's nearest labelled items vote for, and its confidence."""
    similarities_QK, rows_QK = nearest(queries_QE, labelled_LE, NUM_NEIGHBOURS, own_Q)
    return vote(similarities_QK, labels_L[rows_QK])


def nearest(
    queries_QE: torch.Tensor,
    labelled_LE: torch.Tensor,
    num: int,
    own_Q: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine similarities and rows, (Q, K) each, of the K = min(num, L) nearest, best first.

    A query that is itself the labelled item `own_Q` is not found, or with similarity -inf.
    """
    labelled_LE = torch.nn.functional.normalize(labelled_LE, dim=1)
    queries_QE = torch.nn.functional.normalize(queries_QE, dim=1)
    found = []
    for rows in torch.arange(len(queries_QE)).split(max(1, CHUNK_VALUES // len(labelled_LE))):
        similarities = queries_QE[rows] @ labelled_LE.T
        if own_Q is not None:
            similarities[torch.arange(len(rows)), own_Q[rows]] = -torch.inf
        found.append(similarities.topk(min(num, len(labelled_LE)), dim=1))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def vote(
    similarities_QK: torch.Tensor, labels_QK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Q,) labels with the largest sum of similarities, and confidences from 0 to 1.

    The confidence is the label's share of that sum, times the similarity of its nearest item: ten
    far neighbours may agree and know nothing. Of equal sums the label of the nearer item wins.
    """
    weights_QK = similarities_QK.clamp_min(0)
    same_QKK = labels_QK[:, :, None] == labels_QK[:, None, :]
    sums_QK = (same_QKK * weights_QK[:, None, :]).sum(2)
    best_Q = sums_QK.argmax(1)
    queries_Q = torch.arange(len(best_Q))
    share_Q = sums_QK[queries_Q, best_Q] / weights_QK.sum(1).clamp_min(1e-9)
    closest_Q = (weights_QK * same_QKK[queries_Q, best_Q]).amax(1)
    return labels_QK[queries_Q, best_Q], (share_Q * closest_Q).clamp_max(1)


def find_threshold(
    confidences_Q: torch.Tensor, right_Q: torch.Tensor, min_precision: float
) -> float | None:
    """The lowest confidence from which on answers are right at a rate of `min_precision`.

    The rate is certain at 95%, by the lower end of its interval, so that a few lucky answers are
    not enough. None where no confidence is high enough.
    """
    sorted_Q, order_Q = confidences_Q.sort(descending=True, stable=True)
    counts_Q = torch.arange(1, len(sorted_Q) + 1)
    bounds_Q = lower_bound(right_Q[order_Q].cumsum(0), counts_Q)
    ends_Q = torch.ones(len(sorted_Q), dtype=torch.bool)  # a threshold takes all equal confidences
    ends_Q[:-1] = sorted_Q[:-1] > sorted_Q[1:]
    fitting = sorted_Q[(bounds_Q >= min_precision) & ends_Q]
    return float(fitting[-1]) if len(fitting) else None


def lower_bound(right: torch.Tensor, num: torch.Tensor) -> torch.Tensor:
    """The rate that `right` of `num` trials exceeds with a confidence of 95%.

    The lower end of Wilson's score interval (Wilson 1927, JASA 22:209).
    """
    z2 = ONE_SIDED_95**2
    rate, num = right.double() / num, num.double()
    spread = (rate * (1 - rate) / num + z2 / (4 * num**2)).sqrt()
    return (rate + z2 / (2 * num) - math.sqrt(z2) * spread).clamp_min(0) / (1 + z2 / num)


def measure(
    answers_Q: torch.Tensor,
    confidences_Q: torch.Tensor,
    labels_Q: torch.Tensor,
    threshold: float | None,
) -> Masked:
    """Compare answers with the labels that were masked."""
    right_Q = answers_Q == labels_Q
    sure_Q = confidences_Q >= (torch.inf if threshold is None else threshold)
    precision = float(right_Q[sure_Q].double().mean()) if sure_Q.any() else None
    coverage = float(sure_Q.double().mean())
    return Masked(len(labels_Q), float(right_Q.double().mean()), precision, coverage)
