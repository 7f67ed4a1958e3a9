"""What users take next after each item: a memory of transitions beside the vectors.

Vectors generalise and blur: they rank what is like a history first. Which item in particular
follows another is remembered here, as sequential rules (Ludewig & Jannach 2018, "Evaluation of
session-based recommendation algorithms", UMUAI 28): whenever j comes d events after
i, the pair (i, j) gains 1 / d. An item that training never saw neither gains nor loses by it. And
what a user took before, the user takes again: the personal frequency of next-basket recommenders
(Hu et al. 2020, "Modeling personalized item frequency information", SIGIR). Items of similar text
join the rules (`recsys/index/alike.py`), where few or no events tell what follows what.

Shapes: N items, E remembered pairs, B histories, M items with a bonus for any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load, save

from recsys import schema
from recsys.metrics import NO_ITEM, ranking_metrics
from recsys.schema import History

TRANSITIONS = "transitions.safetensors"
WINDOW = 10
"""Events within which something comes after something. Three would do where order matters
(Industrial: the same NDCG@10 on validation), ten are 3% better where people buy baskets (UCI)."""
WHOLE = 2520
"""What a pair one event apart counts: in whole numbers, so that sums depend on no order."""
FROM_POWER, TO_POWER = 0.7, 0.3
"""A pair's sum is divided by these powers of the items' training events: between a probability
(1, 0), which favours the head, and a cosine (.5, .5), which favours the tail."""
WEIGHTS = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2)
DECAYS = (0.7, 0.9, 1.0)
"""What validation tries. Where order matters the newest events count most (Industrial, .7); of a
wholesaler's customers all do (UCI: NDCG@10 .153 with .7, .211 with 1)."""
AGAIN = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""What validation tries for an item's every event in the history, and does best with .4 or more
where customers order again (UCI: NDCG@10 .154 -> .300 without transitions) and with 0 in a shop
where nobody does. Events count alike: a half-life of 120 days was worth less (.296), one of 15
.223."""
PRIOR_WINDOWS = 20
"""Windows of the average item that an item's own are added to, before its return is believed."""
ALIKE = (0.02, 0.05, 0.1, 0.2)
"""What validation tries for the strength of a likeness of 1, among the counted strengths."""
SCORES_AT_ONCE = 1 << 25
"""128 MiB."""
FROM, TO, SUM = "from", "to", "sum"
HELD, RETURNED = "held", "returned"


