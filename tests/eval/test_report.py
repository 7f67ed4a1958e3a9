"""The report page: well formed, complete, safe, self-contained, the same every time."""

from __future__ import annotations

import re

import pytest

from recsys.eval.report import render_report
from tests.html_page import Page

SEGMENTS = {"all": 1.0, "items:head": 1.2, "items:tail": 0.7, "items:cold": 0.3, "history:1-4": 0.9}
ATTACK = "<script>alert('x')</script>"


def metrics(recall: float, users: int = 100) -> dict[str, float]:
    by_cutoff = {
        f"{family}@{k}": recall * share * k / 10
        for family, share in {"recall": 1.0, "ndcg": 0.6, "mrr": 0.4, "hit_rate": 1.0}.items()
        for k in (1, 5, 10)
    }
    return by_cutoff | {"coverage@10": 0.3, "users": users}


def models(**recalls: float) -> dict[str, dict]:
    return {
        name: {segment: metrics(recall * factor) for segment, factor in SEGMENTS.items()}
        for name, recall in recalls.items()
    }


def report(**recalls: float) -> dict:
    return {
        "split": {"strategy": "time", "part": "test", "rows": 4533},
        "models": models(**(recalls or {"popularity": 0.06, "model": 0.12, "id_only": 0.1})),
        "examples": [{"history": ["Tea", "Cup"], "target": ["Pot"], "recommended": ["Pan", "Pot"]}],
        "data": {"num_users": 3000, "num_items": 1500},
    }


LOG = [
    {"step": 10, "loss": 7.1, "learning_rate": 0.001, "epoch": 0},
    {"step": 20, "loss": 6.9, "learning_rate": 0.001, "epoch": 0},
    {"step": 20, "epoch": 0, "valid_loss": 6.8, "valid_ndcg@10": 0.0712},
    {"step": 40, "epoch": 1, "valid_loss": 6.5, "valid_ndcg@10": 0.0634},
]
QUALITY = {
    "tables": {
        "interactions": {
            "read": 10000,
            "kept": 9000,
            "quarantined": 700,
            "dropped": {"duplicates": 260, "k_core": 40},
            "reasons": {"null_user_id": 200, "unknown_item": 500},
            "examples": {"unknown_item": [{"value": "shown on another page"}]},
            "advice": {"unknown_item": "shown on another page"},
            "warnings": {},
        },
        "items": {"read": 50, "kept": 50, "quarantined": 0, "dropped": {}, "reasons": {}},
    },
    "files": {},
    "profile": {"num_users": 3000},
}


