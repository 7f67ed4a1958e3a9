"""The gate: a loss that is shown stops a candidate, in one segment too; chance does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import GateConfig
from recsys.engine.recommender import Ranked
from recsys.eval.gate import CANDIDATE, LIVE, Verdict, judge
from recsys.eval.paired import OlderRanker
from recsys.eval.row_scores import RowScores
from recsys.schema import History

NUM_ROWS = 1_200
TAIL = np.arange(0, NUM_ROWS, 4)
"""A quarter of the rows."""
LIVE_VALUES = np.random.default_rng(0).random(NUM_ROWS).astype(np.float32)


def scores(candidate: np.ndarray, live: np.ndarray = LIVE_VALUES) -> RowScores:
    """Both models' values in every metric, over all rows, the tail's, and ten cold ones."""
    rows = {"all": np.arange(len(live)), "items:tail": TAIL, "items:cold": np.arange(10)}
    values = {
        name: {segment: np.tile(of_rows[numbers, None], 3) for segment, numbers in rows.items()}
        for name, of_rows in {LIVE: live, CANDIDATE: candidate}.items()
    }
    return RowScores(rows, values)


def noise(seed: int, sigma: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, NUM_ROWS).astype(np.float32)


def verdict(candidate: np.ndarray, **changes: object) -> Verdict:
    return judge(scores(candidate), GateConfig(**{"min_rows": 100, **changes}))


def test_an_improvement_passes():
    found = verdict(LIVE_VALUES + 0.02 + noise(1, 0.1))
    assert found.passed, found.reasons
    assert found.judged[0].candidate - found.judged[0].live == pytest.approx(0.02, abs=0.01)


def test_the_same_model_passes():
    assert verdict(LIVE_VALUES).passed


def test_a_poisoned_day_is_stopped_and_the_reason_has_the_numbers():
    found = verdict(LIVE_VALUES * 0.8)
    assert [judged.segment for judged in found.judged if judged.is_loss] == ["all", "items:tail"]
    told = found.reasons[0]
    live = LIVE_VALUES.mean()
    assert told.startswith(f"all: ndcg@10 {0.8 * live:.4f} against {live:.4f} live, ")
    assert "over 1200 rows" in told


def test_a_gain_over_all_rows_does_not_pay_for_the_tail():
    candidate = LIVE_VALUES + 0.1
    candidate[TAIL] -= 0.25
    found = verdict(candidate)
    assert found.judged[0].ahead.low > 0
    assert [reason.partition(":nd")[0].split(": ")[0] for reason in found.reasons] == ["items:tail"]


def test_noise_stops_about_as_few_as_the_level_says():
    stopped = sum(not verdict(LIVE_VALUES + noise(seed)).passed for seed in range(30))
    assert stopped <= 4  # 1.5 are expected of 30 at a level of 95 %


def test_a_loss_that_is_let_through_stops_nobody():
    candidate = LIVE_VALUES * 0.97
    assert not verdict(candidate).passed
    assert verdict(candidate, max_loss=0.04).passed
    assert not verdict(candidate, max_loss=0.02).passed


def test_few_rows_are_not_judged_and_are_named():
    candidate = LIVE_VALUES.copy()
    candidate[:10] = 0
    found = verdict(candidate, max_loss=0.05)
    assert found.passed
    assert found.not_judged == {"items:cold": 10}


def test_a_day_with_too_few_rows_promotes_nothing():
    found = verdict(LIVE_VALUES + 1, min_rows=NUM_ROWS + 1)
    assert not found.passed
    assert "1200 rows are too few" in found.reasons[0]
    assert found.judged == []


def test_the_more_segments_the_surer_a_loss_must_be():
    rows = np.arange(NUM_ROWS)
    candidate = LIVE_VALUES + noise(3, 0.5)
    candidate[TAIL] -= candidate[TAIL].mean() - LIVE_VALUES[TAIL].mean() + 0.07
    parts = {"all": rows, "items:tail": TAIL}
    many = parts | {f"history:{n}": rows for n in range(24)}
    found = {}
    for name, of in {"few": parts, "many": many}.items():
        values = {
            model: {s: np.tile(each[numbers, None], 3) for s, numbers in of.items()}
            for model, each in {LIVE: LIVE_VALUES, CANDIDATE: candidate}.items()
        }
        config = GateConfig(min_rows=100, max_loss=1.0)
        found[name] = judge(RowScores(of, values), config).passed
    assert found == {"few": False, "many": True}


def test_the_metric_of_the_config_decides():
    given = scores(LIVE_VALUES)
    given.values[CANDIDATE]["all"][:, 2] -= 0.5
    assert judge(given, GateConfig(min_rows=100)).passed
    found = judge(given, GateConfig(min_rows=100, metric="mrr@10"))
    assert found.reasons[0].startswith("all: mrr@10")


def test_a_verdict_is_json_with_the_numbers():
    told = verdict(LIVE_VALUES * 0.8).to_json()
    assert told["passed"] is False
    assert told["judged"][0]["ahead"]["high"] < 0
    assert verdict(LIVE_VALUES).to_json()["passed"] is True


def test_scores_of_others_are_refused():
    given = scores(LIVE_VALUES)
    given.values["model"] = given.values.pop(CANDIDATE)
    with pytest.raises(ValueError, match="candidate"):
        judge(given, GateConfig())


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        verdict(np.full(NUM_ROWS, np.nan, dtype=np.float32))


class Recorder:
    """A ranker that keeps what it was asked."""

    def rank(
        self,
        histories: Sequence[History],
        top_k: Sequence[int],
        excluded: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        self.asked = [h.item_indexes.tolist() for h in histories], [*excluded]
        return [Ranked([], [], "model") for _ in histories]


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.integers(0, 20), max_size=12), num_items=st.integers(1, 20))
def test_an_older_model_reads_of_a_history_what_it_knows_in_its_order(items, num_items):
    recorder = Recorder()
    asked = History.of_items(items)
    OlderRanker(recorder, num_items).rank([asked], [10], [items])
    known = [item for item in items if item < num_items]
    assert recorder.asked == ([known], [known])
