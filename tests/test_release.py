"""What is released: locks that agree with the pins, and a wheel that holds what the code reads."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / ".ci/lock"
INSTALLERS = {"pip", "setuptools"}
"""Which `pip freeze` leaves out, and so do the constraints."""


def pins(text: str) -> dict[str, str]:
    """Version by package, of constraints or of a lock."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def lock(name: str) -> str:
    return (LOCKS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make wheel` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    program = Path(sys.executable).parent / "hatchling"
    command = [program, "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_the_locks_hold_the_versions_of_the_constraints() -> None:
    wanted = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    torch = wanted.pop("torch")
    locked = pins(lock("dev")) | pins(lock("tools"))
    assert {name: v for name, v in locked.items() if name not in INSTALLERS} == wanted, "make lock"
    assert pins(lock("image")).items() | pins(lock("tools")).items() <= locked.items()
    assert pins(lock("dev")).items() <= locked.items()
    assert pins(lock("cpu")) == {"torch": f"{torch}+cpu"}
    assert pins(lock("cuda"))["torch"] == torch


@pytest.mark.parametrize("name", ["dev", "image", "tools", "cpu", "cuda"])
def test_every_package_of_a_lock_has_a_hash_and_no_place_it_comes_from(name: str) -> None:
    blocks = re.split(r"^(?=[A-Za-z])", lock(name), flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", block), block


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    rooms = [path for room in ("recsys", "ray_jobs") for path in (ROOT / room).rglob("*")]
    files = {p.relative_to(ROOT).as_posix() for p in rooms if p.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    assert {Path(name).suffix for name in wanted} >= {".py", ".toml", ".html"}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_is_imported_from_where_nothing_else_is(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import recsys.config, ray_jobs.command as c; print(recsys.__file__, c.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(str(tmp_path)) == 2
