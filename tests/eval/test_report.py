"""The report page: well formed, complete, safe, self-contained, the same every time."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recsys.eval.item_map import ItemMap
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
    for word in ("model", "popularity", "id_only", *SEGMENTS, "coverage", "mrr", "@5", "4,533"):
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
    given["models"]["model"][f"user:{ATTACK}={ATTACK}"] = metrics(0.1)
    gap = {"gap": 0.1, "low": 0.0, "high": 0.2, "best": ATTACK, "worst": ATTACK}
    given["fairness"] = {ATTACK: {"model": gap}}
    given["examples"] = [{"history": [ATTACK], "target": [ATTACK], "recommended": [ATTACK]}]
    given["mistakes"] = [given["examples"][0] | {"rank": ATTACK, "events": ATTACK}]
    given["data"] = {ATTACK: ATTACK}
    given["split"] = {ATTACK: ATTACK}
    log = [{"step": 1, "loss": 1.0, f"valid_{ATTACK}": 1.0}]
    wrong = {"read": 1, "kept": 0, "dropped": {ATTACK: 5}, "reasons": {ATTACK: 1}}
    quality = {"tables": {ATTACK: wrong}}
    items = ItemMap(np.zeros((1, 2)), np.zeros(1, dtype=int), [ATTACK], 0.5)
    html = render_report(given, log, quality, items)
    assert "<script" not in html
    assert "script" not in Page(html).tags
    assert ATTACK in Page(html).text


def test_dollar_signs_are_no_formulas() -> None:
    given = report()
    given["models"]["model"]["price:$1-$x^"] = metrics(0.1)
    assert "price:$1-$x^" in Page(render_report(given, [], {})).text


ITEMS = ItemMap(
    points=np.random.default_rng(0).normal(size=(50, 2)),
    categories=np.arange(50) % 3,
    names=["鞋子", "工具", "other"],
    kept_variance=0.42,
)


def test_same_report_same_bytes() -> None:
    given = report() | {"confidence": confidence(0.01)}
    pages = {render_report(given, LOG, QUALITY, ITEMS).encode() for _ in range(3)}
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


def confidence(half: float, **margins: float) -> dict:
    """Intervals of this half width around 0.1, and around margins over baselines."""
    names = ("recall@10", "ndcg@10")
    ends = {"popularity": 0.06, "model": 0.12, "id_only": 0.1}
    return {
        "level": 0.95,
        "models": {n: {m: [v - half, v + half] for m in names} for n, v in ends.items()},
        "margins": {
            n: {m: {"difference": v, "low": v - half, "high": v + half} for m in names}
            for n, v in (margins or {"id_only": 0.02, "popularity": 0.06}).items()
        },
    }


@pytest.mark.parametrize(
    ("half", "verdict"),
    [
        (0.01, "beats every baseline at recall@10 and ndcg@10"),
        (0.03, "is only level with the best baseline at recall@10 and ndcg@10"),
    ],
)
def test_a_win_is_one_whose_interval_leaves_out_zero(half: float, verdict: str) -> None:
    text = Page(render_report(report() | {"confidence": confidence(half)}, [], {})).text
    assert f"The trained model {verdict}" in text
    assert f"id_only (0.1000): +0.0200 [{0.02 - half:+.4f}, {0.02 + half:+.4f}], 95%." in text


def test_a_loss_that_is_sure_is_a_loss() -> None:
    given = report(model=0.08, popularity=0.06, id_only=0.1)
    given["confidence"] = confidence(0.01, id_only=-0.02, popularity=0.02)
    assert "loses to a baseline at recall@10" in Page(render_report(given, [], {})).text


def test_many_models_are_all_in_tables_and_six_in_pictures() -> None:
    recalls = {f"base_{n:02}": 0.2 + n / 100 for n in range(11)} | {"model": 0.01}
    html = render_report(report(**recalls), [], {})
    page = Page(html)
    assert "6 more models are in the tables." in page.words
    first_table = html[html.index("<table>") : html.index("</table>")]
    order = re.findall(r"base_\d\d|model(?=</th>)", first_table)
    best_first = [f"base_{n:02}" for n in range(10, -1, -1)]
    assert [name for name in order if name.startswith("base")] == best_first
    legend = html[html.index('<p class="legend">') :]
    shown = re.findall(r"</i>([^<]*)</span>", legend[: legend.index("</p>")])
    assert shown == ["model", *best_first[:5]], "the trained model is always among them"


def test_what_is_neither_better_nor_worse_has_its_own_table() -> None:
    given = report()
    for segments in given["models"].values():
        segments["all"] |= {"gini@10": 0.77, "popularity_lift@10": -0.0712}
    page = Page(render_report(given, [], {}))
    assert {"Beyond accuracy", "gini@10", "popularity lift@10", "-0.0712"} <= {*page.words}


def test_groups_are_named_in_any_language_and_fairness_is_told() -> None:
    given = report()
    for segments in given["models"].values():
        segments |= {"user:国家=日本": metrics(0.3, 77), "item:category=鞋子": metrics(0.4, 66)}
    gap = {"gap": 0.25, "low": -0.01, "high": 0.4, "best": "日本", "worst": "US"}
    given["fairness"] = {"国家": {"model": gap}}
    html = render_report(given, [], {}, ITEMS)
    text = Page(html).text
    assert "user 国家" in text
    assert "日本 77" in text
    assert "鞋子 66" in text
    assert "model 0.2500 [-0.0100, +0.4000] 日本 US" in text
    pictures = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert not re.search(r"[\u4e00-\u9fff]", pictures), "a picture's font has no Chinese"


def test_the_map_draws_each_item_and_names_the_categories() -> None:
    html = render_report(report(), [], {}, ITEMS)
    start = html.index("Map of the items")
    picture = html[start : html.index("</section>", start)]
    assert picture.count("<use") >= 50
    assert "50 items by category; the two axes keep 42%" in picture
    assert re.findall(r"</i>([^<]*)</span>", picture) == ITEMS.names


def test_mistakes_say_how_far_down_the_target_was() -> None:
    card = {"history": ["Tea"], "target": ["Pot"], "recommended": ["Pan"], "events": 44}
    given = report() | {"mistakes": [card | {"rank": 1234}, card | {"rank": None, "depth": 10_000}]}
    text = Page(render_report(given, [], {})).text
    assert "44 events of history; what came next was ranked 1,234." in text
    assert "ranked below 10,000." in text


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
