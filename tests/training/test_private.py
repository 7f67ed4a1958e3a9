"""Private training: what one user can do to a step, who is drawn, and what is promised for it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import norm

from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import ModelConfig, TrainingConfig
from recsys.data.collate import read_rows
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import ItemInputs
from recsys.models.losses import softmax_loss
from recsys.schema import NO_TARGET, Batch
from recsys.training import loop
from recsys.training.anomaly import Watch
from recsys.training.checkpoint import Log
from recsys.training.cursor import Cursor
from recsys.training.guarantee import check_private, count_users, epsilon, guarantee
from recsys.training.ingest import RankBatches
from recsys.training.job import check_training
from recsys.training.memory import private_bytes
from recsys.training.poisson import PoissonWindows
from recsys.training.private import PrivateStep, UserLoss, user_gradients
from recsys.training.progress import Journal
from recsys.training.run import Run
from recsys.training.step import split
from tests.training.test_memory import DEEPSPEED_WARNINGS
from tests.training.tiny_run import make_run, weights_of

pytestmark = pytest.mark.filterwarnings(*DEEPSPEED_WARNINGS)

PRIVATE: dict[str, Any] = {
    "num_workers": 1,
    "zero_stage": 0,
    "precision": "fp32",
    "max_rollbacks": 0,
    "global_batch_size": 4,
    "privacy": {"noise_multiplier": 1.0, "delta": 1e-2},
}
MODEL = ModelConfig(item_features="text", embedding_size=16, num_layers=1, dropout=0.0)
WINDOWS_OF = {"anna": 4, "ben": 1, "chen": 2, "张伟": 1, "eva": 1, "finn": 3, "gil": 1, "hana": 2}


def training(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(PRIVATE | changes)


def write_users(folder: Path, windows_of: dict[str, int]) -> Artifact:
    """Windows of three events; a user's first item is the user's number, the second the window's.

    They are in two files, and no user's windows lie together.
    """
    rows = [
        (name, [number, window, 9])
        for window in range(max(windows_of.values()))
        for number, (name, count) in enumerate(windows_of.items())
        if window < count
    ]
    writer = ArtifactWriter(folder / "dataset", "dataset")
    for part in range(2):
        mine = rows[part::2]
        columns = {"user_id": [name for name, _ in mine]}
        columns["item_indexes"] = pa.array([items for _, items in mine], pa.large_list(pa.int32()))
        columns["timestamps"] = pa.array([[1, 2, 3]] * len(mine), pa.large_list(pa.int64()))
        columns["events"] = pa.array([[0] * 3] * len(mine), pa.large_list(pa.int8()))
        writer.add_table(f"train/part-{part}.parquet", pa.table(columns))
    writer.publish({"prepare": {"events": ["view"]}}, {}, {"rows": {"train": len(rows)}})
    return open_artifact(folder / "dataset", "dataset")


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Eight users with 1 to 4 windows."""
    return write_users(tmp_path_factory.mktemp("users"), WINDOWS_OF)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.training.progress.run_folder", lambda: None)


def batch_of(lengths: list[int], num_items: int = 30) -> Batch:
    """Histories of these lengths with random content."""
    draw, width = torch.Generator().manual_seed(1), max(lengths)
    shape = (len(lengths), width)
    targets = torch.randint(num_items, shape, generator=draw)
    targets[torch.arange(width) >= torch.tensor(lengths)[:, None]] = NO_TARGET
    return Batch(
        item_indexes=torch.randint(num_items, shape, generator=draw),
        timestamps=torch.randint(10**6, shape, generator=draw).cumsum(1),
        events=torch.zeros(shape, dtype=torch.int64),
        lengths=torch.tensor(lengths),
        targets=targets,
        weights=torch.rand(shape, generator=draw),
    )


