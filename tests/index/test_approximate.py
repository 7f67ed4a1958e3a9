"""An index that looks at some of the items, against one that scores all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import IndexConfig
from recsys.index import approximate
from recsys.index.approximate import (
    APPROXIMATE,
    Approximate,
    ApproximateIndex,
    build_graph,
    chosen_kind,
    effort_of,
    load_graph,
    read_index,
    save_graph,
    set_effort,
)
from recsys.index.changed_index import change
from recsys.index.item_index import VECTORS, ExactIndex, Precision, make_index, save_index
from recsys.index.recall import (
    add_approximate,
    build_approximate,
    item_queries,
    recall_facts,
)

SIZE, WIDTH, GROUPS = 2_000, 16, 20
KINDS: list[Approximate] = ["ivf", "hnsw"]


def near_groups(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(GROUPS, WIDTH, generator=torch.Generator().manual_seed(9))
    group = torch.arange(number) % GROUPS
    return F.normalize(centres[group] + torch.randn(number, WIDTH, generator=generator), dim=-1)


VECTORS_ND, QUERIES = near_groups(SIZE, 0), near_groups(30, 1)
ORDER = torch.randperm(SIZE, generator=torch.Generator().manual_seed(2))
REMOVED = torch.arange(SIZE) % 7 == 3
NONE = [[]] * len(QUERIES)


def make(kind: Approximate, precision: Precision = "fp32", effort: int = 12) -> ApproximateIndex:
    exact = make_index(VECTORS_ND, precision, ORDER, REMOVED)
    graph = build_graph(exact, kind)
    set_effort(graph, effort if kind == "ivf" else 16 * effort)
    return ApproximateIndex(exact, graph)


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest) -> ApproximateIndex:
    return make(request.param)


def shares(found: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (right[:, :, None] == found[:, None, :]).any(2).float().mean(1)


def test_it_finds_most_of_the_best_with_their_exact_scores(index):
    scores, items = index.search(QUERIES, 10, NONE)
    assert shares(items, index.exact.search(QUERIES, 10, NONE)[1]).mean() > 0.9
    by_hand = (VECTORS_ND[items] @ QUERIES[:, :, None])[..., 0]
    assert scores.numpy() == pytest.approx(by_hand.numpy(), abs=1e-6)
    assert (scores[:, :-1] >= scores[:, 1:]).all()


def test_it_looks_at_some_items_only():
    few = make("ivf", effort=1)
    assert (
        shares(few.search(QUERIES, 10, NONE)[1], make("ivf").search(QUERIES, 10, NONE)[1]).min() < 1
    )


def test_what_is_excluded_makes_room_for_the_next_best(index):
    """The excluded are the best of each query: as many as are asked for come all the same."""
    _, best = index.exact.search(QUERIES, 60, NONE)
    excluded = best[:, :30].tolist()
    scores, items = index.search(QUERIES, 10, excluded)
    assert not (items[:, :, None] == best[:, None, :30]).any()
    assert (scores > -torch.inf).all()
    assert shares(items, best[:, 30:40]).mean() > 0.9


def test_removed_items_never_come(index):
    _, items = index.search(QUERIES, 20, NONE)
    assert not REMOVED[items].any()


@pytest.mark.parametrize("share", [0.6, 0.3, 0.05, 0.004])
def test_a_filter_holds_before_the_best_are_taken(index, share):
    """Of few items all are scored; of many FAISS looks at more, as many as the filter lacks."""
    mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(4)) < share
    masks = [mask, None] * (len(QUERIES) // 2)
    scores, items = index.search(QUERIES, 10, NONE, masks)
    real = scores > -torch.inf
    assert mask[items[::2]][real[::2]].all()
    right = index.exact.search(QUERIES, 10, NONE, masks)
    assert torch.equal(real, right[0] > -torch.inf)
    assert shares(items, right[1]).mean() > 0.9


def test_where_the_near_lists_hold_nothing_allowed_the_far_ones_are_searched():
    """One list of each query has the near items, which are not allowed."""
    index = make("ivf", effort=1)
    mask = torch.arange(SIZE) % GROUPS >= GROUPS // 2
    queries = QUERIES[:8]
    found = index.search(queries, 50, [[]] * 8, [mask] * 8)
    assert (found[0] > -torch.inf).all()
    assert mask[found[1]].all()


def test_what_asks_for_much_of_the_catalogue_gets_all_of_it(index):
    found, right = (one.search(QUERIES[:3], SIZE, [[], [5], []]) for one in (index, index.exact))
    assert torch.equal(found[0], right[0])
    assert torch.equal(found[1], right[1])


@pytest.mark.parametrize("kind", KINDS)
def test_of_equal_items_the_one_earlier_in_the_order_comes_first(kind):
    vectors = VECTORS_ND.clone()
    vectors[:5] = QUERIES[0]
    exact = ExactIndex(vectors, ORDER)
    index = ApproximateIndex(exact, build_graph(exact, kind))
    wanted = [item for item in ORDER.tolist() if item < 5]
    assert index.search(QUERIES[:1], 3, [[]])[1][0].tolist() == wanted[:3]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_vectors_beside_it_may_be_of_fewer_bits(precision):
    index = make("ivf", precision)
    found = recall_facts(index, ExactIndex(VECTORS_ND, ORDER, REMOVED), item_queries(VECTORS_ND))
    assert found["recall@10"] > 0.9
    assert torch.equal(index.vectors, index.exact.vectors)


def test_items_added_changed_and_taken_out_later_are_found_exactly(index):
    """New item SIZE is the first query; item 0 becomes the second; the third's best goes."""
    best = int(index.search(QUERIES[2:3], 1, [[]])[1])
    removed = torch.cat([REMOVED, torch.tensor([False])])
    removed[best] = True
    removed[0] = False
    order = torch.cat([ORDER, torch.tensor([SIZE])])
    changed = change(index, SIZE, torch.tensor([SIZE, 0]), QUERIES[:2], order, removed)
    _, items = changed.search(QUERIES[:3], 10, [[], [], []])
    assert items[0, 0] == SIZE
    assert items[1, 0] == 0
    assert best not in items[2]
    whole = torch.cat([VECTORS_ND, QUERIES[:1]])
    whole[0] = QUERIES[1]
    right = ExactIndex(whole, order, removed).search(QUERIES[:3], 10, [[], [], []])[1]
    assert shares(items, right).mean() > 0.9


