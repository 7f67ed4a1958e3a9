import math

import pytest
import torch

from recsys.config import ModelConfig
from recsys.models.build import ModelShape, build_model
from recsys.models.losses import softmax_loss
from recsys.models.recommender_model import RecommenderModel

SHAPE = ModelShape(num_items=6, max_history=5, num_events=1, text_size=0)


def make_model(**changes) -> RecommenderModel:
    told = {"embedding_size": 8, "num_layers": 1} | changes
    return build_model(ModelConfig(item_features="id", **told), SHAPE)


def test_a_fixed_one_is_the_configs_number_and_no_weight():
    model = make_model(temperature=0.123)
    assert model.temperature() == 0.123
    assert not list(model.temperature.parameters())


def test_a_learned_one_starts_at_the_configs_number():
    assert make_model(temperature=0.123, learn_temperature=True).temperature().item() == (
        pytest.approx(0.123)
    )


@pytest.mark.parametrize(("free", "kept"), [(1e-4, 0.01), (0.02, 0.02), (0.9, 0.9), (7.0, 1.0)])
def test_a_learned_one_stays_in_bounds_and_never_loses_its_gradient(free, kept):
    model = make_model(learn_temperature=True)
    with torch.no_grad():
        model.temperature.log.fill_(math.log(free))
    temperature = model.temperature()
    temperature.backward()
    assert temperature.item() == pytest.approx(kept)
    assert model.temperature.log.grad.item() == pytest.approx(kept)  # d exp(x) / dx


def test_gradient_steps_find_the_temperature_that_fits():
    """Targets drawn from a softmax at 0.2: the loss is least near that temperature."""
    generator = torch.Generator().manual_seed(0)
    users, items = (
        torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1)
        for n in (2000, 6)
    )
    targets = torch.multinomial((users @ items.T / 0.2).softmax(-1), 1, generator=generator)[:, 0]
    model = make_model(temperature=0.9, learn_temperature=True)
    optimizer = torch.optim.Adam([model.temperature.log], lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        softmax_loss(users, items, targets, model.temperature()).backward()
        optimizer.step()
    assert model.temperature().item() == pytest.approx(0.2, abs=0.03)
