from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import ModelConfig
from recsys.models.backbone import (
    TextEncoder,
    fit_whitening,
    load_text_encoder,
    merge_lora,
    pack_tokens,
    pad_tokens,
    pool,
)

TEXTS = [[2, 6, 7, 8, 3], [2, 9, 3], [2, 10, 11, 12, 13, 14, 15, 3]]


def config(backbone: str, **changes) -> ModelConfig:
    sizes = {"embedding_size": 16, "num_heads": 2, "num_layers": 1, "projection_size": 16}
    return ModelConfig(backbone=backbone, dropout=0.0, lora_rank=2, **sizes, **changes)


def encode(encoder: TextEncoder, rows: list[list[int]]) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(pad_tokens(rows))


class TestPadTokens:
    def test_by_hand(self):
        tokens = pad_tokens([[5, 6, 7], [8], []])
        assert tokens.ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
        assert tokens.mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
        assert tokens.ids.dtype == tokens.mask.dtype == torch.int64

    def test_a_real_token_zero_is_not_padding(self):
        assert pad_tokens([[0, 4], [0]]).mask.tolist() == [[1, 1], [1, 0]]

    def test_texts_without_tokens_keep_one_masked_slot(self):
        tokens = pad_tokens([[], []])
        assert tokens.ids.shape == (2, 1)
        assert tokens.mask.tolist() == [[0], [0]]


texts = st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=12)


def slots_of(lengths: list[int], cuts: tuple[int, ...]) -> int:
    """Of groups of texts, longest first, cut at these places."""
    bounds = pairwise((0, *cuts, len(lengths)))
    return sum(lengths[start] * (end - start) for start, end in bounds if start < end)


class TestPackTokens:
    def test_by_hand(self):
        packed = pack_tokens([[5], [6, 7, 8], [], [9, 4, 3]], num_groups=2)
        assert [group.ids.tolist() for group in packed.groups] == [
            [[6, 7, 8], [9, 4, 3]],
            [[5], [0]],
        ]
        assert packed.groups[1].mask.tolist() == [[1], [0]]
        assert packed.places.tolist() == [2, 0, 3, 1]

    @settings(max_examples=60, deadline=None)
    @given(rows=texts, num_groups=st.integers(1, 5))
    def test_every_text_is_there_and_the_groups_are_as_many_as_asked_for(self, rows, num_groups):
        packed = pack_tokens(rows, num_groups)
        assert len(packed.groups) == num_groups
        assert all(len(group.ids) for group in packed.groups)
        found = [
            ids[mask == 1].tolist()
            for group in packed.groups
            for ids, mask in zip(group.ids, group.mask, strict=True)
        ]
        assert [found[place] for place in packed.places.tolist()] == rows

    @settings(max_examples=60, deadline=None)
    @given(rows=texts, num_groups=st.integers(1, 4))
    def test_no_other_cuts_take_fewer_slots(self, rows, num_groups):
        lengths = sorted((max(1, len(row)) for row in rows), reverse=True)
        ways = combinations_with_replacement(range(len(rows) + 1), num_groups - 1)
        fewest = min(slots_of(lengths, cuts) for cuts in ways)
        packed = pack_tokens(rows, num_groups)
        used = set(packed.places.tolist())
        starts = np.cumsum([0, *(len(group.ids) for group in packed.groups)])
        real = [g for g, start in zip(packed.groups, starts, strict=False) if int(start) in used]
        assert sum(group.ids.numel() for group in real) == fewest


class TestPool:
    HIDDEN = torch.tensor(
        [[[1.0, 2.0], [3.0, 6.0], [99.0, -99.0]], [[5.0, 7.0], [50.0, 70.0], [8.0, 9.0]]]
    )
    MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])

    def test_mean_by_hand(self):
        assert pool(self.HIDDEN, self.MASK, "mean").tolist() == [[2.0, 4.0], [5.0, 7.0]]

    def test_last_by_hand(self):
        assert pool(self.HIDDEN, self.MASK, "last").tolist() == [[3.0, 6.0], [5.0, 7.0]]

    def test_without_padding(self):
        full = torch.ones(2, 3, dtype=torch.int64)
        assert pool(self.HIDDEN, full, "last").tolist() == [[99.0, -99.0], [8.0, 9.0]]
        torch.testing.assert_close(pool(self.HIDDEN, full, "mean"), self.HIDDEN.mean(1))

    def test_mean_of_no_tokens_is_zero(self):
        none = torch.zeros(2, 3, dtype=torch.int64)
        assert pool(self.HIDDEN, none, "mean").tolist() == [[0.0, 0.0], [0.0, 0.0]]


