"""The live model and a candidate on the same held-out rows, each as it would serve them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import EvaluationConfig, GateConfig
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Ranked, Recommender
from recsys.eval.gate import CANDIDATE, LIVE, judge
from recsys.eval.held_out import ITEMS, check_lineage, read_held_out
from recsys.eval.ranking import Ranker, rank_all
from recsys.eval.row_scores import ROW_CUTOFF, ROWS, RowScores, score_segments
from recsys.eval.segments import segments
from recsys.schema import ITEM_ID, History

Model = tuple[Artifact, Artifact]
"""A checkpoint and the index made from it."""
GATE = "gate.json"


def judge_candidate(
    dataset: Artifact,
    live: Model,
    candidate: Model,
    evaluation: EvaluationConfig,
    gate: GateConfig,
    output: str,
) -> Artifact:
    """Write a `comparison` artifact with the verdict of the gate and the row scores behind it.

    Raises:
        ValueError: see `score_pair`.
    """
    scores = score_pair(dataset, live, candidate, evaluation)
    writer = ArtifactWriter(output, "comparison")
    writer.add_json(GATE, judge(scores, gate).to_json())
    writer.add_table(ROWS, scores.to_table())
    parts = {"dataset": dataset, "live": live[1], "candidate": candidate[1]}
    config = {"evaluation": evaluation, "gate": gate}
    return writer.publish(
        {name: section.model_dump(mode="json") for name, section in config.items()},
        {name: artifact.digest for name, artifact in parts.items()},
    )


def score_pair(
    dataset: Artifact, live: Model, candidate: Model, config: EvaluationConfig
) -> RowScores:
    """Metrics of the models `live` and `candidate` on the rows `config.split` of a dataset.

    The candidate was made from the dataset, the live model from one that it goes on from. Which
    items are head, tail or cold is told by the live model's training events: by the new ones a
    flood of false events would move the items that it harms out of their segment.

    Raises:
        ValueError: the candidate was not made from the dataset, the live model's items are not the
            first of the dataset's, or there are no rows.
    """
    check_lineage(dataset, *candidate)
    rankers: dict[str, Ranker] = {
        LIVE: _older_ranker(dataset, live, config.filter_seen),
        CANDIDATE: Recommender.load(*candidate, config.filter_seen),
    }
    counts = np.zeros(dataset.manifest.facts["num_items"], dtype=np.int64)
    before = Catalogue(live[1].read_table(ITEMS)).train_counts.numpy()
    counts[: len(before)] = before
    held_out = read_held_out(dataset, config, counts)
    found = list(segments(held_out))
    scores = RowScores({name: numbers for name, numbers, _ in found})
    for name, ranker in rankers.items():
        ranked = rank_all(ranker, held_out.histories, ROW_CUTOFF, config.batch_size)
        _, scores.values[name] = score_segments(ranked, found, [ROW_CUTOFF])
    return scores


def _older_ranker(dataset: Artifact, live: Model, filter_seen: bool) -> OlderRanker:
    known = live[1].read_table(ITEMS, [ITEM_ID])[ITEM_ID].to_pylist()
    now = dataset.read_table(ITEMS, [ITEM_ID])[ITEM_ID].to_pylist()
    if now[: len(known)] != known:
        raise ValueError(
            f"the items of {live[1].uri} are not the first of {dataset.uri}: prepare with "
            "--previous, so that items keep their indexes"
        )
    return OlderRanker(Recommender.load(*live, filter_seen), len(known))


class OlderRanker:
    """A ranker that knows the first items only, and overlooks others, as it does when it serves."""

    def __init__(self, ranker: Ranker, num_items: int) -> None:
        self._ranker, self._num_items = ranker, num_items

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """The best of its items for each history."""
        known = [history.take(history.item_indexes < self._num_items) for history in histories]
        excluded = [[item for item in some if item < self._num_items] for some in excluded]
        return self._ranker.rank(known, top_k, excluded)
