"""Resume checkpoints: what is damaged is named and refused, and the last good one is loaded."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs as pafs
import pytest
import ray.train
import torch
import torch.distributed
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recsys.config import TrainingConfig
from recsys.training import workers, zero
from recsys.training.checkpoint import (
    Seat,
    clear_scratch,
    load_newest,
    save,
    uri_of,
    write_shards,
)
from recsys.training.cursor import Cursor
from recsys.training.lease import Lease, LeaseError
from recsys.training.retention import KEPT_NEWEST, best_first, delete_obsolete, goodness, obsolete
from recsys.training.shards import (
    COMMIT,
    VERSION,
    Commit,
    ShardError,
    UnfinishedError,
    fetch_all,
    folder_name,
    list_checkpoints,
    upload_part,
)
from recsys.training.workers import Keeper, forget_snapshot, process_group, survival
from recsys.training.zero import start_engine

SHARDS = ("state/rank_0_optim_states.pt", "state/rank_1_optim_states.pt")


def commit(step: int, save_id: str = "a", world_size: int = 2, **metrics: float) -> Commit:
    return Commit(
        version=VERSION,
        save_id=save_id,
        world_size=world_size,
        step=step,
        epoch=0,
        windows=4 * step,
        metrics=metrics,
    )


def make(run: Path, step: int, save_id: str = "a", **metrics: float) -> Path:
    """A whole checkpoint of two ranks whose files hold a few bytes; returns its folder."""
    place = run / folder_name(step, 0)
    for rank in (1, 0):
        files = run / f"local-{rank}"
        (files / "state").mkdir(parents=True, exist_ok=True)
        (files / SHARDS[rank]).write_bytes(bytes([rank]) * 40)
        upload_part(files, str(place), rank, commit(step, save_id, **metrics))
    return place


def flip(place: Path) -> None:
    content = bytearray((place / SHARDS[1]).read_bytes())
    content[17] ^= 1
    (place / SHARDS[1]).write_bytes(content)


def truncate(place: Path) -> None:
    (place / SHARDS[1]).write_bytes((place / SHARDS[1]).read_bytes()[:-1])


def swap(place: Path, first: str, second: str) -> None:
    one, other = (place / first).read_bytes(), (place / second).read_bytes()
    (place / first).write_bytes(other)
    (place / second).write_bytes(one)


def tear_manifest(place: Path) -> None:
    path = place / "manifest-00001.json"
    path.write_text(path.read_text()[:50])


def mix_saves(place: Path) -> None:
    """Rank 1 died in a save and left the folder of a save before with a manifest of its own."""
    path = place / "manifest-00001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"save_id": "b"}))


def later_release(place: Path) -> None:
    path = place / COMMIT
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": VERSION + 1}))


FAULTS: dict[str, tuple[Callable[[Path], Any], type[ShardError], str]] = {
    "a flipped bit": (flip, ShardError, f"'{SHARDS[1]}' was altered"),
    "a lost end": (truncate, ShardError, f"'{SHARDS[1]}' is torn: 39 bytes of 40"),
    "two ranks' shards swapped": (
        lambda place: swap(place, *SHARDS),
        ShardError,
        f"'{SHARDS[0]}' was altered, or is another rank's",
    ),
    "two ranks' manifests swapped": (
        lambda place: swap(place, "manifest-00000.json", "manifest-00001.json"),
        ShardError,
        "'manifest-00000.json' is of rank 1 of 2, not of rank 0 of 2",
    ),
    "a torn manifest": (tear_manifest, ShardError, "'manifest-00001.json' is damaged"),
    "a later release": (later_release, ShardError, "update recsys"),
    "a shard gone": (
        lambda place: (place / SHARDS[1]).unlink(),
        UnfinishedError,
        f"'{SHARDS[1]}' is missing",
    ),
    "a manifest gone": (
        lambda place: (place / "manifest-00001.json").unlink(),
        UnfinishedError,
        "'manifest-00001.json' is missing",
    ),
    "no commit": (lambda place: (place / COMMIT).unlink(), UnfinishedError, "earlier release"),
    "two saves mixed": (mix_saves, UnfinishedError, "'manifest-00001.json' and .* two saves"),
}


def test_a_whole_checkpoint_is_brought_as_it_was_written(tmp_path: Path) -> None:
    place = make(tmp_path, 3)
    (place / "state" / "left_by_a_killed_save.pt").touch()
    assert fetch_all(str(place), tmp_path / "here") == commit(3)
    found = {p.name: p.read_bytes() for p in (tmp_path / "here").rglob("*") if p.is_file()}
    assert found == {Path(name).name: bytes([rank]) * 40 for rank, name in enumerate(SHARDS)}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_is_named_and_refused(tmp_path: Path, fault: str) -> None:
    place = make(tmp_path, 3)
    damage, kind, told = FAULTS[fault]
    damage(place)
    with pytest.raises(ShardError, match=told) as refusal:
        fetch_all(str(place), tmp_path / "here")
    assert type(refusal.value) is kind
    assert str(place) in str(refusal.value)


def test_checkpoints_are_listed_newest_first_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("step_00000009_epoch_0001", "step_00000010_epoch_0000", "step_1", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_123456789_epoch_0002").mkdir()
    assert list_checkpoints(str(tmp_path)) == [
        "step_123456789_epoch_0002",
        "step_00000010_epoch_0000",
        "step_00000009_epoch_0001",
    ]
    assert list_checkpoints(str(tmp_path / "not there")) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3, math.nan])), min_size=1, max_size=9
    ),
    st.sets(st.integers(0, 8)),
)
def test_the_newest_and_the_best_are_kept_and_no_more(scores: list, torn: set[int]) -> None:
    commits: dict[str, Commit | None] = {}
    for step in reversed(range(len(scores))):
        metrics = {} if scores[step] is None else {"score": scores[step]}
        commits[f"{step}"] = None if step in torn else commit(step, **metrics)
    whole = {name: found for name, found in commits.items() if found is not None}
    kept = set(commits) - set(obsolete(commits, "score"))
    assert set(list(whole)[:KEPT_NEWEST]) <= kept <= set(whole)
    if whole:
        assert max(whole, key=lambda name: goodness(whole[name], "score")) in kept
    assert len(kept) <= 4


def test_a_save_deletes_what_is_neither_new_nor_good_and_leaves_what_comes_after(tmp_path):
    for step, score in enumerate([0.5, 0.9, 0.1, 0.2, 0.3]):
        make(tmp_path, step, score=score)
    make(tmp_path, 9)
    (tmp_path / folder_name(2, 0) / COMMIT).unlink()
    delete_obsolete(str(tmp_path), folder_name(4, 0), "score")
    assert [int(name[5:13]) for name in list_checkpoints(str(tmp_path))] == [9, 4, 3, 1, 0]
    assert best_first(str(tmp_path), "score")[0] == str(tmp_path / folder_name(1, 0))


def test_without_a_metric_the_newest_is_the_best(tmp_path: Path) -> None:
    for step in (1, 2):
        make(tmp_path, step, score=1.0 / step)
    assert best_first(str(tmp_path), None)[0] == str(tmp_path / folder_name(2, 0))


def test_a_run_whose_lease_was_taken_stops_at_its_next_checkpoint(tmp_path: Path) -> None:
    lease = Lease(str(tmp_path), wait=lambda seconds: None)
    keeper = Keeper(str(tmp_path), None, lease)
    keeper.after_report(None, [], None)
    lease.release()
    Lease(str(tmp_path), wait=lambda seconds: None)
    with pytest.raises(LeaseError, match="is being trained by process"):
        keeper.after_report(None, [], None)


def test_rays_own_list_is_forgotten_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / workers.SNAPSHOT).write_text('{"checkpoint_res')
    forget_snapshot(str(tmp_path))
    forget_snapshot(str(tmp_path))
    assert not (tmp_path / workers.SNAPSHOT).exists()


def test_the_run_waits_as_long_and_survives_as_much_as_the_config_says() -> None:
    config = TrainingConfig(collective_timeout_s=77, max_failures=5)
    assert process_group(config).timeout_s == 77
    assert (survival(config).max_failures, survival(config).max_preemption_failures) == (5, -1)
    assert not survival(config).relax_collectives_on_preemption


def test_places_are_told_as_uris() -> None:
    s3 = pafs.S3FileSystem(region="us-east-1", anonymous=True)
    assert uri_of(s3, "shop/run") == "s3://shop/run"
    assert uri_of(pafs.LocalFileSystem(), "/shop/run") == "/shop/run"


class FullDisk:
    """An engine whose shards find no room."""

    def save_checkpoint(self, folder: str, **rest: object) -> None:
        (Path(folder) / "half").touch()
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_and_keeps_no_half_of_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"step 4 cannot be written.*free the disk"):
        write_shards(FullDisk(), Cursor(step=4), [], 0, f"{tmp_path}/half-")
    assert list(tmp_path.iterdir()) == []


class NoShards:
    """An engine that writes one file, and is alone."""

    device = torch.device("cpu")

    def save_checkpoint(self, folder: str, **rest: object) -> None:
        (Path(folder) / "weights.pt").write_bytes(b"weights")


def test_a_save_hands_over_whole_local_files_and_commits_once_they_are_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SimpleNamespace(
        storage_filesystem=pafs.LocalFileSystem(),
        experiment_fs_path=str(tmp_path / "run"),
        build_checkpoint_path_from_name=lambda name: str(tmp_path / "run" / name),
    )
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_storage=lambda: storage
    )
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "report", lambda metrics, **rest: reports.append(rest))
    save(NoShards(), Cursor(epoch=1, step=7), [{"loss": 1.0}], {"score": 0.5})
    (told,) = reports
    local = Path(told["checkpoint"].path)
    assert (local / "weights.pt").read_bytes() == b"weights"
    assert told["checkpoint_upload_mode"] == ray.train.CheckpointUploadMode.ASYNC
    assert told["delete_local_checkpoint_after_upload"]
    assert list_checkpoints(str(tmp_path / "run")) == []
    uploaded = told["checkpoint_upload_fn"](told["checkpoint"], told["checkpoint_dir_name"])
    assert uploaded.path == str(tmp_path / "run" / folder_name(7, 1))
    found = fetch_all(uploaded.path, tmp_path / "here")
    assert (found.step, found.epoch, found.metrics) == (7, 1, {"score": 0.5})
    clear_scratch(str(tmp_path / "run"))
    assert not local.exists()


def test_a_run_without_a_whole_checkpoint_begins_anew_and_one_with_bad_ones_stops(
    tmp_path: Path,
) -> None:
    seat = Seat(rank=0, world_size=1, node=0, local_rank=0)
    place = make(tmp_path, 3)
    (place / COMMIT).unlink()
    assert load_newest(NoShards(), str(tmp_path), seat) == (Cursor(), [])
    flip(make(tmp_path, 3))
    with pytest.raises(ShardError, match=r"none of the 1 checkpoints .* delete that folder") as why:
        load_newest(NoShards(), str(tmp_path), seat)
    assert SHARDS[1] in str(why.value)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    model.register_buffer("seen", torch.zeros(2))
    return model


def train(engine: Any, rank: int, world_size: int, first: int, last: int) -> list[float]:
    """Losses of all ranks over steps of four examples each."""
    losses = []
    for step in range(first, last):
        random = torch.Generator().manual_seed(step)
        inputs = torch.randint(0, 11, (4,), generator=random)[rank::world_size]
        targets = torch.randn(4, 3, generator=random)[rank::world_size]
        loss = ((engine(inputs) - targets) ** 2).mean()
        engine.backward(loss)
        engine.step()
        mean = loss.detach().clone()
        torch.distributed.all_reduce(mean)
        losses.append(mean.item() / world_size)
    return losses


def run_rank(rank: int, world_size: int, folder: str, stages: list[int], work: Callable) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(world_size)}
    torch.set_num_threads(1)
    # It would compile an extension that sums over shared memory; gloo does without.
    zero.deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet-{work.__name__}",
        rank=rank,
        world_size=world_size,
    )
    for stage in stages:
        config = TrainingConfig(
            num_workers=world_size, global_batch_size=4, zero_stage=stage, precision="fp32"
        )
        told = work(lambda c=config: start_engine(small_model(), c, 20), rank, f"{folder}/{stage}")
        if rank == 0:
            Path(f"{folder}/{work.__name__}-{stage}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


def two_ranks(start: Callable[[], Any], rank: int, run: str) -> dict[str, Any]:
    """Train, save twice, tear the second, and go on from what is found."""
    engine = start()
    for last in (2, 4):
        train(engine, rank, 2, last - 2, last)
        engine.module.seen.fill_(last)
        cursor = Cursor(windows=4 * last, step=last)
        files = write_shards(engine, cursor, [{"step": last}], rank, f"{run}-local-")
        place = f"{run}/{folder_name(last, 0)}"
        upload_part(files, place, rank, commit(last, f"save-{last}"))
    torch.distributed.barrier()
    losses = train(engine, rank, 2, 4, 8)
    if rank == 1:
        shard = next(Path(place).glob("state/*rank_1_*optim_states.pt"))
        shard.write_bytes(shard.read_bytes()[:-100])
    torch.distributed.barrier()
    fresh = start()
    cursor, log = load_newest(fresh, run, Seat(rank, 2, 0, rank))
    resumed = train(fresh, rank, 2, 2, 8)
    return {"step": cursor.step, "log": log, "losses": losses, "resumed": resumed}


def one_rank(start: Callable[[], Any], rank: int, run: str) -> dict[str, Any]:
    """Go on from what two ranks saved."""
    engine = start()
    cursor, _ = load_newest(engine, run, Seat(0, 1, 0, 0))
    seen = engine.module.seen.tolist()
    return {"step": cursor.step, "seen": seen, "resumed": train(engine, rank, 1, 2, 8)}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[str, Any]]:
    """What ranks told of ZeRO stages 2 and 3, first two ranks, then one."""
    folder = tmp_path_factory.mktemp("ranks")
    for world_size, work in ((2, two_ranks), (1, one_rank)):
        given_all = (world_size, str(folder), [2, 3], work)
        torch.multiprocessing.spawn(run_rank, given_all, nprocs=world_size)
    return lambda name, stage: json.loads((folder / f"{name}-{stage}.json").read_text())


@pytest.mark.parametrize("stage", [2, 3])
def test_all_ranks_refuse_what_one_finds_torn_and_go_on_from_the_one_before(told, stage) -> None:
    found = told("two_ranks", stage)
    assert (found["step"], found["log"]) == (2, [{"step": 2}])
    assert found["resumed"][2:] == pytest.approx(found["losses"], abs=1e-6)


@pytest.mark.parametrize("stage", [2, 3])
def test_one_rank_goes_on_where_two_stopped(told, stage) -> None:
    found, before = told("one_rank", stage), told("two_ranks", stage)
    assert (found["step"], found["seen"]) == (2, [2.0, 2.0])
    assert found["resumed"] == pytest.approx(before["resumed"], abs=1e-5)
