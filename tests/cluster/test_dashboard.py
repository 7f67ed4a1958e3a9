"""The dashboard and the alerts speak of metrics that there are, and every alert has a runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from recsys.serving import metrics
from tests.cluster.strict import ROOT, load_yaml

DASHBOARD = json.loads((ROOT / "cluster/grafana/recsys.json").read_text(encoding="utf-8"))
RULE = load_yaml("cluster/overlays/production/alerts.yaml")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in RULE["spec"]["groups"] for rule in group["rules"]]
PLOTTED = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES = [*PLOTTED, *(alert["expr"] for alert in ALERTS)]
OF_SERVE = {"deployment", "replica", "application"}
SUFFIXES = {"Counter": [""], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
SELECTOR = re.compile(r"\b(ray_[a-z_]+)(?:\{([^}]*)\})?")


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The tags of every series that a replica exports."""
    found: dict[str, set[str]] = {}

    def declare(kind: str) -> Any:
        def made(name: str, _: str = "", tag_keys: tuple[str, ...] = (), **__: Any) -> None:
            more = {"le"} if kind == "Histogram" else set()
            for suffix in SUFFIXES[kind]:
                found[f"ray_{name}{suffix}"] = {*tag_keys, *OF_SERVE, *more}

        return made

    for kind in SUFFIXES:
        monkeypatch.setattr(metrics, kind, declare(kind))
    metrics.ServingMetrics()
    return found


def of_ray() -> set[str]:
    """Names of the metrics in Ray Serve's code; found without importing it."""
    (package,) = find_spec("ray").submodule_search_locations
    code = "".join(p.read_text(encoding="utf-8") for p in Path(package, "serve").rglob("*.py"))
    names = re.findall(r'f?"(serve_[a-z_{}]+)"', code)
    return {f"ray_{name.replace('{protocol_name}', 'http')}" for name in names}


def selectors() -> Iterator[tuple[str, set[str]]]:
    """Every metric of a query, and the tags by which it is selected."""
    for query in QUERIES:
        for name, tags in SELECTOR.findall(query):
            yield name, set(re.findall(r"([a-z_]+)=", tags))


def test_every_metric_of_ours_exists_with_the_tags_it_is_selected_by(
    declared: dict[str, set[str]],
) -> None:
    ours = [(name, tags) for name, tags in selectors() if name.startswith("ray_recsys_")]
    assert len(ours) > 20
    assert {name for name, _ in ours} <= set(declared)
    assert [(n, tags) for n, tags in ours if not tags <= declared[n]] == []


def test_every_metric_of_ray_exists() -> None:
    known = of_ray()
    wanted = {name for name, _ in selectors() if not name.startswith("ray_recsys_")}
    assert len(wanted) > 5
    plain = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in wanted}
    assert plain <= known


def test_queries_group_by_tags_that_there_are(declared: dict[str, set[str]]) -> None:
    groups = [
        (name, {tag.strip() for tag in tags.split(",")})
        for query in QUERIES
        for tags, name in re.findall(r"by \(([^)]+)\) \((?:rate\()?(ray_recsys_[a-z_]+)", query)
    ]
    assert len(groups) > 5
    assert [(name, tags) for name, tags in groups if not tags <= declared[name]] == []


def test_every_metric_of_ours_is_on_the_dashboard_and_in_the_table(
    declared: dict[str, set[str]],
) -> None:
    plotted = " ".join(PLOTTED)
    for name in {re.sub(r"_(bucket|sum|count)$", "", name) for name in declared}:
        assert name in plotted
        assert f"| `{name}` |" in OPERATIONS


def test_parentheses_of_queries_close() -> None:
    for query in QUERIES:
        for opens, closes in ("()", "{}", "[]"):
            assert query.count(opens) == query.count(closes), query


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_grave_it_is_and_has_a_runbook(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    section = OPERATIONS.partition(f"### {name}\n")[2].partition("\n### ")[0]
    assert "\nLook at: " in section
    assert "\nDo: " in section


def test_every_runbook_has_an_alert() -> None:
    told = re.findall(r"^### (Recsys\w+)$", OPERATIONS, flags=re.MULTILINE)
    assert told == [alert["alert"] for alert in ALERTS]


def test_panels_have_room_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for a, b in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below