class TestWhitening:
    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10_000), width=st.integers(1, 12))
    def test_covariance_becomes_the_identity(self, seed, width):
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(width, width, generator=generator) + 2 * torch.eye(width)
        text = torch.randn(400, width, generator=generator) @ mixing + 7.0
        spread = torch.linalg.svdvals(text - text.mean(0))
        mean, matrix = fit_whitening(text)
        white = (text - mean) @ matrix
        torch.testing.assert_close(white.mean(0), torch.zeros(width), atol=1e-3, rtol=0)
        if (spread[-1] / spread[0]) ** 2 > 1e-4:  # no direction is below the floor
            covariance = white.T @ white / len(white)
            torch.testing.assert_close(covariance, torch.eye(width), atol=0.02, rtol=0)

    def test_two_directions_by_hand(self):
        text = torch.tensor([[2.0, 10.0], [-2.0, 10.0], [0.0, 16.0], [0.0, 4.0]])
        mean, matrix = fit_whitening(text)
        assert mean.tolist() == [0.0, 10.0]
        # Variances 2 and 18: each direction is divided by its standard deviation.
        stretched = (matrix.T @ matrix).sqrt().diagonal().sort().values
        torch.testing.assert_close(stretched, torch.tensor([1 / 18**0.5, 1 / 2**0.5]))

    def test_fewer_items_than_dimensions(self):
        text = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 0.05
        mean, matrix = fit_whitening(text)
        white = (text - mean) @ matrix
        assert matrix.shape == (32, 32)
        assert white.isfinite().all()
        variances = torch.linalg.eigvalsh(white.T @ white / 5)
        # Five centred items span four directions: these have variance 1, all others next to none.
        torch.testing.assert_close(variances[-4:], torch.ones(4), atol=1e-2, rtol=0)
        assert variances[:-4].abs().max() < 1e-2

    def test_other_texts_are_not_blown_up_beyond_the_floor(self):
        text = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 0.05
        mean, matrix = fit_whitening(text)
        largest = torch.linalg.eigvalsh((text - mean).T @ (text - mean) / 5)[-1]
        assert torch.linalg.matrix_norm(matrix, 2) <= 1.01 / (1e-5 * largest).sqrt()

    @pytest.mark.parametrize("value", [0.0, 0.05, -0.3])
    def test_equal_vectors_stay_finite_and_small(self, value):
        text = torch.full((7, 6), value)
        mean, matrix = fit_whitening(text)
        white = (text - mean) @ matrix
        assert matrix.isfinite().all()
        assert white.abs().max() < 1.0

    def test_a_constant_dimension_beside_real_ones(self):
        text = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
        text[:, 2] = 3.0
        mean, matrix = fit_whitening(text)
        white = (text - mean) @ matrix
        variances = torch.linalg.eigvalsh(white.T @ white / 200)
        torch.testing.assert_close(variances[1:], torch.ones(3), atol=1e-3, rtol=0)
        assert variances[0] < 1e-3

    def test_the_encoder_applies_it(self, tiny_backbone):
        encoder = load_text_encoder(config(tiny_backbone))
        plain = encode(encoder, TEXTS)
        mean, matrix = fit_whitening(plain)
        encoder.set_whitening(mean, matrix)
        torch.testing.assert_close(encode(encoder, TEXTS), (plain - mean) @ matrix)
        assert not torch.allclose(encode(encoder, TEXTS), plain, atol=0.1)


