"""The capacity model against hand-computed figures."""

from __future__ import annotations

import dataclasses
import math

import pytest
from transformers import AutoModel

from benchmarks.capacity import facts, published
from benchmarks.capacity.architectures import MODELS
from benchmarks.capacity.demand import Demand
from benchmarks.capacity.serving import (
    BatchTime,
    request_time,
    search_time,
    serving_cost,
    store_gib,
)
from benchmarks.capacity.simulation import rate_at, replicas_by, service_time
from benchmarks.capacity.stages import prepare_job, storage
from benchmarks.capacity.training import (
    as_config,
    embedding_hours,
    encodes_a_step,
    expected_distinct,
    memory_of_rank,
    training_cost,
)

SMALL = Demand(
    users=1_000_000, items=100_000, interactions_per_day=1_000_000, requests_per_second=1_000
)


def but(**changes) -> Demand:
    return dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize("name", ["minilm-22m", "qwen3-0.6b"])
def test_weights_are_those_of_the_real_architecture(name):
    import torch

    with torch.device("meta"):
        body = AutoModel.from_config(as_config(MODELS[name]))
    real = sum(weight.numel() for weight in body.parameters())
    # What is left out: norms, biases, positions, and BERT's pooler.
    assert MODELS[name].weights == pytest.approx(real, rel=0.02)
    assert MODELS[name].weights < real


def test_a_token_costs_two_four_or_six_operations_a_weight_and_attention():
    model = MODELS["minilm-22m"]
    # 6 layers of 4 x 384^2 and 2 x 384 x 1536 weights; attention is 384 wide.
    assert model.matrix_weights == 6 * (4 * 384**2 + 2 * 384 * 1_536)
    seen = 6 * 384 * 100
    assert model.flops_a_token(100, "forward") == 2 * model.matrix_weights + 4 * seen
    assert model.flops_a_token(100, "lora") == 4 * model.matrix_weights + 12 * seen
    assert model.flops_a_token(100, "full") == 6 * model.matrix_weights + 12 * seen


def test_distinct_draws_are_few_of_many_and_all_of_few():
    assert expected_distinct(2, 2) == pytest.approx(1.5)
    assert expected_distinct(1_000, 10**9) == pytest.approx(1_000, rel=1e-3)
    assert expected_distinct(10**6, 100) == pytest.approx(100)


def test_more_gpus_do_not_divide_what_every_rank_encodes():
    one, many = (encodes_a_step(but(gpus=gpus), shared=False) for gpus in (1, 64))
    assert many == pytest.approx(one, rel=0.05)
    shared = encodes_a_step(but(gpus=64), shared=True)
    assert shared == pytest.approx(one / 64, rel=0.05)


def test_gpu_hours_of_a_learning_model_grow_with_ranks_unless_they_share():
    learning = {"tuning": "full", "model": "qwen3-0.6b"}
    hours = {
        (gpus, shared): training_cost(but(gpus=gpus, **learning), shared).gpu_hours
        for gpus in (1, 8)
        for shared in (False, True)
    }
    assert hours[8, False] > 7 * hours[1, False]
    assert hours[8, True] == pytest.approx(hours[1, True], rel=0.01)


def test_a_step_takes_its_least_time_however_small_the_model():
    cost = training_cost(but(windows_a_step=8))
    least = cost.steps * facts.STEP_LEAST.value / 3_600
    assert cost.hours == pytest.approx(least + embedding_hours(SMALL) / SMALL.gpus)


def test_embedding_the_catalogue_is_one_forward_pass():
    model = MODELS["minilm-22m"]
    work = 100_000 * 64 * model.flops_a_token(64, "forward")
    assert embedding_hours(SMALL) == pytest.approx(work / (989e12 * 0.288) / 3_600)


def test_a_higher_zero_stage_takes_less_of_a_rank():
    tuned = but(tuning="full", windows_a_step=64, negatives=256)
    first, second = (memory_of_rank(tuned, stage) for stage in (1, 2))
    # Gradients are two bytes a weight, states twelve shared by eight ranks.
    assert second.optimizer == first.optimizer == pytest.approx(6 * first.gradients / 8, rel=0.01)
    assert second.gradients == pytest.approx(first.gradients / 8, rel=0.01)


