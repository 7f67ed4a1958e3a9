"""The quality page: complete, safe, self-contained, and whole where data is thin."""

from __future__ import annotations

import datetime
import functools
import re

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.profile import ItemProfile, Profile, profile_items
from recsys.data.quality_page import render_quality
from tests.html_page import Page

ATTACK = "<script>alert('x')</script>"
JAN_1 = datetime.date(2024, 1, 1)
JAN_1_SECONDS = 1_704_067_200
DAY = 86_400


def days(counts: list[int | None]) -> dict[str, int | None]:
    return {str(JAN_1 + datetime.timedelta(days=at)): count for at, count in enumerate(counts)}


def items_profile(counts: list[int], category: str = "茶具") -> ItemProfile:
    table = pa.table({"item_id": [str(n) for n in range(len(counts))]})
    if counts:
        table = table.append_column("category", pa.array([category] * len(counts)))
    return profile_items(table, np.array(counts, dtype=np.int64))


def profile(**changes: object) -> Profile:
    given: dict = {
        "num_users": 500,
        "num_events": 12000,
        "events_by_day": days([100, 120] * 50),
        "events_by_type": {"view": 9000, "购买": 3000},
        "users_by_length": {"4-7": 200, "8-15": 250, "16-31": 50},
    }
    return Profile(**(given | changes))


def interactions(**changes: object) -> dict:
    given = {
        "read": 12345,
        "kept": 12000,
        "quarantined": 300,
        "dropped": {"duplicates": 40, "k_core": 5},
        "reasons": {"negative_timestamp": 50, "unknown_item": 250},
        "examples": {"unknown_item": [{"value": ATTACK, "source_file": "部分-0.parquet"}]},
        "advice": {"unknown_item": "add it to the items table"},
    }
    return given | changes


def clean(rows: int) -> dict:
    return {"read": rows, "kept": rows, "quarantined": 0, "dropped": {}, "reasons": {}}


def quality(**changes: object) -> dict:
    given = {
        "tables": {"interactions": interactions(), "items": clean(4)},
        "files": {},
        "profile": profile().model_dump(),
        "items_profile": items_profile([500, 200, 100, 0]).model_dump(),
        "drift": [
            {"what": "categories", "measure": "PSI", "value": 0.3, "verdict": "shifted"},
            {"what": "days of the week", "measure": "PSI", "value": None, "verdict": "unknown"},
        ],
        "split": {
            "strategy": "time",
            "valid_from": JAN_1_SECONDS + 60 * DAY,
            "test_from": JAN_1_SECONDS + 80 * DAY,
            "rows": {"train": 400, "valid": 90, "test": 80},
        },
        "settings": {"min_published_count": 10, "split": {"strategy": "time"}},
    }
    return given | changes


@functools.cache
def full_page() -> str:
    return render_quality(quality())


def labels(page: Page) -> list[str]:
    return [value or "" for name, value in page.attributes if name == "aria-label"]


def test_the_headline_says_what_became_of_the_rows():
    page = Page(full_page())
    assert "12,345 rows read: 12,000 kept, 300 quarantined, 45 dropped" in page.words
    assert "Dropped: duplicates 40, k core 5." in page.text
    assert "4 rows read: 4 kept, 0 quarantined, 0 dropped" in labels(page)


def test_the_flow_bar_has_a_slice_for_every_part_that_has_rows():
    html = full_page()
    grown = re.findall(r"flex-grow:(\d+)", html)
    assert grown == ["12000", "300", "45", "4"]


def test_counts_that_do_not_add_up_are_told():
    assert "do not add up" not in full_page()
    wrong = {"interactions": interactions(kept=11999)}
    assert "The counts do not add up." in Page(render_quality(quality(tables=wrong))).text


def test_rules_come_most_frequent_first_with_advice_and_examples():
    text = Page(full_page()).text
    assert "unknown item 250 2.0% add it to the items table negative timestamp 50 0.4%" in text
    assert f"Examples of unknown item value source file {ATTACK} 部分-0.parquet" in text


def test_a_page_has_every_picture_with_words_for_who_cannot_see_it():
    page = Page(full_page())
    assert page.tags.count("svg") == 4
    found = labels(page)
    assert "Events per day from 2024-01-01 to 2024-04-09" in found
    assert len(found) == page.tags.count("svg") + 2
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_cuts_of_a_split_by_time_are_marked():
    text = Page(full_page()).text
    assert "valid starts (UTC) 2024-03-01 00:00 test starts (UTC) 2024-03-21 00:00" in text
    svg = re.findall(r"<text[^>]*> ?(\w+ starts)", full_page())
    assert svg == ["valid starts", "test starts"]


@pytest.mark.parametrize("strategy", ["time", "ratio"])
def test_every_split_by_time_has_its_cuts(strategy):
    split = quality()["split"] | {"strategy": strategy}
    html = render_quality(quality(split=split))
    assert "valid starts (UTC) 2024-03-01 00:00" in Page(html).text
    assert len(re.findall(r"<text[^>]*> ?(?:valid|test) starts", html)) == 2


@pytest.mark.parametrize("strategy", ["leave_last_out", "column"])
def test_other_splits_have_no_cuts(strategy):
    by_user = {"strategy": strategy, "valid_from": 0, "test_from": 0, "rows": {}}
    assert "starts" not in Page(render_quality(quality(split=by_user))).text


