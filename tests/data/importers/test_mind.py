"""MIND: impressions to clicks, news to items."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.data.importers.sources import Imported, put

NEWS = (
    'N88753\tlifestyle\tlifestyleroyals\tThe "Royals" &amp; more\tShop the notebooks'
    '\thttps://a\t[]\t[{"Label": "x"}]\n'
    "N2\tnews\t\tNo abstract 新闻\t\thttps://b\t[]\t[]\n"
)
BEHAVIORS = (
    "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
    "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-1 N58114-1\n"
    "3\tU1\t2019-11-12\tN1\tN5-1\n"
    "4\tU2\t11/12/2019 6:11:30 PM\tN1\tN5 N6-1\n"
    "5\tU3\t11/12/2019 6:11:30 PM\n"
)


def imported(tmp_path) -> Imported:
    put(tmp_path / "mind" / "news.tsv", NEWS)
    put(tmp_path / "mind" / "behaviors.tsv", BEHAVIORS)
    return Imported("mind", tmp_path / "mind")


def test_clicked_news_are_events_at_the_impressions_time(tmp_path):
    rows = imported(tmp_path).rows("interactions")
    assert [(r["user_id"], r["item_id"], r["event"]) for r in rows] == [
        ("U13740", "N55689", "click"),
        ("U91836", "N39317", "click"),
        ("U91836", "N58114", "click"),
        ("U2", "N6", "click"),
    ]
    moment = datetime(2019, 11, 12, 18, 11, 30, tzinfo=UTC).timestamp()
    assert rows[0]["timestamp"] == datetime(2019, 11, 11, 9, 5, 58, tzinfo=UTC).timestamp()
    assert {r["timestamp"] for r in rows[1:]} == {moment}


def test_news_that_was_shown_and_not_clicked_is_skipped_and_counted(tmp_path):
    counts = imported(tmp_path).counts["interactions"]
    assert (counts.read, counts.written, counts.rejected, counts.skipped) == (9, 4, 3, 2)


def test_bad_impressions_are_named(tmp_path):
    assert imported(tmp_path).told() == [
        ("behaviors.tsv", 5, "3 fields instead of 5"),
        ("behaviors.tsv", 3, "time is no time like %m/%d/%Y %I:%M:%S %p"),
        ("behaviors.tsv", 4, "news shown is not written as <id>-0 or <id>-1"),
    ]


def test_a_title_may_hold_bare_quotation_marks(tmp_path):
    assert imported(tmp_path).rows("items") == [
        {
            "item_id": "N88753",
            "title": 'The "Royals" &amp; more',
            "description": "Shop the notebooks",
            "category": "lifestyle > lifestyleroyals",
        },
        {"item_id": "N2", "title": "No abstract 新闻", "description": None, "category": "news"},
    ]