class TestUserGradients:
    @pytest.mark.parametrize("encoder", ["transformer", "hstu"])
    @pytest.mark.parametrize("features", ["text", "id"])
    def test_they_are_those_of_each_user_alone(self, encoder, features):
        told = {"item_features": features, "user_encoder": encoder, "learn_temperature": True}
        told |= {"use_time": True, "use_calendar": True, "use_repeats": True}
        config = MODEL.model_copy(update=told)
        model = build_model(
            config, ModelShape(num_items=30, max_history=6, num_events=1, text_size=8)
        )
        text = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
        inputs = ItemInputs(torch.arange(30), text if features == "text" else None)
        batch = batch_of([6, 1, 3])
        found, losses = user_gradients(UserLoss(model), batch, inputs)
        for user, row in enumerate(split(batch, 3)):
            model.zero_grad()
            weights = row.weights[row.targets != NO_TARGET]
            loss = softmax_loss(*model(row, inputs), model.temperature(), None, weights)
            loss.backward()
            torch.testing.assert_close(losses[user], loss.detach())
            for name, weight in model.named_parameters():
                right = torch.zeros_like(weight) if weight.grad is None else weight.grad
                torch.testing.assert_close(
                    found[f"model.{name}"][user], right, atol=1e-5, rtol=1e-4
                )

    def test_what_is_not_finite_counts_nothing(self):
        config = MODEL.model_copy(update={"item_features": "id"})
        model = build_model(
            config, ModelShape(num_items=30, max_history=6, num_events=1, text_size=0)
        )
        batch = batch_of([4, 5])
        assert batch.weights is not None
        broken = replace(batch, weights=batch.weights * torch.tensor([[math.inf], [1.0]]))
        found, _ = user_gradients(UserLoss(model), broken, ItemInputs(torch.arange(30)))
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert not any(gradient[0].any() for gradient in found.values())
        assert any(gradient[1].any() for gradient in found.values())


def private_run(dataset: Artifact, parts: int = 1, **privacy: float) -> Run:
    """A run of one rank whose batches are drawn users."""
    told = {"privacy": PRIVATE["privacy"] | privacy, "accumulation": parts}
    run = make_run(dataset, **PRIVATE | told)
    size = run.job.training.global_batch_size
    windows = PoissonWindows(dataset, run.job.training)
    total = run.job.training.epochs * windows.steps(size)
    return replace(run, batches=RankBatches(windows, size, 0, 1), total_steps=total)


def gradient_of(run: Run, batch: Batch) -> torch.Tensor:
    """All numbers of the gradient that the optimizer gets in a step on this batch."""
    found: list[torch.Tensor] = []
    hook = run.engine.optimizer.register_step_pre_hook(
        lambda *_: found.extend(weight.grad.flatten().clone() for weight in run.model.parameters())
    )
    with Journal(run, Cursor(), []) as journal:
        PrivateStep(run)(run, batch, 0, Watch(run.job.training), journal)
    hook.remove()
    return torch.cat(found)


def clipped_sum(run: Run, batch: Batch, bound: float) -> torch.Tensor:
    """The users' gradients by plain autograd, each scaled down to the bound, added up."""
    total = torch.zeros(sum(weight.numel() for weight in run.model.parameters()))
    inputs = run.items.of(torch.arange(run.job.shape.num_items))
    for row in split(batch, len(batch.lengths)):
        loss = softmax_loss(*run.model(row, inputs), run.model.temperature())
        gradient = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, run.model.parameters())]
        )
        total += gradient * min(1.0, bound / float(gradient.norm()))
    return total


SILENT = 1e-9
"""Noise that cannot be seen."""


