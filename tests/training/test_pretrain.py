"""Pretraining: which examples are drawn, what each objective computes, and real runs on Ray."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import ModelConfig, PretrainingConfig
from recsys.data.tokenize import load_tokenizer, with_tokens
from recsys.models.backbone import load_text_encoder, pad_tokens
from recsys.training.examples import Examples, consecutive_items, make_examples, sample
from recsys.training.objectives import (
    IGNORED,
    LanguageModeling,
    info_nce,
    make_objective,
    mask_tokens,
    next_tokens,
)
from recsys.training.pretrain import engine_settings, make_batch, pretrain

TITLES = ["red hammer", "blue nail", "red hammer", "green saw", "small drill", "hat"]
BRANDS = ["large", "small", "large", "", "blue", "red"]
REMOVED = [False, False, False, False, True, False]
WINDOWS = [[[0, 1, 2], [3, 5]], [[0, 2, 3], [1, 1, 5]]]


def shop(folder: Path, backbone: str) -> Artifact:
    """A dataset of six items and two files of two windows, made without Ray."""
    items = pa.table(
        {"item_id": pa.array([f"i{row}" for row in range(6)], pa.large_string()), "title": TITLES}
    ).append_column("brand", pa.array(BRANDS))
    fields = ("title", "brand")
    items = with_tokens(items, load_tokenizer(backbone), fields, 16)
    items = items.append_column("removed", pa.array(REMOVED))
    writer = ArtifactWriter(folder / "dataset", "dataset")
    writer.add_table("items.parquet", items)
    for number, windows in enumerate(WINDOWS):
        column = pa.array(windows, pa.large_list(pa.int32()))
        writer.add_table(f"train/part-{number}.parquet", pa.table({"item_indexes": column}))
    prepare = {"text_fields": fields, "max_item_tokens": 16}
    return writer.publish({"prepare": prepare, "backbone": backbone}, {}, {})


@pytest.fixture
def dataset(tmp_path: Path, tiny_backbone: str) -> Artifact:
    return shop(tmp_path, tiny_backbone)


def words_of(examples: Examples, backbone: str) -> list[tuple[str, str]]:
    """The pairs in words."""
    tokenizer = load_tokenizer(backbone)
    texts = [
        tokenizer.decode(ids, skip_special_tokens=True) for ids in examples.token_ids.to_pylist()
    ]
    return [(texts[left], texts[right]) for left, right in examples.pairs.tolist()]


def test_titles_pair_with_the_other_text_of_present_items_that_have_both(dataset, tiny_backbone):
    examples = make_examples(dataset, PretrainingConfig(pairs=("text",)))
    assert sorted(words_of(examples, tiny_backbone)) == [
        ("title : blue nail", "brand : small"),
        ("title : hat", "brand : red"),
        ("title : red hammer", "brand : large"),
        ("title : red hammer", "brand : large"),
    ]


def test_pairs_of_histories_stay_in_their_window(dataset):
    found = [pair for block in consecutive_items(dataset) for pair in block.tolist()]
    assert found == [[0, 1], [1, 2], [3, 5], [0, 2], [2, 3], [1, 1], [1, 5]]


def test_items_with_the_same_words_are_no_pair_and_one_group(dataset):
    examples = make_examples(dataset, PretrainingConfig(pairs=("history",)))
    assert sorted(examples.pairs.tolist()) == [[0, 1], [1, 2], [1, 5], [2, 3], [3, 5]]
    assert examples.groups.tolist() == [0, 1, 0, 3, 4, 5]


def test_queries_pair_with_items_that_are_there(dataset, tmp_path, tiny_backbone):
    table = {"query": ["hammer", "hammer", "drill", "shoe", "", None]}
    table["item_id"] = ["i0", "i1", "i4", "unknown", "i0", "i0"]
    pq.write_table(pa.table(table), tmp_path / "queries.parquet")
    config = PretrainingConfig(pairs=("query",), queries=str(tmp_path / "queries.parquet"))
    examples = make_examples(dataset, config)
    found = sorted(words_of(examples, tiny_backbone))
    assert found == [
        ("hammer", "title : blue nail brand : small"),
        ("hammer", "title : red hammer brand : large"),
    ]
    left = examples.groups[examples.pairs[:, 0]]
    assert len(set(left.tolist())) == 1
    assert left.min() >= len(TITLES)


def test_a_kind_of_pairs_that_the_dataset_does_not_have_is_named(dataset, tmp_path):
    table = pa.table({"query": ["hammer"], "item_id": ["unknown"]})
    pq.write_table(table, tmp_path / "queries.parquet")
    config = PretrainingConfig(pairs=("query",), queries=str(tmp_path / "queries.parquet"))
    with pytest.raises(ValueError, match="asks for 'query'"):
        make_examples(dataset, config)


def test_single_texts_are_those_of_present_items(dataset):
    examples = make_examples(dataset, PretrainingConfig(objective="masked"))
    assert examples.pairs.tolist() == [[row, row] for row in (0, 1, 2, 3, 5)]


def test_examples_are_read_as_they_were_written(dataset, tmp_path):
    examples = make_examples(dataset, PretrainingConfig())
    examples.write(str(tmp_path / "examples"))
    other = Examples.read(str(tmp_path / "examples"))
    assert other.token_ids.to_pylist() == examples.token_ids.to_pylist()
    assert np.array_equal(other.groups, examples.groups)
    assert np.array_equal(other.pairs, examples.pairs)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), max_size=5), count=st.integers(1, 40))
def test_a_sample_holds_as_many_different_pairs_as_it_may(sizes, count):
    whole = np.arange(2 * sum(sizes)).reshape(-1, 2)
    blocks = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    found = sample(blocks, count, 0)
    assert len(found) == min(count, len(whole))
    assert len({tuple(pair) for pair in found.tolist()}) == len(found)
    assert {tuple(pair) for pair in found.tolist()} <= {tuple(pair) for pair in whole.tolist()}


def test_each_pair_is_as_likely_as_any_other_whatever_its_block():
    whole = np.stack([np.arange(40), np.arange(40)], axis=1)
    blocks = [whole[:5], whole[5:]]
    drawn = np.concatenate([sample(blocks, 10, seed)[:, 0] for seed in range(800)])
    shares = np.bincount(drawn, minlength=40) / 800
    assert np.abs(shares - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 800)


def unit(*rows: list[float]) -> torch.Tensor:
    return F.normalize(torch.tensor(rows), dim=-1)


def test_info_nce_by_hand():
    left, right = unit([1.0, 0.0], [0.0, 1.0]), unit([1.0, 0.0], [1.0, 1.0])
    groups = torch.arange(4)
    loss = info_nce(left, right, groups[:2], groups[2:], temperature=0.5)
    diagonal = math.sqrt(2)  # cosine of 45 degrees over the temperature
    across = -math.log(math.exp(2) / (math.exp(2) + math.exp(diagonal)))
    across += -math.log(math.exp(diagonal) / (1 + math.exp(diagonal)))
    back = -math.log(math.exp(2) / (math.exp(2) + 1)) - math.log(0.5)
    assert loss.item() == pytest.approx((across + back) / 4, abs=1e-5)


@pytest.mark.parametrize(
    ("left", "right"),
    [([7, 7], [1, 2]), ([1, 2], [7, 7]), ([7, 2], [1, 7]), ([1, 7], [7, 2])],
    ids=["same left", "same right", "left of one, right of the other", "the other way round"],
)
def test_pairs_that_share_a_text_are_not_each_others_negatives(left, right):
    vectors = unit([1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [1.0, 1.0])
    loss = info_nce(vectors[:2], vectors[2:], torch.tensor(left), torch.tensor(right), 0.1)
    assert loss.item() == 0


def test_a_pair_of_one_group_still_has_itself_and_other_negatives():
    vectors = unit([1.0, 0.0], [0.0, 1.0])
    groups = torch.tensor([3, 4])
    loss = info_nce(vectors, vectors, groups, groups, 1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def test_fifteen_percent_are_hidden_as_in_bert(tiny_backbone):
    tokenizer = load_tokenizer(tiny_backbone)
    special = tokenizer.all_special_ids
    plain = [i for i in range(len(tokenizer)) if i not in special]
    rows = [
        [2, *np.random.default_rng(n).choice(plain, 20 + n % 20).tolist(), 3] for n in range(2_000)
    ]
    tokens = pad_tokens(rows)
    hidden, labels = mask_tokens(tokens, tokenizer, seed=1)
    chosen = labels != IGNORED
    may_be = (tokens.mask == 1) & ~torch.isin(tokens.ids, torch.tensor(special))
    assert not (chosen & ~may_be).any()
    assert torch.equal(labels[chosen], tokens.ids[chosen])
    assert torch.equal(hidden.ids[~chosen], tokens.ids[~chosen])
    assert chosen.sum() / may_be.sum() == pytest.approx(0.15, abs=0.01)
    masks = hidden.ids[chosen] == tokenizer.mask_token_id
    assert masks.float().mean() == pytest.approx(0.8, abs=0.02)
    same = hidden.ids[chosen] == tokens.ids[chosen]
    assert same.float().mean() == pytest.approx(0.1 + 0.1 / len(tokenizer), abs=0.02)


def test_masks_follow_from_the_seed(tiny_backbone):
    tokenizer, tokens = load_tokenizer(tiny_backbone), pad_tokens([[2, *range(6, 22), 3]] * 8)
    first, again, other = (mask_tokens(tokens, tokenizer, seed)[0].ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_next_tokens_are_not_asked_of_padding():
    tokens = pad_tokens([[5, 6, 7], [8]])
    assert next_tokens(tokens).tolist() == [[5, 6, 7], [8, IGNORED, IGNORED]]


class _Sure(torch.nn.Module):
    """Gives token t + 1 after token t all of the probability that 10 logits give it."""

    def forward(self, input_ids, attention_mask):
        logits = 10 * F.one_hot((input_ids + 1) % 12, 12).float()
        return type("Output", (), {"logits": logits})()


def test_causal_scores_each_token_by_those_before_it():
    tokens = pad_tokens([[1, 2, 3, 4], [6, 7]])
    model = LanguageModeling(_Sure(), causal=True)
    right = math.log(1 + 11 * math.exp(-10))
    assert model(tokens, next_tokens(tokens)).item() == pytest.approx(right, abs=1e-6)
    wrong = pad_tokens([[1, 9]])
    assert model(wrong, next_tokens(wrong)).item() == pytest.approx(10 + right, abs=1e-4)


def test_a_batch_without_labels_has_a_loss_of_zero():
    tokens = pad_tokens([[1, 2, 3]])
    model = LanguageModeling(_Sure(), causal=False)
    assert model(tokens, torch.full_like(tokens.ids, IGNORED)).item() == 0


def test_a_contrastive_batch_has_left_texts_then_right_ones(dataset, tiny_backbone):
    examples = make_examples(dataset, PretrainingConfig(pairs=("history",)))
    rows = np.array([1, 0])
    tokens, groups = make_batch(
        examples, "contrastive", rows, load_tokenizer(tiny_backbone), seed=0
    )
    texts = examples.pairs[rows].T.flatten()
    assert groups.tolist() == examples.groups[texts].tolist()
    assert tokens.mask.sum(1).tolist() == [len(examples.token_ids[t]) for t in texts.tolist()]


def test_an_encoder_without_a_head_for_masks_is_told_apart(tiny_backbone):
    model = ModelConfig(backbone=tiny_backbone)
    assert make_objective(model, PretrainingConfig(objective="masked"))[1]
    assert not make_objective(model, PretrainingConfig())[1]


@pytest.mark.parametrize(
    ("given_keys", "told"),
    [
        ({"global_batch_size": 3}, "multiple of num_workers"),
        ({"global_batch_size": 2}, "no negatives"),
        ({"queries": "queries.parquet"}, "do not fit"),
        ({"pairs": ["query"]}, "do not fit"),
        ({"pairs": []}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(given_keys, told):
    with pytest.raises(ValidationError, match=told):
        PretrainingConfig.model_validate(given_keys)


def test_the_engine_gets_the_settings_of_pretraining():
    config = PretrainingConfig(learning_rate=7e-5, zero_stage=3, num_workers=4, precision="fp32")
    told = engine_settings(config)
    assert (told.learning_rate, told.zero_stage, told.num_workers) == (7e-5, 3, 4)
    assert (told.precision, told.warmup_share) == ("fp32", 0.1)


def test_tokens_of_another_language_model_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="make the dataset again"):
        pretrain(ModelConfig(), PretrainingConfig(), dataset, str(tmp_path / "backbone"))


def test_fewer_examples_than_a_batch_are_refused(dataset, tmp_path, tiny_backbone):
    config = PretrainingConfig(pairs=("text",))
    with pytest.raises(ValueError, match="4 examples"):
        pretrain(ModelConfig(backbone=tiny_backbone), config, dataset, str(tmp_path / "backbone"))


def _losses(backbone: Artifact) -> list[float]:
    return [row["loss"] for row in backbone.read_json("training_log.json")]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_contrastive_learns_and_its_folder_is_a_backbone(tmp_path, toy_dataset, tiny_backbone):
    config = PretrainingConfig(
        epochs=3, global_batch_size=32, learning_rate=3e-3, precision="fp32", max_pairs=400
    )
    model = ModelConfig(backbone=tiny_backbone)
    made = pretrain(model, config, toy_dataset, str(tmp_path / "backbone"))
    losses = _losses(open_artifact(made.uri, "backbone"))
    assert losses[-1] < losses[0] - 0.1
    encoder = load_text_encoder(ModelConfig(backbone=f"{made.uri}/backbone"))
    tokens = pad_tokens([[2, 6, 7, 3]])
    before = load_text_encoder(model).eval()(tokens)
    assert not torch.allclose(encoder.eval()(tokens), before, atol=1e-3)
    assert load_tokenizer(f"{made.uri}/backbone").get_vocab()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_masked_under_zero_3_changes_the_body_and_says_that_the_head_is_new(
    tmp_path, toy_dataset, tiny_backbone
):
    config = PretrainingConfig(
        objective="masked", global_batch_size=32, learning_rate=3e-3, zero_stage=3
    )
    model = ModelConfig(backbone=tiny_backbone)
    made = pretrain(model, config, toy_dataset, str(tmp_path / "backbone"))
    assert made.manifest.facts["new_head"]
    trained = load(made.read_bytes("backbone/model.safetensors"))
    original = load(Path(tiny_backbone, "model.safetensors").read_bytes())
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.allclose(trained[name].float(), original[name], atol=1e-4)
