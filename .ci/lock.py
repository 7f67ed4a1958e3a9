"""Write the locks: every package with its version and the hashes of its files, no index named.

`dev.txt` is what `make setup` installs, `image.txt` what cluster/Dockerfile does; either goes with
`cpu.txt` or `cuda.txt`, the two builds of torch. `tools.txt` is for .venv/tools, whose programs are
not to stand in the environment that they look at. Versions come from constraints.txt.
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
WANTED = {
    "dev": ["pyproject.toml", "--extra=dev"],
    "image": [
        "pyproject.toml",
        *(f"--extra={e}" for e in ("train", "serve", "rank", "s3", "demo", "build")),
    ],
    "tools": ["--group=pyproject.toml:supply"],
}
"""What uv is asked for."""
# The oldest of each line.
PYTHONS = ("3.11.0", "3.12.0")
# What torch's default build needs on Linux and its CPU build does not, and torch itself.
CUDA = re.compile(r"cuda-|nvidia-|(triton|torch)==")


def _resolve(wanted: list[str], python: str) -> dict[str, str]:
    """A pinned block of text a package, by its name."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *wanted]
    command += ["--constraints=constraints.txt"]
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
    """Those that the lock has already: another machine may have seen more of them."""
    path = LOCKS / "cpu.txt"
    text = path.read_text() if path.exists() else ""
    return _hashes(text) if f"torch=={version}+cpu " in text else set()


def _cpu_torch(block: str) -> str:
    """The CPU build's block, from the default build's."""
    version = block.split("==")[1].split()[0]
    hashes = sorted(_known_hashes(version) | _cpu_hashes(version))
    return " \\\n    ".join([f"torch=={version}+cpu", *(f"--hash={h}" for h in hashes)]) + "\n"


def _write(name: str, what: str, blocks: Iterable[str]) -> None:
    head = f"# {what}\n# Written by `make lock` from pyproject.toml and constraints.txt.\n"
    (LOCKS / f"{name}.txt").write_text(head + "".join(blocks))


def _joined(resolved: Iterable[dict[str, str]]) -> dict[str, str]:
    """What any Python needs: a package that another one does without is harmless there."""
    found: dict[str, str] = {}
    for blocks in resolved:
        for name, block in blocks.items():
            if found.setdefault(name, block) != block:
                sys.exit(f"error: Pythons {PYTHONS} need other versions of {name}")
    return dict(sorted(found.items()))


def main() -> None:
    """Resolve for each Python, and put the two builds of torch apart from the rest."""
    LOCKS.mkdir(exist_ok=True)
    resolved = {}
    for name, wanted in WANTED.items():
        blocks = _joined(_resolve(wanted, python) for python in PYTHONS)
        rest = [block for block in blocks.values() if not CUDA.match(block)]
        _write(name, f"From {' '.join(wanted)}, without torch.", rest)
        resolved[name] = blocks
    blocks = resolved["image"]
    cuda = [block for block in blocks.values() if CUDA.match(block)]
    _write("cuda", "torch's default build, which is for CUDA, and what it needs.", cuda)
    _write("cpu", "torch's CPU build.", [_cpu_torch(blocks["torch"])])


if __name__ == "__main__":
    main()