@pytest.mark.usefixtures("alone", "no_files")
class TestPrivateStep:
    @pytest.fixture
    def batch(self) -> Batch:
        """Three users."""
        return replace(batch_of([6, 1, 3]), weights=None)

    @pytest.mark.parametrize("bound", [1e-3, 1e3])
    def test_the_gradient_is_the_clipped_users_over_the_users_expected(self, users, batch, bound):
        run = private_run(users, noise_multiplier=SILENT, max_user_norm=bound)
        right = clipped_sum(run, batch, bound) / 4
        torch.testing.assert_close(gradient_of(run, batch), right, rtol=1e-3, atol=1e-6)
        assert right.norm() > bound / 8 if bound < 1 else right.norm() > 0.1

    def test_no_user_moves_the_sum_by_more_than_the_bound(self, users, batch):
        bound = 0.05
        whole, less = (
            gradient_of(private_run(users, noise_multiplier=SILENT, max_user_norm=bound), some)
            for some in (batch, split(batch, 3)[0])
        )
        most = 2 * bound  # two of the three users left
        assert (1 - 1e-3) * bound < 4 * float((whole - less).norm()) <= most
        alone = private_run(users, noise_multiplier=SILENT, max_user_norm=bound)
        assert 4 * float(gradient_of(alone, split(batch, 3)[1]).norm()) <= bound * (1 + 1e-5)

    def test_a_step_in_parts_has_the_gradient_of_the_whole(self, users, batch):
        whole = gradient_of(private_run(users, noise_multiplier=SILENT), batch)
        run = private_run(users, parts=2, noise_multiplier=SILENT)
        torch.testing.assert_close(gradient_of(run, batch), whole)
        assert run.engine.global_steps == 1

    def test_noise_has_the_deviation_that_epsilon_counts_on_also_if_nobody_is_drawn(self, users):
        run = private_run(users, noise_multiplier=3.0, max_user_norm=0.5)
        nobody = run.batches.share(read_rows(users, "train").slice(0, 0), 0)
        assert (nobody.targets == NO_TARGET).all()
        noise = gradient_of(run, nobody)
        assert float(noise.std()) == pytest.approx(3.0 * 0.5 / 4, rel=0.2)
        assert abs(float(noise.mean())) < 6 * 3.0 * 0.5 / 4 / math.sqrt(len(noise))
        assert run.engine.was_step_applied()

    def test_nobody_can_draw_the_noise_again(self, users, batch):
        first, second = (gradient_of(private_run(users), batch) for _ in range(2))
        assert not torch.equal(first, second)

    def test_a_run_makes_the_steps_that_are_counted_and_learns(self, users, monkeypatch):
        run = private_run(users, noise_multiplier=SILENT)
        before = weights_of(run)
        monkeypatch.setattr(loop, "start_run", lambda job: run)
        monkeypatch.setattr(loop, "restore", lambda engine: (Cursor(), []))
        saved: list[tuple[Cursor, Log]] = []
        monkeypatch.setattr(loop, "save", lambda engine, *told: saved.append(told[:2]))
        loop.train_loop(run.job.model_dump(mode="json"))
        cursor, log = saved[-1]
        assert cursor.step == guarantee(run.job.training, len(WINDOWS_OF)).steps == 4
        assert all(row["bad_steps"] == 0 for row in log if "bad_steps" in row)
        assert any(not torch.equal(w, before[name]) for name, w in weights_of(run).items())


class TestPoissonWindows:
    def drawn(self, users: Artifact, size: int, epochs: int) -> list[list[tuple[str, list[int]]]]:
        told = training(global_batch_size=size, epochs=epochs)
        windows = PoissonWindows(users, told)
        cursor, found = Cursor(), []
        for _ in range(epochs):
            for rows in windows.batches(cursor, size):
                names, items = (rows[name].to_pylist() for name in ("user_id", "item_indexes"))
                found.append(list(zip(names, items, strict=True)))
                cursor = cursor.after(len(rows))
            cursor = cursor.next_epoch()
        return found

    def test_a_user_has_one_own_window_in_a_step(self, users):
        names = list(WINDOWS_OF)
        for step in self.drawn(users, 4, 20):
            assert max(Counter(name for name, _ in step).values(), default=0) <= 1
            for name, (number, window, _) in step:
                assert names[number] == name
                assert window < WINDOWS_OF[name]

    def test_users_are_drawn_alike_whatever_they_have_and_windows_of_a_user_alike(self, users):
        steps = self.drawn(users, 2, 500)
        assert len(steps) == 500 * 4
        counts = Counter((name, items[1]) for step in steps for name, items in step)
        of_user = {name: sum(counts[name, n] for n in range(9)) for name in WINDOWS_OF}
        slack = 6 * math.sqrt(2_000 * 0.25 * 0.75)  # six standard deviations
        assert all(abs(count - 500) < slack for count in of_user.values())
        anna = [counts["anna", window] for window in range(4)]
        assert all(abs(count - 125) < 6 * math.sqrt(125) for count in anna)
        # Independently: the size of a step varies as a binomial number does.
        sizes = np.array([len(step) for step in steps])
        assert float(sizes.var()) == pytest.approx(8 * 0.25 * 0.75, rel=0.25)

    def test_a_run_that_goes_on_makes_the_steps_that_are_left(self, users):
        windows = PoissonWindows(users, training(global_batch_size=3))
        assert windows.steps(3) == 3
        assert len(list(windows.batches(Cursor(epoch=2, windows=7, step=7), 3))) == 2
        assert list(windows.batches(Cursor(epoch=2, windows=7, step=9), 3)) == []

    def test_no_seed_repeats_the_draws(self, users):
        assert self.drawn(users, 4, 10) != self.drawn(users, 4, 10)


