import math

import pytest
import torch
from torch.nn.functional import layer_norm

from recsys.models.event_features import NUM_GAPS
from recsys.models.sequence.hstu import HstuLayer, HstuLayers, pairwise_gaps
from recsys.schema import UNKNOWN_TIME

SIZE, HEADS, MAX_HISTORY = 6, 2, 5
TIMES = torch.tensor([[1_000, 1_000, 1_003, 90_000]])


def loud_layers(use_time: bool) -> HstuLayers:
    torch.manual_seed(0)
    layers = HstuLayers(SIZE, 1, HEADS, 0.0, MAX_HISTORY, use_time).eval()
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layers


def events(rows: int = 1, length: int = 4) -> torch.Tensor:
    return torch.randn(rows, length, SIZE, generator=torch.Generator().manual_seed(1))


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def as_the_paper_writes_it(layer: HstuLayer, x_HD: torch.Tensor, gaps: list[list[int]]):
    """Equations (1) to (3) one position, head and earlier event at a time."""
    normed = layer_norm(x_HD, (SIZE,), layer.norm_in.weight, layer.norm_in.bias)
    u, v, q, k = (layer.uvqk(normed) * layer.uvqk(normed).sigmoid()).chunk(4, dim=-1)
    width, rows = SIZE // HEADS, []
    for t in range(len(x_HD)):
        mixed = torch.zeros(SIZE)
        for head in range(HEADS):
            own = slice(head * width, (head + 1) * width)
            for s in range(t + 1):
                bias = layer.distance.weight[t - s, head]
                if layer.gap is not None:
                    bias = bias + layer.gap.weight[gaps[t][s], head]
                weight = silu(float(q[t, own] @ k[s, own] + bias)) / (t + 1)
                mixed[own] += weight * v[s, own]
        rows.append(x_HD[t] + layer.out(layer_norm(mixed, (SIZE,)) * u[t]))
    return torch.stack(rows)


@pytest.mark.parametrize("use_time", [False, True])
@torch.no_grad()
def test_a_layer_is_the_papers_formula(use_time):
    layers = loud_layers(use_time)
    # log2(0 + 1) + 1 = 1, log2(3 + 1) + 1 = 3, log2(88_998) + 1 = 17.4, log2(89_001) + 1 = 17.4
    gaps = [[1, 0, 0, 0], [1, 1, 0, 0], [3, 3, 1, 0], [17, 17, 17, 1]]
    expected = as_the_paper_writes_it(layers.layers[0], events()[0], gaps)
    torch.testing.assert_close(layers(events(), TIMES)[0], expected, atol=1e-5, rtol=1e-5)


class TestGaps:
    def test_by_hand(self):
        gaps = pairwise_gaps(torch.tensor([[5, 5, UNKNOWN_TIME, 8]]))[0]
        assert gaps.tril().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [3, 3, 0, 1]]

    def test_gaps_of_centuries_stay_in_the_table(self):
        assert pairwise_gaps(torch.tensor([[0, 2**62]])).max() == NUM_GAPS

    def test_only_gaps_count_and_not_the_date(self):
        layers = loud_layers(use_time=True)
        assert torch.equal(layers(events(), TIMES), layers(events(), TIMES + 10_000_000))
        assert not torch.allclose(layers(events(), TIMES), layers(events(), TIMES * 2), atol=1e-3)


@torch.no_grad()
def test_strength_of_a_preference_is_kept_where_a_softmax_would_lose_it():
    """Ten equal events and one other are not one equal event and one other."""
    layers = loud_layers(use_time=False)
    one, other = events(length=2)[0]
    few, many = torch.stack([one, other])[None], torch.stack([one] * 4 + [other])[None]
    times = torch.full((1, 5), UNKNOWN_TIME)
    apart = layers(few, times[:, :2])[0, -1] - layers(many, times)[0, -1]
    assert apart.abs().max() > 1e-2