def test_is_well_formed_with_every_model_and_segment() -> None:
    page = Page(render_report(report(), LOG, QUALITY))
    for word in ("model", "popularity", "id_only", *SEGMENTS, "coverage@10", "mrr@5", "4,533"):
        assert word in page.words, word
    assert page.tags.count("svg") == 5 + 2 + 2
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_is_self_contained() -> None:
    html = render_report(report(), LOG, QUALITY)
    page = Page(html)
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert "src=" not in html
    assert "@import" not in html
    assert "script" not in page.tags
    assert "link" not in page.tags
    links = [value or "" for name, value in page.attributes if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    targets = re.findall(r"url\(([^)]*)\)", html)
    assert all(target.startswith("#") for target in targets)


def test_escapes_titles_and_names() -> None:
    given = report(model=0.2, **{ATTACK: 0.1})
    given["models"]["model"][f"items:{ATTACK}"] = metrics(0.1) | {f"{ATTACK}@10": 0.5}
    given["models"]["model"]["all"][f"{ATTACK}@10"] = 0.5
    given["examples"] = [{"history": [ATTACK], "target": [ATTACK], "recommended": [ATTACK]}]
    given["data"] = {ATTACK: ATTACK}
    given["split"] = {ATTACK: ATTACK}
    log = [{"step": 1, "loss": 1.0, f"valid_{ATTACK}": 1.0}]
    wrong = {"read": 1, "kept": 0, "dropped": {ATTACK: 5}, "reasons": {ATTACK: 1}}
    quality = {"tables": {ATTACK: wrong}}
    html = render_report(given, log, quality)
    assert "<script" not in html
    assert "script" not in Page(html).tags
    assert ATTACK in Page(html).text


def test_dollar_signs_are_no_formulas() -> None:
    given = report()
    given["models"]["model"]["price:$1-$x^"] = metrics(0.1)
    assert "price:$1-$x^" in Page(render_report(given, [], {})).text


def test_same_report_same_bytes() -> None:
    pages = {render_report(report(), LOG, QUALITY).encode() for _ in range(3)}
    assert len(pages) == 1


@pytest.mark.parametrize(
    ("recalls", "verdict", "line"),
    [
        (
            {"model": 0.12, "popularity": 0.06, "id_only": 0.1},
            "beats every baseline at recall@10 and ndcg@10",
            "has 0.1200, 20.0% above the best baseline, id_only (0.1000)",
        ),
        (
            {"model": 0.09, "popularity": 0.06, "id_only": 0.1},
            "loses to a baseline at recall@10 and ndcg@10",
            "has 0.0900, 10.0% below the best baseline, id_only (0.1000)",
        ),
        (
            {"model": 0.1, "popularity": 0.1},
            "only level with the best baseline at recall@10 and ndcg@10",
            "has 0.1000, level with the best baseline, popularity (0.1000)",
        ),
        (
            {"model": 0.1, "popularity": 0.0},
            "beats every baseline",
            "has 0.1000, above the best baseline, popularity (0.0000)",
        ),
        ({"model": 0.1}, "compared with no baseline", "recall@10: there is nothing to compare."),
    ],
)
def test_says_how_the_model_fares(recalls: dict[str, float], verdict: str, line: str) -> None:
    text = Page(render_report(report(**recalls), LOG, QUALITY)).text
    assert f"The trained model {'is ' * verdict.startswith(('only', 'compared'))}{verdict}" in text
    assert line in text


def test_a_loss_at_one_metric_is_said_first() -> None:
    given = report(model=0.12, popularity=0.1)
    given["models"]["model"]["all"]["ndcg@10"] = 0.01
    text = Page(render_report(given, [], {})).text
    assert "loses to a baseline at ndcg@10." in text
    assert "20.0% above the best baseline" in text


def test_optional_parts_may_be_missing() -> None:
    page = Page(render_report({"models": {"model": {"all": {"recall@10": 0.1}}}}, [], {}))
    assert "There is no training log." in page.text
    for title in ("Examples", "Data quality", "By segment", "Evaluated on"):
        assert title not in page.words


def test_segments_and_values_may_be_missing() -> None:
    given = report()
    del given["models"]["popularity"]["items:cold"]
    given["models"]["id_only"]["items:cold"] = {"users": 0, "recall@10": None, "ndcg@10": None}
    given["models"]["id_only"]["all"]["ndcg@10"] = float("nan")
    log = [*LOG, {"step": 30, "loss": float("nan"), "epoch": 1}, {"epoch": 2}]
    text = Page(render_report(given, log, QUALITY)).text
    assert "nan" not in text
    assert "items:cold" in text


def test_headline_takes_the_nearest_cutoff() -> None:
    given = {"models": {"model": {"all": {"recall@5": 0.2, "recall@50": 0.4, "ndcg@5": 0.1}}}}
    assert "recall@5: there is nothing to compare." in Page(render_report(given, [], {})).text


def test_training_names_the_best_step() -> None:
    assert "Best valid ndcg@10: 0.0712 at step 20." in Page(render_report(report(), LOG, {})).text


def test_quality_counts_and_reasons() -> None:
    text = Page(render_report(report(), LOG, QUALITY)).text
    assert "interactions 10,000 9,000 700 300" in text
    assert "interactions: unknown item 500 5.0% interactions: null user id 200 2.0%" in text
    assert "items 50 50 0 0" in text
    assert "shown on another page" not in text
    assert "do not add up" not in text


def test_quality_counts_that_do_not_add_up_are_told() -> None:
    off = {"read": 50, "kept": 40, "quarantined": 1, "dropped": {"duplicates": 5, "k_core": 3}}
    given = {"tables": QUALITY["tables"] | {"items": off}}
    assert "The counts do not add up: items." in Page(render_report(report(), [], given)).text
    off["dropped"]["k_core"] = 4
    assert "do not add up" not in Page(render_report(report(), [], given)).text


def test_example_marks_what_came_next() -> None:
    assert "Pan Pot (came next)" in Page(render_report(report(), [], {})).text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no models"),
        ({"models": {"model": {"items:cold": {}}}}, "'model' has no segment 'all'"),
    ],
)
def test_refuses(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_report(given, [], {})
