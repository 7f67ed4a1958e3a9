"""The memory of what follows what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys import schema
from recsys.artifact import ArtifactWriter
from recsys.index import fit_transitions
from recsys.index.alike import alike_pairs, text_vectors
from recsys.index.fit_transitions import count_returns, count_transitions
from recsys.index.transitions import (
    NO_ITEM,
    WEIGHTS,
    WHOLE,
    Transitions,
    choose,
    joined,
    load_transitions,
    pairs_of,
    return_strengths,
    returns_of,
    save_transitions,
    strongest,
)
from recsys.schema import History


def windows(*items: list[int]) -> pa.Table:
    return pa.table({schema.ITEM_INDEXES: pa.array(items, pa.large_list(pa.int32()))})


def pairs(*items: list[int]) -> dict[tuple[int, int], float]:
    rows = pairs_of(windows(*items)).to_pylist()
    return {(row["from"], row["to"]): row["sum"] / WHOLE for row in rows}


def memory(*triples: tuple[int, int, float], size: int = 6, **chosen: Any) -> Transitions:
    ordered = sorted(triples)
    starts = np.searchsorted([t[0] for t in ordered], np.arange(size + 1))
    return Transitions(
        starts.astype(np.int64),
        np.array([t[1] for t in ordered], np.int32),
        np.array([t[2] for t in ordered], np.float32),
        **chosen,
    )


def bonuses(transitions: Transitions, *histories: list[int]) -> list[dict[int, float]]:
    found = transitions.bonuses([History.of_items(items) for items in histories])
    return [
        {item: bonus for item, bonus in zip(items, gains, strict=True) if item != NO_ITEM}
        for items, gains in zip(found[0].tolist(), found[1].tolist(), strict=True)
    ]


def test_a_pair_gains_by_how_near_it_is():
    assert pairs([1, 2, 3, 4, 5]) == pytest.approx(
        {(1, 2): 1, (2, 3): 1, (3, 4): 1, (4, 5): 1}
        | {(1, 3): 1 / 2, (2, 4): 1 / 2, (3, 5): 1 / 2, (1, 4): 1 / 3, (2, 5): 1 / 3, (1, 5): 1 / 4}
    )


def test_no_pair_crosses_from_one_window_to_the_next():
    assert pairs([1, 2], [3, 4]) == {(1, 2): 1, (3, 4): 1}


def test_a_pair_of_several_windows_is_summed_and_an_item_may_follow_itself():
    assert pairs([1, 2], [1, 2], [2, 2]) == {(1, 2): 2, (2, 2): 1}


def test_strength_falls_with_the_popularity_of_both_items():
    table = pa.table({"from": [0, 0, 1], "to": [1, 2, 2], "sum": [2 * WHOLE] * 3})
    kept = strongest(table, np.array([16, 81, 1]), kept=5).to_pylist()
    found = {(row["from"], row["to"]): row["sum"] for row in kept}
    assert found[0, 1] == pytest.approx(2 / (16**0.7 * 81**0.3))
    assert found[0, 2] == pytest.approx(2 / 16**0.7)
    assert found[1, 2] == pytest.approx(2 / 81**0.7)


def test_of_equal_strengths_the_lower_index_stays():
    table = pa.table({"from": [7, 7, 7], "to": [5, 3, 4], "sum": [WHOLE] * 3})
    kept = strongest(table, np.ones(8), kept=2)
    assert kept["to"].to_pylist() == [3, 4]


def test_newer_events_count_more():
    transitions = memory((0, 1, 1.0), (2, 3, 1.0), (4, 5, 1.0), decay=0.5)
    (found,) = bonuses(transitions, [4, 0, 2])
    assert found == pytest.approx({5: 0.25, 1: 0.5, 3: 1.0})


def test_what_follows_several_events_adds_up_and_the_weight_multiplies_it():
    transitions = memory((0, 5, 2.0), (1, 5, 3.0), weight=0.5, decay=0.7)
    assert bonuses(transitions, [0, 1], [], [2]) == [
        pytest.approx({5: 0.5 * (3 + 0.7 * 2)}),
        {},
        {},
    ]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0.1, 2)), max_size=12),
    st.lists(st.lists(st.integers(0, 5), max_size=14), min_size=1, max_size=4),
)
def test_bonuses_are_those_of_a_plain_loop(triples, histories):
    unique = {(i, j): s for i, j, s in triples}
    transitions = memory(*((i, j, s) for (i, j), s in unique.items()), decay=0.9)
    for history, found in zip(histories, bonuses(transitions, *histories), strict=True):
        wanted: dict[int, float] = {}
        for age, item in enumerate(reversed(history)):
            for (i, j), strength in unique.items():
                if i == item:
                    wanted[j] = wanted.get(j, 0.0) + 0.9**age * strength
        assert found == pytest.approx(wanted, rel=1e-5)


def test_an_item_gains_again_for_each_of_its_events():
    own = memory((0, 1, 1.5), weight=2.0, decay=0.5, again=0.3)
    assert bonuses(own, [0, 2, 0])[0] == pytest.approx({0: 0.6, 2: 0.3, 1: 2 * 1.5 * 1.25})
    assert bonuses(replace(own, weight=0.0), [0, 2, 0])[0] == pytest.approx({0: 0.6, 2: 0.3})


def test_an_item_that_returns_readily_gains_more_and_one_that_came_later_what_the_last_does():
    own = memory(again=0.5, returns=np.array([2.0, 0.5, 1, 1, 1, 1, 0.8], np.float32))
    grown = replace(own, starts=np.pad(own.starts, (0, 2), mode="edge"))
    assert bonuses(grown, [0, 0, 1, 6, 7])[0] == pytest.approx({0: 2.0, 1: 0.25, 6: 0.4, 7: 0.4})


def test_returns_are_the_windows_that_hold_an_item_twice():
    rows = returns_of(windows([1, 2, 1, 1], [1, 2], [3], [2, 2])).to_pylist()
    found = {row["from"]: (row["held"], row["returned"]) for row in rows}
    assert found == {1: (2, 1), 2: (3, 1), 3: (1, 0)}


def test_few_windows_move_a_return_little():
    # On average a quarter of the windows hold their item again: (30 + 0) / (60 + 60).
    counts = pa.table({"from": [0, 2], "held": [60, 60], "returned": [30, 0]})
    found = return_strengths(counts, 3)
    # With 20 windows of the average item: (30 + 5) / 80, (0 + 5) / 20 and (0 + 5) / 80 over 1 / 4.
    assert found == pytest.approx(np.sqrt([1.75, 1.0, 0.25, 1.0]))


def test_where_nothing_returns_all_items_count_alike():
    counts = pa.table({"from": [0, 1], "held": [9, 3], "returned": [0, 0]})
    assert return_strengths(counts, 2).tolist() == [1, 1, 1]


def alike(*triples: tuple[int, int, float]) -> pa.Table:
    return pa.table(dict(zip(("from", "to", "sum"), zip(*triples, strict=True), strict=True)))


def test_joined_pairs_add_up_and_the_strongest_of_both_are_kept():
    counted = memory((0, 1, 0.3), (0, 2, 0.5), (3, 4, 0.1), decay=0.7, again=0.2)
    found = joined(counted, alike((0, 1, 1.5), (0, 5, 0.8), (2, 0, 1.0)), share=0.2, kept=2)
    assert (found.alike, found.decay, found.again) == (0.2, 0.7, 0.2)
    plain = replace(found, again=0.0)
    assert bonuses(plain, [0], [2], [3]) == [
        pytest.approx({1: 0.6, 2: 0.5}),
        pytest.approx({0: 0.2}),
        pytest.approx({4: 0.1}),
    ]


def test_what_texts_add_is_what_validation_needs():
    counted = memory(*((i, (i + 1) % 6, 0.15) for i in range(6)))
    vectors, users = torch.eye(6), torch.zeros(6, 6)
    histories = [History.of_items([i]) for i in range(6)]
    pairs = alike(*((i, (i + 2) % 6, 1.0) for i in range(6)))
    by_text = [np.array([(i + 2) % 6]) for i in range(6)]
    by_count = [np.array([(i + 1) % 6]) for i in range(6)]
    # A likeness of 1 has to beat a counted strength of .15.
    assert choose(counted, users, vectors, histories, by_text, pairs).alike == 0.2
    assert choose(counted, users, vectors, histories, by_count, pairs).alike == 0.0
    assert choose(counted, users, vectors, histories, by_text).alike == 0.0


def test_only_the_newest_events_within_reach_count():
    near = memory((0, 1, 1.0), (2, 3, 1.0), again=0.5, reach=2)
    assert bonuses(near, [0, 4, 2], [0]) == bonuses(near, [4, 2], [0])
    assert 1 not in bonuses(near, [0, 4, 2])[0]


def test_how_much_a_repeat_is_worth_is_what_validation_needs():
    nothing, vectors = memory(), torch.eye(6)
    histories = [History.of_items([i, i, (i + 1) % 6]) for i in range(6)]
    users = 0.15 * torch.eye(6).roll(3, 1)
    again = [np.array([i]) for i in range(6)]
    other = [np.array([(i + 3) % 6]) for i in range(6)]
    # What was taken twice comes first as soon as two events are worth more than the vectors' .15.
    assert choose(nothing, users, vectors, histories, again).again == 0.1
    assert choose(nothing, users, vectors, histories, other).again == 0.0


def test_what_is_saved_is_what_is_loaded():
    chosen = {"weight": 0.8, "decay": 0.7, "again": 0.4, "alike": 0.1, "reach": 7}
    returns = np.linspace(0.5, 2, 7, dtype=np.float32)
    transitions = memory((0, 1, 1.5), (3, 2, 0.5), **chosen, returns=returns)
    found = load_transitions(save_transitions(transitions))
    assert {name: getattr(found, name) for name in chosen} == chosen
    assert bonuses(found, [0, 3]) == bonuses(transitions, [0, 3])


def test_the_weight_is_what_validation_needs():
    vectors = torch.eye(6)
    right = memory(*((i, (i + 1) % 6, 0.1) for i in range(6)))
    histories = [History.of_items([i]) for i in range(6)]
    # The vectors put another item first by a margin that only a larger weight makes up for.
    users = 0.2 * torch.eye(6).roll(3, 1)
    targets = [np.array([(i + 1) % 6]) for i in range(6)]
    assert choose(right, users, vectors, histories, targets).weight == WEIGHTS[5]
    useless = memory(*((i, (i + 4) % 6, 0.1) for i in range(6)))
    agreed = [np.array([(i + 3) % 6]) for i in range(6)]
    assert choose(useless, users, vectors, histories, agreed).weight == 0.0


def test_the_decay_is_what_validation_needs():
    transitions = memory((0, 4, 0.25), (1, 5, 0.2))
    vectors, users = torch.eye(6), torch.zeros(1, 6)
    history = [History.of_items([0, 1])]
    newest = choose(transitions, users, vectors, history, [np.array([5])])
    whole = choose(transitions, users, vectors, history, [np.array([4])])
    assert newest.decay < 0.2 / 0.25 < whole.decay


@pytest.mark.ray
def test_counting_over_files_is_counting_at_once(toy_dataset):
    found = count_transitions(toy_dataset, kept=4)
    rows = pa.concat_tables([toy_dataset.read_table(n) for n in toy_dataset.names("train/")])
    counts = toy_dataset.read_table("items.parquet")["train_count"].to_numpy()
    whole = strongest(pairs_of(rows), np.maximum(1, counts), 4)
    rows_of = np.repeat(np.arange(len(counts)), np.diff(found.starts))
    assert rows_of.tolist() == whole["from"].to_pylist()
    assert found.items.tolist() == whole["to"].to_pylist()
    assert found.strengths == pytest.approx(whole["sum"].to_numpy(), rel=1e-5)


@pytest.mark.ray
def test_returns_over_files_are_returns_at_once(toy_dataset):
    rows = pa.concat_tables([toy_dataset.read_table(n) for n in toy_dataset.names("train/")])
    num_items = toy_dataset.read_table("items.parquet").num_rows
    found = count_returns(toy_dataset)
    assert found == pytest.approx(return_strengths(returns_of(rows), num_items))
    assert len(np.unique(found)) > 1


@pytest.mark.ray
def test_alike_items_in_blocks_are_those_of_all_at_once(toy_dataset, monkeypatch):
    monkeypatch.setattr(fit_transitions, "ITEMS_AT_ONCE", 100)
    items = toy_dataset.read_table("items.parquet")
    text = torch.from_numpy(np.random.default_rng(0).normal(size=(len(items), 8))).float()
    found = fit_transitions.find_alike(toy_dataset, text, kept=3)
    told = np.ones(len(items), dtype=bool)
    counts = items["train_count"].to_numpy()
    whole = alike_pairs(text_vectors(text, told), counts, np.arange(len(items)), kept=3)
    key = [("from", "ascending"), ("to", "ascending")]
    assert found is not None
    assert found.sort_by(key).equals(whole.sort_by(key).cast(found.schema))


@pytest.mark.ray
def test_items_that_are_not_alike_make_no_rules(toy_dataset):
    text = torch.eye(toy_dataset.read_table("items.parquet").num_rows)
    assert fit_transitions.find_alike(toy_dataset, text, kept=3) is None


@pytest.mark.ray
def test_more_files_than_items_leave_parts_of_the_shuffle_empty(local_ray, tmp_path):
    writer = ArtifactWriter(tmp_path / "dataset", "dataset")
    for number in range(6):
        writer.add_table(f"train/{number}.parquet", windows([0, 0]))
    writer.add_table("items.parquet", pa.table({schema.TRAIN_COUNT: [12]}))
    found = count_transitions(writer.publish({}, {}), kept=4)
    assert found.items.tolist() == [0]
    assert found.strengths.tolist() == pytest.approx([6 / 12])
