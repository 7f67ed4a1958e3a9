"""Operations counted by hand, the table of GPUs, and where the time of a step goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.config import ModelConfig
from recsys.data.collate import collate_windows
from recsys.models.backbone import load_text_encoder
from recsys.models.build import ModelShape, build_model, text_size
from recsys.models.candidates import Candidates
from recsys.schema import NO_TARGET
from recsys.training import speed
from recsys.training.speed import Clock, Costs, Work, model_costs, peak_flops, peak_of, work_of
from tests.training.test_ingest import table_of

CPU = torch.device("cpu")


def costs_of(num_items: int = 50, text: bool = False, **told) -> Costs:
    config = ModelConfig(embedding_size=8, num_layers=3, num_heads=2, projection_size=6, **told)
    size = text_size(config)
    shape = ModelShape(num_items=num_items, max_history=10, num_events=3, text_size=size)
    return model_costs(
        build_model(config, shape, load_text_encoder(config) if text else None), config
    )


class TestCosts:
    def test_a_transformer_of_ids_by_hand(self):
        found = costs_of(item_features="id")
        # A layer of width 8: qkv 8 x 24, joined 8 x 8, and 8 x 32 twice.
        assert found.event == 6 * 3 * (8 * 24 + 8 * 8 + 2 * 8 * 32)
        assert found.squared_length == 12 * 3 * 8
        assert found.item == found.token == 0
        assert found.score == 6 * 8

    def test_a_table_costs_nothing_whatever_its_size(self):
        assert costs_of(item_features="id") == costs_of(5_000, item_features="id")

    def test_a_hybrid_has_two_user_encoders_of_half_the_width(self, tiny_backbone):
        found = costs_of(backbone=tiny_backbone)
        assert found.event == 6 * 2 * 3 * (4 * 12 + 4 * 4 + 2 * 4 * 16)
        assert found.squared_length == 12 * 2 * 3 * 4
        assert found.item == 6 * (16 * 6 + 6 * 4)

    def test_gru_has_no_attention(self):
        assert costs_of(item_features="id", user_encoder="gru").squared_length == 0

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    def test_frozen_weights_under_lora_take_two_thirds(self, tiny_backbone):
        # Two layers: four 16 x 16 and two 16 x 32, and the pooler's 16 x 16.
        full = costs_of(text=True, backbone=tiny_backbone, tuning="full").token
        matrices = 2 * (4 * 16 * 16 + 2 * 16 * 32)
        assert full in (6 * matrices, 6 * (matrices + 16 * 16))
        lora = costs_of(text=True, backbone=tiny_backbone, tuning="lora", lora_rank=1).token
        assert full * 4 / 6 < lora < full


class TestWork:
    def test_padding_is_no_work(self):
        batch = collate_windows(table_of([4, 2], np.random.default_rng(0)), None)
        found = work_of(batch, Candidates(torch.arange(7)), num_tokens=30)
        events = int(batch.lengths.sum())
        assert found.places == 2 * int(batch.lengths.max()) > events
        assert found.squared_lengths == sum(n * n for n in batch.lengths.tolist())
        assert found.scores == 7 * int((batch.targets >= 0).sum())
        assert (found.windows, found.events, found.items, found.tokens) == (2, events, 7, 30)

    def test_a_row_that_stands_in_for_no_window_is_no_work(self):
        batch = collate_windows(table_of([4, 2], np.random.default_rng(0)), None)
        batch.targets[0] = NO_TARGET
        found = work_of(batch, Candidates(torch.arange(7)), num_tokens=0)
        assert (found.windows, found.events) == (1, int(batch.lengths[1]))
        assert found.places == batch.targets.shape[1]

    def test_sums_and_operations_by_hand(self):
        work = Work(1, 2, 9, 4, 3, 5, 6)
        work.add(Work(1, 2, 9, 4, 3, 5, 6))
        assert work == Work(2, 4, 18, 8, 6, 10, 12)
        costs = Costs(event=1.0, squared_length=10.0, item=100.0, token=1e3, score=1e4)
        assert work.flops(costs) == 4 + 80 + 600 + 10_000 + 120_000


class TestPeak:
    @pytest.mark.parametrize(
        ("name", "peak"),
        [
            ("NVIDIA H100 80GB HBM3", 989e12),
            ("NVIDIA H100 PCIe", 756e12),
            ("NVIDIA H200", 989e12),
            ("NVIDIA A100-SXM4-40GB", 312e12),
            ("NVIDIA L4", 121e12),
            ("NVIDIA L40S", 362e12),
            ("NVIDIA L40", None),
            ("Tesla T4", None),
        ],
    )
    def test_a_gpu_is_known_by_whole_words_of_its_name(self, name, peak):
        assert peak_of(name) == peak

    def test_a_cpu_and_fp32_have_none(self):
        assert peak_flops(CPU, "bf16") is None
        assert peak_flops(torch.device("cuda"), "fp32") is None


class TestClock:
    def test_laps_add_up_by_name_and_start_anew(self, monkeypatch):
        times = iter([0.0, 10.0, 13.0, 14.0, 16.0, 17.0, 100.0, 101.0, 105.0, 105.0])
        monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
        clock = Clock(CPU)  # begins at 10
        for name in ("data", "loss", "data"):
            clock.lap(name)
        assert clock.read() == (17.0, {"data": 5.0, "loss": 1.0})
        clock.restart()
        clock.lap("loss")
        assert clock.read() == (5.0, {"loss": 4.0})