class TestTextEncoder:
    @pytest.mark.parametrize("pooling", ["mean", "last"])
    def test_padding_changes_nothing(self, tiny_backbone, pooling):
        encoder = load_text_encoder(config(tiny_backbone, pooling=pooling))
        together = encode(encoder, TEXTS)
        assert together.shape == (3, encoder.size) == (3, 16)
        for row, text in enumerate(TEXTS):
            torch.testing.assert_close(together[row], encode(encoder, [text])[0], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("num_groups", [1, 2, 8])
    @pytest.mark.parametrize("pooling", ["mean", "last"])
    def test_packed_texts_have_the_vectors_and_gradients_of_padded_ones(
        self, tiny_backbone, pooling, num_groups
    ):
        rows = [*TEXTS, [], [2, 3], TEXTS[1]]
        found = []
        for tokens in (pad_tokens(rows), pack_tokens(rows, num_groups)):
            encoder = load_text_encoder(config(tiny_backbone, pooling=pooling)).eval()
            vectors = encoder(tokens)
            (vectors * torch.arange(len(rows))[:, None]).square().sum().backward()
            grads = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
            found.append((vectors.detach(), grads))
        (padded, expected), (packed, grads) = found
        torch.testing.assert_close(packed, padded, atol=1e-5, rtol=0)
        assert grads.keys() == expected.keys()
        assert any(grad.abs().max() > 1e-2 for grad in grads.values())
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected[name], atol=1e-4, rtol=1e-4)

    def test_a_text_alone_is_packed_beside_copies_that_count_for_nothing(self, tiny_backbone):
        encoder = load_text_encoder(config(tiny_backbone)).eval()
        found = encoder(pack_tokens([TEXTS[0]]))
        torch.testing.assert_close(found, encoder(pad_tokens([TEXTS[0]])))

    @pytest.mark.parametrize("pooling", ["mean", "last"])
    def test_pooling_is_the_one_asked_for(self, tiny_backbone, pooling):
        encoder = load_text_encoder(config(tiny_backbone, pooling=pooling)).eval()
        tokens = pad_tokens([TEXTS[0]])
        with torch.no_grad():
            hidden = encoder.backbone(
                input_ids=tokens.ids, attention_mask=tokens.mask
            ).last_hidden_state[0]
        expected = hidden.mean(0) if pooling == "mean" else hidden[-1]
        torch.testing.assert_close(encode(encoder, [TEXTS[0]])[0], expected)

    @pytest.mark.parametrize("pooling", ["mean", "last"])
    def test_a_text_without_tokens_is_finite_and_disturbs_no_other(self, tiny_backbone, pooling):
        encoder = load_text_encoder(config(tiny_backbone, pooling=pooling))
        beside = encode(encoder, [TEXTS[0], []])
        assert beside.isfinite().all()
        torch.testing.assert_close(beside[0], encode(encoder, [TEXTS[0]])[0], atol=1e-5, rtol=0)

    def test_different_texts_have_different_vectors(self, tiny_backbone):
        vectors = encode(load_text_encoder(config(tiny_backbone)), TEXTS)
        assert torch.pdist(vectors).min() > 1e-3

    def test_a_frozen_half_precision_backbone_still_gives_float32(self, tiny_backbone):
        half = load_text_encoder(config(tiny_backbone, backbone_precision="bf16"))
        assert {p.dtype for p in half.backbone.parameters()} == {torch.bfloat16}
        vectors = encode(half, TEXTS)
        assert vectors.dtype == torch.float32
        full = encode(load_text_encoder(config(tiny_backbone)), TEXTS)
        torch.testing.assert_close(vectors, full, atol=0.1, rtol=0)

    def test_a_tuned_backbone_is_never_loaded_in_half_precision(self, tiny_backbone):
        tuned = load_text_encoder(config(tiny_backbone, backbone_precision="bf16", tuning="full"))
        assert {p.dtype for p in tuned.backbone.parameters()} == {torch.float32}


