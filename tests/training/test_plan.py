"""What a dry run says, of every recipe and of a dataset, without a Ray and without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_jobs import command, train
from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import JobConfig, TrainingConfig
from recsys.training.optimizer import learning_rate_factor
from recsys.training.plan import GIB, Machine, Plan, plan_at, render, warnings
from recsys.training.zero import deepspeed_config
from tests.training.test_memory import write_qwen_8b

CONFIGS = Path(__file__).parents[2] / "ray_jobs" / "configs"
# Of each recipe: items, windows, and the memory of the device it is for.
RECIPES = {
    "cpu": (20_000, 1_000_000, 8 * GIB),
    "gpu": (100_000, 1_000_000, 24 * GIB),
    "node8": (1_000_000, 10_000_000, 80 * GIB),
    "nodes_8b": (1_000_000, 10_000_000, 80 * GIB),
}
NOTHING = Machine(gpus=(), ram=1 << 50)


@pytest.fixture(scope="session")
def qwen_8b(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_qwen_8b(tmp_path_factory.mktemp("qwen_8b"))


@pytest.fixture
def dataset(tmp_path: Path) -> Artifact:
    """The manifest of a dataset of 30 items and 1,001 windows."""
    writer = ArtifactWriter(tmp_path / "run" / "dataset", "dataset")
    prepare = {"max_history": 7, "max_item_tokens": 9, "events": ["view", "click"]}
    facts = {"num_items": 30, "train_targets": 5_005, "rows": {"train": 1_001}}
    writer.publish({"prepare": prepare}, {}, facts)
    return open_artifact(tmp_path / "run" / "dataset", "dataset")


def ids(**training: object) -> JobConfig:
    told = {"num_workers": 2, "global_batch_size": 10, "epochs": 3, **training}
    return JobConfig.model_validate({"model": {"item_features": "id"}, "training": told})


def parsed(recipe: str, *flags: str) -> command.Command:
    return command.parse("", ["--config", str(CONFIGS / f"{recipe}.toml"), *flags])


def recipe_plan(name: str, qwen_8b: str, tmp_path: Path) -> Plan:
    flags = ["--model.backbone", qwen_8b] if name == "nodes_8b" else []
    items, windows, _ = RECIPES[name]
    return plan_at(parsed(name, *flags).job, str(tmp_path / "none"), items, windows)


class TestRecipes:
    @pytest.mark.parametrize("name", RECIPES)
    def test_a_rank_fits_the_device_that_the_recipe_is_for(self, name, qwen_8b, tmp_path):
        plan = recipe_plan(name, qwen_8b, tmp_path)
        assert 0 < plan.memory.device < 0.8 * RECIPES[name][2]

    @pytest.mark.parametrize("name", RECIPES)
    def test_the_settings_that_are_told_are_deepspeeds(self, name, qwen_8b, tmp_path):
        plan = recipe_plan(name, qwen_8b, tmp_path)
        told = render(plan, NOTHING).split("\nDeepSpeed\n")[1]
        assert json.loads(told) == deepspeed_config(plan.training)

    def test_only_zero_3_lets_eight_billion_weights_learn_on_80_gib(self, qwen_8b, tmp_path):
        plan = recipe_plan("nodes_8b", qwen_8b, tmp_path)
        assert plan.weights.frozen > 7e9
        assert plan.memory.weights < 0.5 * GIB
        full = parsed("nodes_8b", "--model.backbone", qwen_8b, "--model.tuning", "full").job
        told = full.model_copy(
            update={"training": full.training.model_copy(update={"zero_stage": 2})}
        )
        assert plan_at(told, str(tmp_path), 1_000_000, 10_000_000).memory.device > 50 * GIB


class TestPlan:
    def test_sizes_are_those_of_the_dataset(self, dataset):
        plan = plan_at(ids(), dataset.uri, None, None)
        assert (plan.steps_an_epoch, plan.total_steps) == (101, 303)
        assert (plan.shape.max_history, plan.shape.num_events) == (7, 2)
        # 10 windows over 2 workers, of 5 targets each, and all 30 items.
        assert (plan.work.positions, plan.work.candidates) == (25, 30)

    def test_the_text_names_batch_steps_and_rates(self, dataset):
        told = render(plan_at(ids(accumulation=5), dataset.uri, None, None), NOTHING)
        assert "10 windows a step: 2 workers x 5 parts x 1 windows" in told
        assert "3 epochs x 101 = 303" in told
        rates = dict(line.split()[1:] for line in told.splitlines() if line.startswith("  step "))
        peak = TrainingConfig().learning_rate
        for step, rate in rates.items():
            right = peak * learning_rate_factor(int(step), 303, 0.05)
            assert float(rate) == pytest.approx(right, rel=0.005)
        assert float(rates["14"]) == peak
        assert {"0", "14", "302"} < rates.keys()

    def test_equal_configs_share_a_digest_and_others_do_not(self, dataset):
        one, same = (plan_at(ids(), dataset.uri, None, None) for _ in range(2))
        other = plan_at(ids(seed=1), dataset.uri, None, None)
        assert one.digest == same.digest != other.digest

    def test_an_option_that_does_not_fit_the_dataset_is_refused(self, dataset):
        with pytest.raises(ValueError, match="purchase"):
            plan_at(ids(event_weights={"purchase": 2.0}), dataset.uri, None, None)

    @pytest.mark.parametrize("sizes", [(None, None), (5, None), (None, 5), (0, 5), (5, -1)])
    def test_without_a_dataset_both_sizes_must_be_told(self, tmp_path, sizes):
        with pytest.raises(ValueError, match="--items and --windows"):
            plan_at(ids(), str(tmp_path), *sizes)

    def test_a_size_beside_a_dataset_is_refused(self, dataset):
        with pytest.raises(ValueError, match="leave out"):
            plan_at(ids(), dataset.uri, 30, None)


class TestWarnings:
    def warned(self, dataset: Artifact, machine: Machine, **changes: object) -> list[str]:
        return warnings(plan_at(ids(**changes), dataset.uri, None, None), machine)

    def test_none_where_it_fits(self, dataset):
        assert self.warned(dataset, NOTHING) == []
        large = Machine(gpus=(80 * GIB,) * 2, ram=1 << 40)
        assert self.warned(dataset, large, use_gpu=True) == []

    def test_cpu_workers_share_the_machines_memory(self, dataset):
        need = plan_at(ids(), dataset.uri, None, None).memory.device
        assert self.warned(dataset, Machine((), 2 * need)) == []
        [told] = self.warned(dataset, Machine((), 2 * need - 1))
        assert "2 workers" in told

    def test_a_gpu_that_is_too_small_and_one_that_is_missing(self, dataset):
        [small] = self.warned(dataset, Machine((1 << 20,), 1 << 40), use_gpu=True)
        assert "a GPU has 0.0 GiB" in small
        [missing] = self.warned(dataset, NOTHING, use_gpu=True)
        assert "no GPU here" in missing

    def test_a_host_that_cannot_hold_what_is_offloaded(self, dataset):
        told = {"use_gpu": True, "offload_optimizer": "cpu"}
        [host] = self.warned(dataset, Machine((80 * GIB,) * 2, 1_000), **told)
        assert "2 ranks on this host" in host


class TestCommand:
    def test_a_dry_run_prints_the_plan_and_writes_nothing(self, dataset, tmp_path, capsys):
        config = tmp_path / "run.toml"
        config.write_text("[model]\nitem_features = 'id'\n")
        before = sorted(tmp_path.rglob("*"))
        train.main(["--config", str(config), "--output", str(tmp_path / "run"), "--dry-run"])
        told = capsys.readouterr().out
        assert told.startswith("config ")
        assert dataset.uri in told
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_wrong_setting_is_told_in_one_line(self, tmp_path):
        config = tmp_path / "run.toml"
        config.write_text("[training]\nzero_stage = 2\noffload_parameters = 'cpu'\n")
        with pytest.raises(SystemExit, match="^error: .*offload_parameters 'cpu'"):
            train.main(["--dry-run", "--config", str(config)])
