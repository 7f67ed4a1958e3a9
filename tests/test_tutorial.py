"""The tutorial's blocks: the tables are written, every command and request is one that is taken."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import tyro

from ray_jobs.command import parse
from ray_jobs.serve import Arguments
from recsys.config import load_config
from recsys.data.quality import ADVICE
from recsys.serving.api.requests import RecommendRequest, SearchRequest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def commands(start: str) -> list[list[str]]:
    """The words of each shell command that begins so."""
    return [shlex.split(block) for block in blocks("bash") if block.startswith(start)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a newcomer is after steps 1 and 2."""
    folder = tmp_path_factory.mktemp("tutorial")
    [tables], [settings] = blocks("python"), blocks("toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(tables, "docs/tutorial.md", "exec"), {})
    (folder / "shop.toml").write_text(settings)
    return folder


def test_the_tables_have_one_mistake_and_the_page_names_its_rule(folder: Path) -> None:
    interactions = pl.read_parquet(folder / "shop/interactions.parquet")
    items = pl.read_parquet(folder / "shop/items.parquet")
    wrong = interactions.join(items, on="item_id", how="anti")
    assert wrong["item_id"].to_list() == ["no-such-item"]
    assert interactions["user_id"].n_unique() == 150
    [rule] = re.findall(r"by the rule `(\w+)`", PAGE)
    assert rule in ADVICE


def test_the_jobs_take_the_commands_and_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    jobs = [*commands("python -m ray_jobs.pr"), *commands("python -m ray_jobs.pi")]
    assert [words[2] for words in jobs] == ["ray_jobs.prepare", "ray_jobs.pipeline"]
    for words in jobs:
        command = parse("", words[3:])
        assert command.job == load_config(folder / "shop.toml")
        assert command.place("report") == "outputs/shop/report"
        assert Path(command.data, "items.parquet").is_file()


def test_what_is_served_is_what_the_pipeline_wrote() -> None:
    [words] = commands("python -m ray_jobs.serve")
    arguments = tyro.cli(Arguments, args=words[3:])
    assert (arguments.checkpoint, arguments.index) == (
        "outputs/shop/checkpoint",
        "outputs/shop/index",
    )
    assert arguments.port == 8000


def test_the_service_takes_the_requests_of_items_that_the_shop_has(folder: Path) -> None:
    recommend, search = ((words[2], words[-1]) for words in commands("curl"))
    assert (recommend[0], search[0]) == (
        "localhost:8000/v1/recommend",
        "localhost:8000/v1/search",
    )
    asked = RecommendRequest.model_validate(json.loads(recommend[1]))
    known = set(pl.read_parquet(folder / "shop/items.parquet")["item_id"])
    assert asked.history is not None
    assert set(asked.history) <= known
    assert SearchRequest.model_validate(json.loads(search[1])).text == "kettle for tea"
