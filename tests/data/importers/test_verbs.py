"""The two jobs: what they print, and how they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs import download
from recsys.data.public_sets import PublicSet, RemoteFile
from tests.data.importers.sources import put

ROOT = Path(__file__).parents[3]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs.convert", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_convert_prints_the_counts_and_the_output_last(tmp_path):
    path = put(tmp_path / "log.csv", "who;what;when\nu;007;5\nv;a;noon\n")
    done = run(
        *("--format", "tabular", "--input", path, "--output", tmp_path / "out"),
        *("--columns", "user_id=who", "item_id=what", "timestamp=when", "--delimiter", ";"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert "interactions: 2 read = 1 written + 1 rejected + 0 skipped" in done.stderr
    assert "rejected: 1 when is no number of s" in done.stderr
    assert (tmp_path / "out" / "interactions.parquet").exists()


def test_convert_tells_what_it_refuses_in_one_line(tmp_path):
    done = run("--format", "netflix", "--input", tmp_path, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("error: format 'netflix' is not one of amazon2018")
    assert done.stdout == ""


def test_download_tells_the_terms_before_it_fetches(tmp_path, capsys):
    file = RemoteFile("http://example.org/refused", None)
    public = PublicSet("x", (file,), "CC BY 4.0, of the made-up lab", "Nobody 2026", "movielens")
    with pytest.raises(ValueError, match="is not https"):
        download.show_and_fetch(public, tmp_path / "out")
    told = capsys.readouterr().err
    assert told.startswith("Licence: CC BY 4.0, of the made-up lab\nCite: Nobody 2026\n")


def test_download_names_the_sets_it_knows():
    with pytest.raises(ValueError, match="'movielens' is not one of movielens-100k, .*, esci"):
        download.find("movielens")