def test_files_with_unusual_timestamps_are_named_with_their_unit():
    files = {"timestamps in ms": ["日志/a.parquet", "b.parquet"], "timestamps in s": ["c.parquet"]}
    text = Page(render_quality(quality(files=files))).text
    assert "These files hold timestamps in milliseconds: 日志/a.parquet, b.parquet." in text
    assert "These files hold timestamps in seconds: c.parquet." in text
    assert "These files" not in Page(full_page()).text


def test_values_of_items_that_were_set_to_null_are_counted():
    warnings = {"bad_price": 1, "title_garbage": 30, "brand_empty": 0}
    tables = {"interactions": interactions(), "items": clean(40) | {"warnings": warnings}}
    text = Page(render_quality(quality(tables=tables))).text
    assert (
        "40 rows read: 40 kept, 0 quarantined, 0 dropped. "
        "values set to null rows of rows kept title garbage 30 75.0% bad price 1 2.5% Quarantined"
    ) in text
    assert "values set to null" not in Page(full_page()).text


def test_drift_has_its_verdicts_and_may_be_missing():
    html = full_page()
    assert '<span class="pill shifted">shifted</span>' in html
    assert "days of the week PSI - unknown" in Page(html).text
    assert "no previous dataset" in Page(render_quality(quality(drift=None))).text


def test_settings_are_folded_and_flat():
    page = Page(full_page())
    assert "details" in page.tags
    assert "split.strategy time" in page.text


def test_a_page_is_self_contained():
    html = full_page()
    page = Page(html)
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert "src=" not in html
    assert "@import" not in html
    assert {"script", "link"} & set(page.tags) == set()
    links = [value or "" for name, value in page.attributes if name.endswith("href")]
    assert all(link.startswith("#") for link in links)


def test_every_text_from_outside_is_escaped():
    counts = interactions(
        reasons={ATTACK: 1},
        advice={ATTACK: ATTACK},
        examples={ATTACK: [{ATTACK: ATTACK, "value": None}]},
        dropped={ATTACK: 5},
        warnings={ATTACK: 1},
    )
    given = quality(
        tables={"interactions": counts, ATTACK: clean(1)},
        profile=profile(events_by_type={ATTACK: 12000}).model_dump(),
        items_profile=items_profile([9], ATTACK).model_dump(),
        files={ATTACK: [ATTACK]},
        drift=[{"what": ATTACK, "measure": ATTACK, "value": 0.0, "verdict": ATTACK}],
        split={"strategy": ATTACK, "rows": {ATTACK: 1}},
        settings={ATTACK: ATTACK, "min_published_count": ATTACK},
    )
    html = render_quality(given)
    assert "<script" not in html
    assert Page(html).text.count(ATTACK) > 10


def test_one_quality_makes_one_page():
    assert render_quality(quality()) == full_page()


def test_hidden_counts_are_told_and_left_out_of_pictures():
    shown = profile(
        events_by_day=days([50, None, 60, None]), users_by_length={"1": 400, "2-3": None}
    )
    items = items_profile([500, 200, 3]).published(10)
    page = Page(
        render_quality(quality(profile=shown.model_dump(), items_profile=items.model_dump()))
    )
    assert "Hidden counts: 2 days, 1 history lengths, 2 segments." in page.text
    assert "fewer than 10" in page.text
    assert "Hidden counts" not in Page(full_page()).text


@pytest.mark.parametrize(
    ("change", "pictures"),
    [
        ({"events_by_day": days([12000])}, 4),
        ({"events_by_day": days([50, 0, 60])}, 4),
        ({"events_by_day": {"unknown": 12000}}, 3),
        ({"events_by_day": {"unknown": 40} | days([50])}, 4),
        ({"events_by_day": days([None, None])}, 3),
        ({"users_by_length": {"1": None}}, 3),
        ({"users_by_length": {str(n): n for n in range(20)}}, 4),
        ({"num_users": None, "num_events": None, "events_by_type": {"view": None}}, 4),
        ({"events_by_day": {"1970-01-01": 10, "2024-05-05": 99}}, 4),
    ],
)
def test_thin_events_leave_out_their_picture_alone(change, pictures):
    page = Page(render_quality(quality(profile=profile(**change).model_dump())))
    assert page.tags.count("svg") == pictures
    assert "nan" not in page.text.split()


@pytest.mark.parametrize("counts", [[], [0, 0], [7], [5, 5, 5], [40, 9, 1, 0], [10**7, 3, 1]])
def test_thin_catalogues_make_a_page(counts):
    for items in (items_profile(counts), items_profile(counts).published(10)):
        page = Page(render_quality(quality(items_profile=items.model_dump())))
        assert "Head, mid, tail and cold items" in page.words or not counts
        assert "nan%" not in page.text


def test_a_dataset_without_a_bad_row_says_so():
    tables = {"interactions": clean(10), "items": clean(3), "eval_rows": clean(2)}
    page = Page(render_quality(quality(tables=tables)))
    assert "No row broke a rule." in page.words
    assert "eval rows" in page.words


def test_long_examples_are_cut():
    counts = interactions(examples={"unknown_item": [{"value": "x" * 5000}]})
    assert "x" * 201 not in render_quality(quality(tables={"interactions": counts}))


def test_a_quality_without_interactions_is_refused():
    with pytest.raises(ValueError, match="no counts of the table 'interactions'"):
        render_quality(quality(tables={"items": clean(1)}))
    with pytest.raises(ValueError, match="num_userz"):
        render_quality(quality(profile={"num_userz": 1}))
