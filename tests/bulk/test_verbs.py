"""The command lines of the bulk jobs: flags go before the file, and faults are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.audience import Arguments as Audience
from ray_jobs.bulk import parse
from ray_jobs.forecast import Arguments as Forecast
from ray_jobs.forecast import forecast
from ray_jobs.recommend import Arguments as Recommend
from recsys.config.bulk import BulkConfig, load_bulk

PLACES = ["--dataset", "d", "--output", "o"]
MODEL = ["--checkpoint", "c", "--index", "i"]


def write(folder: Path, text: str) -> str:
    (folder / "bulk.toml").write_text(text, encoding="utf-8")
    return str(folder / "bulk.toml")


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "[recommend]\ntop_k = 5\n[histories]\nbatch_size = 8\nnum_workers = 7")
    argv = [*PLACES, *MODEL, "--config", path, "--histories.num-workers", "3"]
    found = parse(Recommend, "", argv)
    assert (found.recommend.top_k, found.recommend.filter_seen) == (5, True)
    assert (found.histories.batch_size, found.histories.num_workers) == (8, 3)
    assert parse(Recommend, "", [*argv, "--top-k", "4"]).recommend.top_k == 4


def test_several_items_have_an_audience() -> None:
    argv = [*PLACES, *MODEL, "--item-id", "a", "茶", "--top-users", "9"]
    found = parse(Audience, "", argv)
    assert (found.item_id, found.audience.top_users) == (("a", "茶"), 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[recommend]\ntop_n = 5",
            "bulk.toml: recommend.top_n: unknown key; allowed here: filter_",
        ),
        ("[forecast]\ninterval = 1.0", "forecast.interval: .* less than 1"),
        ("[recommend", "bulk.toml is not valid TOML"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(Recommend, "", [*PLACES, *MODEL, "--config", write(tmp_path, text)])


def test_a_bad_flag_is_told() -> None:
    with pytest.raises(ValueError, match="top_k"):
        parse(Recommend, "", [*PLACES, *MODEL, "--top-k", "0"])


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_bulk(write(tmp_path, "")) == BulkConfig()


def test_a_checkpoint_without_an_index_is_refused() -> None:
    with pytest.raises(ValueError, match="give both or neither"):
        forecast(parse(Forecast, "", [*PLACES, "--checkpoint", "c"]))
