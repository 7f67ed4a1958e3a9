"""A shared prefix against reading it anew, by a small decoder with random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.shared_prefix import each_alone
from recsys.ranker import cross
from recsys.ranker.cross import CrossScorer, prefix_text, shared_prefix_scores

PREFIX = [3, 1, 4, 1, 5, 9, 2, 6]
CANDIDATES = [[5], [3, 5, 8, 9, 7, 1, 2, 3], [9, 3], [2, 3, 8], [9, 3]]


class Letters:
    """A tokenizer with a token for each byte."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """The bytes of the text."""
        assert not add_special_tokens
        return list(text.encode())


@pytest.fixture(scope="module")
def decoder() -> Qwen3ForCausalLM:
    """Two layers of width 32, whose large weights make every token matter."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
    )
    return Qwen3ForCausalLM(config).eval()


def test_a_prefix_that_is_read_once_gives_the_scores_of_reading_it_for_each(decoder):
    found = shared_prefix_scores(decoder, PREFIX, CANDIDATES)
    alone = each_alone(decoder, PREFIX, CANDIDATES)
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)
    assert float(found.std()) > 0.1


def test_how_candidates_are_packed_changes_no_score(decoder, monkeypatch):
    together = shared_prefix_scores(decoder, PREFIX, CANDIDATES)
    monkeypatch.setattr(cross, "PACKED", 6)
    torch.testing.assert_close(
        shared_prefix_scores(decoder, PREFIX, CANDIDATES), together, atol=1e-5, rtol=0
    )


def test_a_score_depends_on_the_prefix_and_not_on_the_other_candidates(decoder):
    found = shared_prefix_scores(decoder, PREFIX, CANDIDATES)
    assert float(found[2]) == pytest.approx(float(found[4]), abs=1e-6)
    [alone] = shared_prefix_scores(decoder, PREFIX, CANDIDATES[:1]).tolist()
    assert alone == pytest.approx(float(found[0]), abs=1e-5)
    other = shared_prefix_scores(decoder, [7, *PREFIX[1:]], CANDIDATES)
    assert float((found - other).abs().min()) > 1e-3


def test_titles_are_scored_after_query_and_history(decoder):
    scorer = CrossScorer(decoder, Letters())  # pyright: ignore[reportArgumentType]
    found = scorer.score("red hat", ["Blue scarf"], ["Red hat", "帽子", ""])
    wanted = shared_prefix_scores(
        decoder,
        list(b"History: Blue scarf\nQuery: red hat\nItem: "),
        [list(b"Red hat"), list("帽子".encode())],
    )
    torch.testing.assert_close(found[:2], wanted, atol=1e-5, rtol=0)
    assert float(found[2]) == 0


def test_of_a_long_history_the_newest_titles_and_the_query_stay():
    titles = [f"title {number}" for number in range(50)]
    text = prefix_text("red hat", titles)
    assert "title 49" in text
    assert "title 29;" not in text
    assert text.endswith("Query: red hat\nItem: ")


def test_no_candidates_have_no_scores_and_an_empty_prefix_is_refused(decoder):
    assert len(shared_prefix_scores(decoder, PREFIX, [])) == 0
    with pytest.raises(ValueError, match="no token"):
        shared_prefix_scores(decoder, [], CANDIDATES)
