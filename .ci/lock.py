"""Write the locks: every package with its version and the hashes of its files, no index named.

`dev.txt` is what `make setup` installs, `image.txt` what cluster/Dockerfile does; `cuda.txt` is
what torch's CUDA build needs beside either. Versions come from constraints.txt.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / ".ci" / "lock"
EXTRAS = {"dev": ["dev"], "image": ["train", "serve", "s3", "demo"]}
# The oldest of each line; pymdown-extensions, which the docs need, asks for 3.11.5.
PYTHONS = ("3.11.5", "3.12.0")
# On Linux these come with torch's default build alone; its CPU build needs none of them.
CUDA = re.compile(r"cuda-|nvidia-|triton==")


def _resolve(extras: list[str], python: str) -> dict[str, str]:
    """A pinned block of text a package, by its name."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "pyproject.toml"]
    command += ["--constraints=constraints.txt", *(f"--extra={extra}" for extra in extras)]
    command += [f"--python-version={python}", "--python-platform=x86_64-manylinux_2_28"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    text = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {block.split("==")[0]: block for block in re.split(r"^(?=\S)", text, flags=re.M)[1:]}


def _hashes(text: str) -> set[str]:
    return set(re.findall(r"sha256:\w+", text))


def _cpu_hashes(version: str) -> set[str]:
    """Hashes of torch's CPU wheels that pip finds by its own settings."""
    found = set()
    for python in PYTHONS:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={python}"]
        command += ["--target=unused", "--report=-", f"torch=={version}+cpu"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"no CPU wheel of torch {version} for Python {python} here", file=sys.stderr)
        else:
            found |= _report_hashes(done.stdout)
    return found


def _report_hashes(report: str) -> set[str]:
    (wheel,) = json.loads(report)["install"]
    return {"sha256:" + wheel["download_info"]["archive_info"]["hashes"]["sha256"]}


def _known_hashes(version: str) -> set[str]:
    """What the lock that is there says of the same torch: another machine may have seen more."""
    path = LOCKS / "dev.txt"
    text = path.read_text() if path.exists() else ""
    block = re.search(rf"^torch=={re.escape(version)} .*(?:\n    .*)*", text, re.M)
    return _hashes(block.group()) if block else set()


def _torch(block: str) -> str:
    """torch's block with the hashes of both its builds."""
    version = block.split("==")[1].split()[0]
    hashes = sorted(_hashes(block) | _known_hashes(version) | _cpu_hashes(version))
    return " \\\n    ".join([f"torch=={version}", *(f"--hash={h}" for h in hashes)]) + "\n"


def _write(name: str, what: str, blocks: Iterable[str]) -> None:
    head = f"# {what} Written by `make lock` from pyproject.toml and constraints.txt.\n"
    (LOCKS / f"{name}.txt").write_text(head + "".join(blocks))


def main() -> None:
    """Resolve for each Python, add torch's CPU wheels, and put what only CUDA needs apart."""
    LOCKS.mkdir(exist_ok=True)
    resolved = {}
    for name, extras in EXTRAS.items():
        oldest, *others = (_resolve(extras, python) for python in PYTHONS)
        if others != [oldest] * len(others):
            sys.exit(f"error: the extras {extras} need other packages on another Python")
        resolved[name] = oldest
    torch = _torch(resolved["dev"]["torch"])
    for name, blocks in resolved.items():
        kept = [torch if key == "torch" else b for key, b in blocks.items() if not CUDA.match(b)]
        _write(name, f"Extras {', '.join(EXTRAS[name])}.", kept)
    cuda = [block for block in resolved["image"].values() if CUDA.match(block)]
    _write("cuda", "What torch's CUDA build needs beside dev.txt or image.txt.", cuda)


if __name__ == "__main__":
    main()
