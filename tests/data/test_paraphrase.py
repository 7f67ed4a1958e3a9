"""Items in other words: what stays of a text, in which languages, what a table gives instead."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import AugmentConfig
from recsys.data.paraphrase import DROPPED, paraphrase, paraphrases_of

TEXT = "title: Oak table, round (120 cm), with drawer\nbrand: Ash\ncategory: home / tables"
ITEMS = pa.table({"item_id": ["a", "b"], "text": [TEXT, "title: 不锈钢水壶，大号"]})
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)


def reworded(text: str, seed: int) -> str:
    return paraphrase(text, np.random.default_rng(seed))


@settings(deadline=None, max_examples=200)
@given(parts=st.lists(st.lists(words, min_size=1, max_size=4), min_size=1), seed=st.integers(0))
def test_nothing_is_made_up_and_something_stays_of_each_part(parts, seed):
    title = ", ".join(" ".join(part) for part in parts)
    altered = reworded(f"title: {title}", seed).removeprefix("title: ")
    assert not Counter(altered.replace(",", " ").split()) - Counter(title.replace(",", " ").split())
    assert len(altered.split(", ")) == len(parts)


def test_the_first_part_stays_in_front_and_the_first_field_stays():
    for seed in range(50):
        altered = reworded(TEXT, seed)
        assert altered.split("\n")[0].startswith("title: ")
        assert set(altered.split("\n")[0][7:].split(",")[0].split()) <= {"Oak", "table"}


@pytest.mark.parametrize("text", ["title: (/)", "title: ", ""])
def test_a_text_without_a_word_stays_as_it_is(text: str):
    assert {reworded(text, seed) for seed in range(20)} == {text}


def test_so_many_words_and_fields_go_as_is_said():
    many = [reworded(TEXT, seed) for seed in range(2_000)]
    lost = [1 - ("brand: Ash" in altered) for altered in many]
    assert np.mean(lost) == pytest.approx(DROPPED, abs=0.03)
    assert np.mean(["drawer" not in altered for altered in many]) == pytest.approx(
        DROPPED, abs=0.03
    )


def test_chinese_keeps_its_characters_and_swaps_its_parts():
    seen = {reworded("title: 水壶，大号，不锈钢", seed) for seed in range(50)}
    assert seen == {"title: 水壶, 大号, 不锈钢", "title: 水壶, 不锈钢, 大号"}


def test_the_same_seed_gives_the_same_texts_and_each_round_others():
    made = paraphrases_of(ITEMS, AugmentConfig(num_paraphrases=3), seed=7)
    assert len(made) == 6
    assert made == paraphrases_of(ITEMS, AugmentConfig(num_paraphrases=3), seed=7)
    assert len({made[0], made[2], made[4], TEXT}) > 2


def test_a_table_stands_in_for_the_rules_and_what_it_lacks_stays_as_it_is(tmp_path: Path):
    place = tmp_path / "given.parquet"
    pq.write_table(pa.table({"item_id": ["b", "z"], "text": ["a large kettle", "-"]}), place)
    made = paraphrases_of(ITEMS, AugmentConfig(paraphrases=str(place)), seed=0)
    assert made == [TEXT, "a large kettle"]


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None):
    place = tmp_path / "given.parquet"
    if content is None:
        pq.write_table(pa.table({"item": ["b"]}), place)
    else:
        place.write_bytes(content)
    with pytest.raises(ValueError, match=r"given\.parquet.*'item_id' and 'text'"):
        paraphrases_of(ITEMS, AugmentConfig(paraphrases=str(place)), seed=0)