# peft 0.21 still asks transformers 5 for a property under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestLora:
    def loud(self, backbone: str) -> TextEncoder:
        """An encoder whose LoRA matrices are random, as after training."""
        encoder = load_text_encoder(config(backbone, tuning="lora")).eval()
        torch.manual_seed(3)
        for name, parameter in encoder.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        return encoder

    def test_only_lora_matrices_learn(self, tiny_backbone):
        encoder = load_text_encoder(config(tiny_backbone, tuning="lora"))
        learning = {n for n, p in encoder.named_parameters() if p.requires_grad}
        matrices = {n for n, _ in encoder.named_parameters() if "lora_" in n}
        assert learning == matrices
        # Two layers of six linear maps and the pooler, each with a matrix A and a matrix B.
        assert len(matrices) == 2 * (2 * 6 + 1)

    def test_rank_is_the_one_asked_for(self, tiny_backbone):
        encoder = load_text_encoder(config(tiny_backbone, tuning="lora"))
        ranks = {p.shape[0] for n, p in encoder.named_parameters() if "lora_A" in n}
        assert ranks == {2}

    def test_fresh_lora_changes_no_output(self, tiny_backbone):
        tuned = load_text_encoder(config(tiny_backbone, tuning="lora"))
        plain = load_text_encoder(config(tiny_backbone))
        torch.testing.assert_close(encode(tuned, TEXTS), encode(plain, TEXTS), atol=1e-6, rtol=0)

    def test_merged_equals_unmerged(self, tiny_backbone):
        encoder = self.loud(tiny_backbone)
        unmerged = encode(encoder, TEXTS)
        plain = encode(load_text_encoder(config(tiny_backbone)), TEXTS)
        assert (unmerged - plain).abs().max() > 0.05  # the matrices do something
        encoder.backbone = merge_lora(encoder.backbone)
        torch.testing.assert_close(encode(encoder, TEXTS), unmerged, atol=1e-5, rtol=0)

    def test_merged_is_a_plain_backbone_again(self, tiny_backbone):
        plain = load_text_encoder(config(tiny_backbone)).backbone
        merged = merge_lora(self.loud(tiny_backbone).backbone)
        assert type(merged) is type(plain)
        assert merged.state_dict().keys() == plain.state_dict().keys()

    def test_a_backbone_without_lora_is_left_as_it_is(self, tiny_backbone):
        plain = load_text_encoder(config(tiny_backbone)).backbone
        assert merge_lora(plain) is plain

    @pytest.mark.parametrize("tuning", ["frozen", "full"])
    def test_no_lora_without_asking(self, tiny_backbone, tuning):
        encoder = load_text_encoder(config(tiny_backbone, tuning=tuning))
        assert not [n for n, _ in encoder.named_parameters() if "lora_" in n]


# peft 0.21 still asks transformers 5 for a property under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestActivationCheckpointing:
    def gradients(self, backbone: str, tuning: str, asked: bool) -> dict[str, torch.Tensor]:
        """Gradients of a step with dropout."""
        torch.manual_seed(0)
        encoder = load_text_encoder(
            config(backbone, tuning=tuning, activation_checkpointing=asked)
        ).train()
        recomputing = [m for m in encoder.modules() if getattr(m, "gradient_checkpointing", False)]
        assert bool(recomputing) == asked
        torch.manual_seed(1)
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:  # zero at first, which would stop the gradient of lora_A
                torch.nn.init.normal_(parameter, std=0.1)
        encoder(pad_tokens(TEXTS)).square().sum().backward()
        return {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    @pytest.mark.parametrize("kind", ["backbone", "llama"])
    def test_gradients_are_those_of_kept_activations(self, request, kind, tuning):
        folder = request.getfixturevalue(f"tiny_{kind}")
        kept = self.gradients(folder, tuning, asked=False)
        again = self.gradients(folder, tuning, asked=True)
        assert kept.keys() == again.keys()
        assert any(grad.abs().max() > 1e-3 for grad in kept.values())
        for name, grad in kept.items():
            torch.testing.assert_close(again[name], grad, atol=1e-6, rtol=1e-5)

    def test_a_checkpoints_backbone_keeps_its_activations(self, tiny_backbone):
        told = config(tiny_backbone, tuning="full", activation_checkpointing=True)
        encoder = load_text_encoder(told, Path(tiny_backbone))
        assert not encoder.backbone.is_gradient_checkpointing