class TestGuarantee:
    def test_epsilon_of_all_users_in_every_step_is_the_formula(self):
        """Renyi divergence alpha T / (2 sigma^2) (Mironov 2017, arXiv 1702.07476, proposition 7),
        turned into epsilon as by Canonne et al. 2020 (arXiv 2004.00010, proposition 12)."""
        sigma, steps, delta = 8.0, 10, 1e-5
        orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
        right = min(
            order * steps / (2 * sigma**2)
            + math.log1p(-1 / order)
            - (math.log(delta) + math.log(order)) / (order - 1)
            for order in orders
        )
        assert epsilon(sigma, 1.0, steps, delta) == pytest.approx(right, rel=1e-6)

    def test_it_is_a_true_bound_for_the_gaussian_mechanism(self):
        """Exact: Balle and Wang 2018 (arXiv 1805.06530, theorem 8), T steps being one of sigma over
        the root of T."""
        sigma, steps, delta = 4.0, 20, 1e-6
        found, mu = epsilon(sigma, 1.0, steps, delta), math.sqrt(steps) / sigma

        def exact(eps: float) -> float:
            there, back = norm.cdf(mu / 2 - eps / mu), norm.cdf(-mu / 2 - eps / mu)
            return float(there - math.exp(eps) * back)

        assert exact(found) <= delta < exact(0.8 * found)

    def test_fewer_drawn_more_noise_and_fewer_steps_cost_less(self):
        costs = [epsilon(1.0, rate, 100, 1e-6) for rate in (0.01, 0.1)]
        costs += [epsilon(1.0, 0.1, 1_000, 1e-6), epsilon(0.5, 0.1, 1_000, 1e-6)]
        assert costs == sorted(costs)
        assert costs[0] < costs[1] / 3

    def test_it_tells_users_rate_steps_and_unit(self, users):
        told = guarantee(training(epochs=3), count_users(users))
        assert (told.unit, told.users, told.sample_rate, told.steps) == ("user", 8, 0.5, 6)
        assert told.epsilon == epsilon(1.0, 0.5, 6, 1e-2)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"global_batch_size": 9}, "8 users have training events: lower it"),
            ({"privacy": {"noise_multiplier": 1.0, "delta": 0.2}}, "set it below 0.125"),
        ],
    )
    def test_what_promises_nothing_is_refused(self, users, changes, message):
        with pytest.raises(ValueError, match=message):
            check_training(MODEL, training(**changes), users)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"item_features": "hybrid"}, "holds each item's number of events"),
            ({"tuning": "lora"}, "goes without model.tuning 'lora'"),
            ({"user_encoder": "gru"}, "takes model.user_encoder transformer or hstu"),
        ],
    )
    def test_a_model_that_is_not_protected_as_a_whole_is_refused(self, users, changes, message):
        with pytest.raises(ValueError, match=message):
            check_private(MODEL.model_copy(update=changes), training(), users)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_workers": 2}, "needs num_workers 1, and it is 2"),
            ({"zero_stage": 2}, "needs zero_stage 0, and it is 2"),
            ({"num_negatives": 5}, "other users' targets would be among the negatives"),
            ({"rating_weight": 0.5}, "its head holds means of the data"),
            ({"augment": {"crop": 0.5}}, "needs augment without shares, and it is with shares"),
            ({"start_from": "a/checkpoint"}, "needs start_from left out"),
            ({"max_rollbacks": 2}, "needs max_rollbacks 0, and it is 2"),
        ],
    )
    def test_a_setting_that_lets_users_meet_is_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            training(**changes)

    def test_memory_has_a_gradient_of_each_user_in_a_part(self):
        shape = ModelShape(num_items=100, max_history=8, num_events=1, text_size=32)
        model = MODEL.model_copy(update={"projection_size": 10})
        # Numbers of a user: 1,000 weights, and of each item 16 of its vector and 20 within.
        right = 2 * 4 * (1_000 + 100 * 36)
        assert private_bytes(model, training(accumulation=2), shape, 1_000) == right
        assert private_bytes(model, training(privacy={}), shape, 1_000) == 0

    def test_without_noise_nothing_is_refused(self):
        assert not training(num_negatives=5, privacy={}).privacy.is_on