@dataclass(frozen=True, slots=True)
class Transitions:
    """Row i of a sparse (N, N) matrix is what follows item i: `items` and `strengths` (E,) from
    `starts`[i] to `starts`[i + 1]. A strength is worth `weight` times itself in cosine after the
    newest event of a history, and `decay` times as much with each event before. An item gains
    `again` times its `returns` for each of its own events; (N + 1,) with a last entry for items
    that came later. Only the newest `reach` events of a history count. `alike` tells what a cosine
    of 1 between texts was worth among the strengths."""

    starts: np.ndarray
    items: np.ndarray
    strengths: np.ndarray
    weight: float = 1.0
    decay: float = 1.0
    again: float = 0.0
    reach: int = 50
    returns: np.ndarray = field(default_factory=lambda: np.ones(1, np.float32))
    alike: float = 0.0

    def bonuses(self, histories: Sequence[History]) -> tuple[torch.Tensor, torch.Tensor]:
        """The items that follow each history and what each adds to its score, (B, M) each.

        Rows are filled up with the item `NO_ITEM` and a bonus of 0.
        """
        rows, items, gains = self._pairs(histories)
        size = len(self.starts) - 1
        keys, places = np.unique(rows * size + items, return_inverse=True)
        sums = np.bincount(places, weights=gains, minlength=len(keys))
        rows, items = np.divmod(keys, max(1, size))
        counts = np.bincount(rows, minlength=len(histories))
        filled = np.arange(counts.max(initial=0)) < counts[:, None]
        padded_items = np.full(filled.shape, NO_ITEM)
        padded_sums = np.zeros(filled.shape, dtype=np.float32)
        padded_items[filled], padded_sums[filled] = items, sums
        return torch.from_numpy(padded_items), torch.from_numpy(padded_sums)

    def _pairs(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, item and gain of everything that follows an event, and of each event itself."""
        lists = [history.item_indexes[-self.reach :] for history in histories]
        lengths = np.array([len(items) for items in lists], dtype=np.int64)
        events = np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64)
        rows = np.repeat(np.arange(len(histories)), lengths)
        own = self.again * self.returns[np.minimum(events, len(self.returns) - 1)]
        if not self.weight:
            return rows, events, own
        ages = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(events))
        spans = self.starts[events + 1] - self.starts[events]
        first = np.repeat(self.starts[events] - (np.cumsum(spans) - spans), spans)
        found = first + np.arange(spans.sum())
        gains = self.weight * np.repeat(self.decay**ages, spans) * self.strengths[found]
        following = np.repeat(rows, spans), self.items[found].astype(np.int64), gains
        if not self.again:
            return following
        both = zip(following, (rows, events, own), strict=True)
        rows, items, gains = (np.concatenate(columns) for columns in both)
        return rows, items, gains


def pairs_of(rows: pa.Table) -> pa.Table:
    """(from, to, sum) of the pairs within training windows, each pair once.

    Consecutive windows of a user share one event, so that none of the pairs one event apart is
    lost or counted twice; those further apart are lost where a window ends between them.
    """
    lists = rows[schema.ITEM_INDEXES].combine_chunks()
    items = lists.flatten().to_numpy().astype(np.int64)
    windows = lists.value_parent_indices().to_numpy()
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for distance in range(1, WINDOW + 1):
        same = windows[:-distance] == windows[distance:]
        before, after = items[:-distance][same], items[distance:][same]
        found.append((before, after, np.full(len(before), WHOLE // distance)))
    before, after, gains = (np.concatenate(columns) for columns in zip(*found, strict=True))
    table = pa.table({FROM: before, TO: after, SUM: gains})
    return table.group_by([FROM, TO]).aggregate([(SUM, "sum")]).rename_columns([FROM, TO, SUM])


def strongest(pairs: pa.Table, events_N: np.ndarray, kept: int) -> pa.Table:
    """Of pairs from several files, the `kept` strongest for each item that they start at.

    `events_N` are the items' training events, at least 1. Of equal strengths the item of the
    lower index stays.
    """
    summed = pairs.group_by([FROM, TO]).aggregate([(SUM, "sum")])
    before, after = summed[FROM].to_numpy(), summed[TO].to_numpy()
    sums = summed[f"{SUM}_sum"].to_numpy()
    strengths = sums / WHOLE / (events_N[before] ** FROM_POWER * events_N[after] ** TO_POWER)
    return _first(before, after, strengths, kept)


def _first(before: np.ndarray, after: np.ndarray, strengths: np.ndarray, kept: int) -> pa.Table:
    """The `kept` strongest rows for each value of `before`; of equal ones the lower `after`."""
    order = np.lexsort((after, -strengths, before))
    before, after, strengths = before[order], after[order], strengths[order]
    first = np.arange(len(before)) - np.searchsorted(before, before) < kept
    return pa.table({FROM: before[first], TO: after[first], SUM: strengths[first]})


def returns_of(rows: pa.Table) -> pa.Table:
    """(from, held, returned): training windows that hold an item, and those with it twice."""
    lists = rows[schema.ITEM_INDEXES].combine_chunks()
    items = lists.flatten().to_numpy().astype(np.int64)
    windows = lists.value_parent_indices().to_numpy()
    found, times = np.unique(np.stack([windows, items]), axis=1, return_counts=True)
    names, places = np.unique(found[1], return_inverse=True)
    returned = np.bincount(places, times > 1, len(names)).astype(np.int64)
    return pa.table(
        {FROM: names, HELD: np.bincount(places, minlength=len(names)), RETURNED: returned}
    )


def return_strengths(counts: pa.Table, num_items: int) -> np.ndarray:
    """(N + 1,) how readily each item is taken again, 1 for the average, for unknown items as well.

    With the share r of an item's windows that hold it again, moved to the average share m by
    `PRIOR_WINDOWS`, it is sqrt(r / m): UCI's validation NDCG@10 rises from .2499 to .2585, and to
    .2582 with r / m.
    """
    held, returned = np.zeros(num_items + 1), np.zeros(num_items + 1)
    np.add.at(held, counts[FROM].to_numpy(), counts[HELD].to_numpy())
    np.add.at(returned, counts[FROM].to_numpy(), counts[RETURNED].to_numpy())
    if not returned.any():
        return np.ones(num_items + 1, np.float32)
    mean = returned.sum() / held.sum()
    shares = (returned + PRIOR_WINDOWS * mean) / (held + PRIOR_WINDOWS)
    return np.sqrt(shares / mean).astype(np.float32)


def joined(transitions: Transitions, pairs: pa.Table, share: float, kept: int) -> Transitions:
    """With `share` times the strengths of other pairs (from, to, sum) added; each item keeps its
    `kept` strongest of both.

    No item has more rules than counting alone would leave it, and nothing is lost by that: with
    the 50 strongest and with all of both validation NDCG@10 is .1313 and .1312 (Industrial), .0765
    and .0763 (Beauty), .1666 and .1656 (generated shop).
    """
    num_items = len(transitions.starts) - 1
    counted = np.repeat(np.arange(num_items), np.diff(transitions.starts))
    before = np.concatenate([counted, pairs[FROM].to_numpy()])
    after = np.concatenate([transitions.items, pairs[TO].to_numpy()])
    added = np.concatenate([transitions.strengths, share * pairs[SUM].to_numpy()])
    keys, places = np.unique(before * num_items + after, return_inverse=True)
    table = _first(*np.divmod(keys, num_items), np.bincount(places, added), kept)
    found = assemble(table, num_items)
    return replace(
        transitions,
        starts=found.starts,
        items=found.items,
        strengths=found.strengths,
        alike=share,
    )


def assemble(table: pa.Table, num_items: int) -> Transitions:
    """The transitions of a table as `strongest` makes it, of all items."""
    table = table.sort_by(FROM).combine_chunks()
    starts = np.searchsorted(table[FROM].to_numpy(), np.arange(num_items + 1))
    return Transitions(
        starts.astype(np.int64),
        table[TO].to_numpy().astype(np.int32),
        table[SUM].to_numpy().astype(np.float32),
    )


def save_transitions(transitions: Transitions) -> bytes:
    """The transitions as safetensors bytes."""
    return save(
        {
            "starts": torch.from_numpy(transitions.starts),
            "items": torch.from_numpy(transitions.items),
            "strengths": torch.from_numpy(transitions.strengths),
            "returns": torch.from_numpy(transitions.returns),
            "alike": torch.tensor(transitions.alike, dtype=torch.float64),
            "chosen": torch.tensor(
                [transitions.weight, transitions.decay, transitions.again, transitions.reach],
                dtype=torch.float64,
            ),
        }
    )


def load_transitions(content: bytes) -> Transitions:
    """The transitions that `save_transitions` wrote."""
    tensors = load(content)
    weight, decay, again, reach = tensors.pop("chosen").tolist()
    alike = float(tensors.pop("alike", 0.0))
    tables = {name: tensor.numpy() for name, tensor in tensors.items()}
    chosen = {"weight": weight, "decay": decay, "again": again, "alike": alike}
    return Transitions(**tables, **chosen, reach=int(reach))


def choose(
    transitions: Transitions,
    users_BD: torch.Tensor,
    vectors_ND: torch.Tensor,
    histories: Sequence[History],
    targets: Sequence[np.ndarray],
    alike: pa.Table | None = None,
    kept: int = 50,
) -> Transitions:
    """With what has the highest mean NDCG@10 on held-out rows; of equal ones the first.

    First `again` is chosen alone, then weight and decay beside it, then what pairs of items that
    are `alike` add, with every weight: 45 rankings in place of thousands. `users_BD` are the
    vectors of the histories, none of which is empty.
    """
    rows = users_BD, vectors_ND, histories, targets
    alone = [replace(transitions, weight=0.0, again=again) for again in AGAIN]
    best, _ = _best_of(alone, *rows)
    beside = [replace(best, weight=w, decay=decay) for decay in DECAYS for w in WEIGHTS]
    plain, gain = _best_of(beside, *rows)
    best = plain
    for share in ALIKE if alike is not None else ():
        both = joined(plain, alike, share, kept)
        found, found_gain = _best_of([replace(both, weight=w) for w in WEIGHTS[1:]], *rows)
        if found_gain > gain:
            best, gain = found, found_gain
    return best


def _best_of(
    choices: list[Transitions],
    users_BD: torch.Tensor,
    vectors_ND: torch.Tensor,
    histories: Sequence[History],
    targets: Sequence[np.ndarray],
) -> tuple[Transitions, float]:
    """The choice with the highest sum of NDCG@10, and that sum."""
    gains = np.zeros(len(choices))
    size = max(1, SCORES_AT_ONCE // len(vectors_ND))
    for start in range(0, len(histories), size):
        some = slice(start, start + size)
        scores_BN = users_BD[some] @ vectors_ND.T
        for place, choice in enumerate(choices):
            bonuses_BN = _dense(*choice.bonuses(histories[some]), len(vectors_ND))
            gains[place] += _ndcg(scores_BN + bonuses_BN, targets[some])
    return choices[int(gains.argmax())], float(gains.max())


def _dense(items_BM: torch.Tensor, bonuses_BM: torch.Tensor, num_items: int) -> torch.Tensor:
    # What fills a row adds 0 to the first item.
    dense_BN = torch.zeros(len(items_BM), num_items)
    return dense_BN.scatter_add_(1, items_BM.clamp_min(0), bonuses_BM)


def _ndcg(scores_BN: torch.Tensor, targets: Sequence[np.ndarray]) -> float:
    """Sum of the rows' NDCG@10."""
    ranked = scores_BN.topk(min(10, scores_BN.shape[1])).indices.numpy()
    return float(ranking_metrics(ranked, targets, [10])["ndcg@10"].sum())
