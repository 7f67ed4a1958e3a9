"""The command line of jobs: what is refused, how it is told, and what is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.command import parse
from ray_jobs.serve import Arguments, write_config
from recsys.artifact import Artifact, ArtifactWriter

ROOT = Path(__file__).parents[1]
TOY = "ray_jobs/configs/toy.toml"


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_flags_go_before_the_file_and_the_file_before_defaults() -> None:
    command = parse("", ["--config", TOY, "--training.learning-rate", "3e-4"])
    assert command.job.training.learning_rate == 3e-4
    assert command.job.training.epochs == 12
    assert command.job.model.temperature == 0.07
    assert command.place("dataset") == "outputs/toy/dataset"


def test_the_config_may_be_given_with_an_equals_sign() -> None:
    assert parse("", [f"--config={TOY}"]).job.prepare.max_history == 30


def test_an_unknown_key_in_the_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "typo.toml"
    path.write_text("[training]\nepoch = 3\n")
    done = _run("ray_jobs.train", "--config", str(path))
    assert done.returncode != 0
    assert "training.epoch: unknown key; allowed here:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--config", TOY, "--training.learning-rate", "-1"],
        ["--config", TOY, "--training.learning-rat", "1"],
        [],
    ],
)
def test_a_bad_flag_is_refused_without_a_stack_trace(flags: list[str]) -> None:
    done = _run("ray_jobs.train", *flags)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    done = _run("ray_jobs.train", "--config", str(tmp_path / "none.toml"))
    assert done.returncode != 0
    assert "none.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_serve_config_takes_places_and_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    places = [_publish(tmp_path / kind, kind).uri for kind in ("checkpoint", "index", "ranker")]
    text = Path(write_config(Arguments(*places, port=4321))).read_text()
    assert "port: 4321" in text
    for place in places:
        assert f"{Path(place).name}: {place}" in text
    assert "ranker: ''" in Path(write_config(Arguments(*places[:2]))).read_text()


def test_serving_refuses_an_artifact_of_the_wrong_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    _publish(tmp_path / "index", "index")
    with pytest.raises(ValueError, match="a 'checkpoint' is needed"):
        write_config(Arguments(str(tmp_path / "index"), str(tmp_path / "index")))


def _publish(path: Path, kind: str) -> Artifact:
    return ArtifactWriter(path, kind).publish({}, {})