def artifacts(tmp_path: Path) -> tuple[Artifact, Artifact]:
    return tuple(
        ArtifactWriter(tmp_path / kind, kind).publish({}, {}) for kind in ("dataset", "checkpoint")
    )


def built(tmp_path: Path, config: IndexConfig) -> Artifact:
    exact = make_index(VECTORS_ND, config.precision, ORDER, REMOVED)
    writer = ArtifactWriter(tmp_path / "index", "index")
    writer.add_bytes(VECTORS, save_index(exact))
    facts = add_approximate(writer, config, exact, VECTORS_ND, *artifacts(tmp_path))
    return writer.publish({}, {}, facts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_says_the_least_effort_that_reaches_the_target(tmp_path, kind):
    stored = built(tmp_path, IndexConfig(kind=kind, target_recall=0.97))
    facts = stored.manifest.facts
    assert facts["recall@10"] >= 0.97
    assert facts["recall_measured_on"] == "items"
    index = read_index(stored)
    assert isinstance(index, ApproximateIndex)
    effort = facts["nprobe" if kind == "ivf" else "efSearch"]
    assert effort_of(index.graph) == effort
    sample = item_queries(VECTORS_ND)
    assert recall_facts(index, index.exact, sample)["recall@10"] == facts["recall@10"]
    if kind == "ivf":
        set_effort(index.graph, effort // 2)
        assert recall_facts(index, index.exact, sample)["recall@10"] < 0.97


def test_a_file_that_was_altered_is_refused_before_faiss_reads_it(tmp_path):
    stored = built(tmp_path, IndexConfig(kind="ivf"))
    path = tmp_path / "index" / APPROXIMATE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'approximate\.faiss' was altered"):
        read_index(stored)


def test_below_its_size_auto_scores_all_and_the_manifest_has_what_int8_loses(tmp_path):
    stored = built(tmp_path, IndexConfig(precision="int8"))
    assert stored.names(APPROXIMATE) == []
    assert stored.manifest.facts["kind"] == "exact"
    assert 0.9 < stored.manifest.facts["recall@10"] <= 1
    assert not isinstance(read_index(stored), ApproximateIndex)


def test_auto_is_by_size():
    config = IndexConfig(approximate_above=100)
    assert chosen_kind(config, 100) is None
    assert chosen_kind(config, 101) == "ivf"
    assert chosen_kind(IndexConfig(kind="hnsw"), 5) == "hnsw"


def test_a_target_out_of_reach_is_said():
    exact = make_index(VECTORS_ND, "int8", ORDER, REMOVED)
    right = ExactIndex(VECTORS_ND, ORDER, REMOVED)
    with pytest.raises(ValueError, match=r"finds 0.*target_recall is 1\.0"):
        build_approximate(exact, "ivf", 1.0, right, item_queries(VECTORS_ND))


def test_without_faiss_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"install recsys\[ann\]"):
        chosen_kind(IndexConfig(kind="ivf"), 5)
    assert chosen_kind(IndexConfig(), 5) is None


def test_a_graph_stored_and_read_answers_the_same(index):
    other = ApproximateIndex(index.exact, load_graph(save_graph(index.graph)))
    for before, after in zip(
        index.search(QUERIES, 10, NONE), other.search(QUERIES, 10, NONE), strict=True
    ):
        assert torch.equal(before, after)


def test_no_more_than_a_share_of_the_items_is_scored_by_way_of_faiss(index, monkeypatch):
    monkeypatch.setattr(approximate, "_candidates", lambda *_: pytest.fail("FAISS was asked"))
    few = torch.zeros(SIZE, dtype=torch.bool)
    few[: int(approximate.FEW * SIZE)] = True
    assert few[index.search(QUERIES[:2], 5, [[], []], [few, few])[1]].all()
