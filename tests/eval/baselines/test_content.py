"""Profiles of text: Chinese, recency, whitening."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.eval.baselines.content import ContentProfile, tfidf_vectors, zero_shot_vectors
from recsys.eval.baselines.histories import history_recency
from tests.eval.baselines.made import histories

TEXTS = ["红色连衣裙 夏季", "黑色连衣裙 冬季", "跑步鞋 男款", "透气跑步鞋", "", "summer dress"]


def test_chinese_text_without_spaces_finds_what_is_alike():
    scores = ContentProfile(tfidf_vectors(TEXTS)).scores(histories([0], [3]))
    assert scores.argsort(axis=1)[:, ::-1][:, :2].tolist() == [[0, 1], [3, 2]]
    assert scores[0, 2] == 0
    assert scores[0, 0] == pytest.approx(1)


def test_an_item_without_text_scores_nothing_and_says_nothing():
    scores = ContentProfile(tfidf_vectors(TEXTS)).scores(histories([4], [0]))
    assert not scores[0].any()
    assert scores[1, 4] == 0


def test_one_character_is_text_too():
    scores = ContentProfile(tfidf_vectors(["书", "书", "笔"])).scores(histories([0]))
    assert scores[0] == pytest.approx([1, 1, 0])


def test_a_catalogue_without_text_says_so():
    with pytest.raises(ValueError, match="no item has text"):
        tfidf_vectors(["", " "])


def test_the_profile_is_the_recency_weighted_mean_of_the_history():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    [scores] = ContentProfile(vectors, half_life=1).scores(histories([0, 1]))
    profile = np.array([1, 2]) / np.sqrt(5)  # the older event weighs half
    assert scores == pytest.approx(vectors @ profile)


def test_recency_weights_sum_to_one_and_halve_with_the_half_life():
    found = history_recency(histories([0, 1, 0], [2]), 3, half_life=1).toarray()
    assert found == pytest.approx(np.array([[5 / 7, 2 / 7, 0], [0, 0, 1]]))


def test_whitening_takes_away_what_all_vectors_have_in_common():
    # All texts point along the first axis; items 0 and 1 are alike in what is left, 2 is not.
    text = torch.tensor([[9.0, 1.0], [9.2, 1.1], [9.1, -1.0], [8.9, -1.1]])
    plain = ContentProfile(zero_shot_vectors(text, whiten=False)).scores(histories([0]))
    white = ContentProfile(zero_shot_vectors(text)).scores(histories([0]))
    assert plain.min() > 0.9
    assert white[0, 1] > 0 > white[0, 2]


def test_zero_shot_vectors_have_length_one():
    text = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    for whiten in (True, False):
        assert np.linalg.norm(zero_shot_vectors(text, whiten), axis=1) == pytest.approx(np.ones(8))