def test_the_time_of_a_batch_goes_through_both_measured_points():
    line = request_time()
    assert line.of(1) == pytest.approx(5.0)
    assert line.of(32) == pytest.approx(1.7 * 32)
    assert line.rate(32) == pytest.approx(1_000 / 1.7)


def test_search_grows_with_items_and_by_their_root_once_approximate():
    assert search_time(100_000, 128).of(1) == pytest.approx(2.12)
    assert search_time(100_000, 64).of(1) == pytest.approx(1.06)
    assert search_time(4_000_000, 128).of(32) == pytest.approx(34.0)


def test_replicas_answer_the_peak_at_the_wanted_utilisation():
    cost = serving_cost(SMALL)
    batch = 1.7 * 32 + 161.0 / 10
    each = 0.8 * 32e3 / batch
    assert cost.replicas == math.ceil(1_000 / each)
    assert cost.nodes == math.ceil(cost.replicas / 8)


def test_a_replica_that_no_node_holds_is_refused():
    with pytest.raises(ValueError, match="larger nodes"):
        serving_cost(but(items=1_000_000_000))


def test_the_store_holds_no_more_events_than_there_were():
    # 90M events of a million users, 50 of which are kept; then 9 a user.
    assert store_gib(SMALL) == pytest.approx(1e6 * 50 * 300 / 2**30)
    assert store_gib(but(days=9)) == pytest.approx(1e6 * 9 * 300 / 2**30)


def test_prepare_is_what_the_growth_benchmark_measured():
    job = prepare_job(but(items=1, interactions_per_day=10_000_000, days=1))
    assert job.nodes == 1
    assert 3_600 * job.hours == pytest.approx(3.7 + 2.07 * 10 / 8, rel=1e-3)


def test_storage_of_events_is_a_year_at_eleven_bytes():
    assert storage(SMALL).events_gib == pytest.approx(365 * 1e6 * 11 / 2**30)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"users": 0}, "users"),
        ({"model": "gpt"}, "qwen3-0.6b"),
        ({"gpu": "V100"}, "H100"),
        ({"gpus": 3}, "multiple"),
    ],
)
def test_what_cannot_be_is_refused(change, told):
    with pytest.raises(ValueError, match=told):
        but(**change)


def test_the_day_has_its_peak_and_its_trough():
    assert rate_at(20, 100.0, 0.3) == pytest.approx(100.0)
    assert rate_at(8, 100.0, 0.3) == pytest.approx(30.0)


def test_replicas_follow_late_upwards_and_later_downwards():
    rising, falling = 14.0, 2.0
    assert rate_at(rising, 1e5, 0.3) == pytest.approx(rate_at(falling, 1e5, 0.3))
    assert replicas_by(rising, 1e5, 0.3, 1.0) < rate_at(rising, 1e5, 0.3)
    assert replicas_by(falling, 1e5, 0.3, 1.0) > rate_at(falling, 1e5, 0.3)


def test_service_times_spread_around_the_batch_and_keep_its_mean():
    import random

    rng = random.Random(0)
    draw = service_time(BatchTime(2.0, 1.0), 0.35)
    times = [draw(8, rng) for _ in range(20_000)]
    mean = sum(times) / len(times)
    spread = math.sqrt(sum((t - mean) ** 2 for t in times) / len(times)) / mean
    assert (mean, spread) == (pytest.approx(10.0, rel=0.01), pytest.approx(0.35, rel=0.05))


def test_a_published_run_is_its_tokens_times_its_weights():
    run = published.HllmRun("tinyllama-1.1b", 1_000, 11, 11, False, "A100")
    texts = 22 * 128 * MODELS["tinyllama-1.1b"].flops_a_token(128, "full")
    places = 11 * MODELS["tinyllama-1.1b"].flops_a_token(11, "full")
    flops = 5 * 1_000 * (texts + places)
    assert run.gpu_hours == pytest.approx(flops / (312e12 * 0.3) / 3_600)


def test_a_factor_above_one_promises_more_than_was_reached():
    hours = published.Comparison("a", "b", "GPU h", 100.0, 50.0, True, "c")
    rate = published.Comparison("a", "b", "requests/s", 100.0, 50.0, False, "c")
    assert (hours.factor, rate.factor) == (2.0, 0.5)
