"""What the tree promises: layers, sizes, light imports, configs that load, no machine's paths."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from recsys.config import ServeArgs, load_config

ROOT = Path(__file__).parents[1]
SKIPPED = {"outputs", "__pycache__", "node_modules"}
CODE = sorted(path for room in ("recsys", "ray_jobs") for path in (ROOT / room).rglob("*.py"))
VERBS = {"prepare", "train", "index", "evaluate", "pipeline", "generate", "serve"}
VERBS |= {"convert", "download", "forget", "complete", "compare", "explain", "transfer"}
VERBS |= {"pretrain", "distill", "analyze", "api_key", "promote", "rollback", "models"}
VERBS |= {"evaluate_search", "recommend", "audience", "forecast"}
VERBS |= {"doctor", "export", "fit_ranker", "refresh", "sweep", "canary", "estimate"}
MAX_FILE, MAX_VERB, MAX_FUNCTION, MAX_LONG_FUNCTION = 400, 60, 60, 120
TOMLS = sorted((ROOT / "ray_jobs" / "configs").glob("*.toml"))
YAMLS = sorted((ROOT / "serve_configs").glob("*.yaml"))
# Put together here, so that this file does not contain them.
MACHINE_PATHS = [f"/{name}/" for name in ("work", "root")] + ["/".join(["", "tmp", "v"])]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def tree() -> Iterator[Path]:
    """Every file of the project, without tools' folders and outputs."""
    for folder, folders, names in os.walk(ROOT):
        kept = [n for n in folders if n not in SKIPPED and (n == ".ci" or not n.startswith("."))]
        folders[:] = kept
        yield from (Path(folder) / name for name in names)


def functions(path: Path) -> Iterator[tuple[str, str, int]]:
    """(class or "", name, lines) of every function of a file."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    owners = {
        child: node.name
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
        for child in node.body
    }
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield owners.get(node, ""), node.name, length


def has_main_guard(path: Path) -> bool:
    return 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")


def loaded_by(statement: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` are loaded after `statement` in a fresh Python."""
    code = f"import sys\n{statement}\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_import_contracts_hold():
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_walks_find_the_code():
    names = {relative(path) for path in CODE}
    assert {"recsys/config/job.py", "recsys/data/prepare.py", "ray_jobs/train.py"} <= names
    assert {"pyproject.toml", "Makefile", ".ci/run"} <= {relative(path) for path in tree()}


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_a_file_is_short(path):
    assert num_lines(path) <= MAX_FILE


def test_every_stage_verb_is_a_short_program():
    programs = {path.stem: path for path in (ROOT / "ray_jobs").glob("*.py")}
    guarded = {name for name, path in programs.items() if has_main_guard(path)}
    assert guarded == VERBS | {"demo"}
    assert {v: num_lines(programs[v]) for v in VERBS if num_lines(programs[v]) > MAX_VERB} == {}


def test_every_function_is_short():
    too_long = []
    for path in CODE:
        for owner, name, length in functions(path):
            may_be_long = name == "train_loop" or owner == "Recommender"
            if length > (MAX_LONG_FUNCTION if may_be_long else MAX_FUNCTION):
                too_long.append(f"{relative(path)}: {name} has {length} lines")
    assert too_long == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("recsys.engine.recommender", ("ray", "deepspeed")),
        ("recsys.metrics", ("ray", "deepspeed")),
        ("recsys.config", ("torch", "ray", "pyarrow", "deepspeed")),
    ],
)
def test_an_import_stays_light(module, absent):
    assert loaded_by(f"import {module}", (module, *absent)) == [module]


@pytest.mark.parametrize("path", TOMLS, ids=relative)
def test_a_job_config_loads(path):
    load_config(path)


def test_the_named_job_configs_are_there():
    wanted = {"toy", "amazon18_industrial", "amazon14_beauty", "uci_online_retail"}
    assert wanted <= {path.stem for path in TOMLS}


@pytest.mark.parametrize("path", YAMLS, ids=relative)
def test_the_args_of_a_serve_config_are_valid(path):
    applications = yaml.safe_load(path.read_text(encoding="utf-8"))["applications"]
    assert applications
    for application in applications:
        ServeArgs.model_validate(application["args"])


def test_serve_configs_are_there():
    assert YAMLS


def test_no_text_file_names_a_path_of_one_machine():
    kinds = {".py", ".toml", ".yaml", ".yml", ".md", ".txt"}
    found = [
        f"{relative(path)}: {text}"
        for path in tree()
        if path.suffix in kinds or path.name == "Makefile" or relative(path) == ".ci/run"
        for text in MACHINE_PATHS
        if text in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_no_module_is_a_drawer_for_everything():
    vague = {"utils", "util", "helpers", "helper", "common", "base", "manager"}
    found = [
        relative(path)
        for path in tree()
        if path.suffix == ".py" and vague & set(path.relative_to(ROOT).with_suffix("").parts)
    ]
    assert found == []


def test_one_file_imports_deepspeed():
    statement = re.compile(r"^\s*(import|from) deepspeed\b", re.MULTILINE)
    found = [relative(p) for p in CODE if statement.search(p.read_text(encoding="utf-8"))]
    assert found == ["recsys/training/zero.py"]
