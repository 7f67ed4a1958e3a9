"""Amazon Reviews 2018 and 2023 in their own formats."""

from __future__ import annotations

import pytest

from recsys.data.importers.amazon import import_2018
from recsys.data.importers.tables import RawTables
from tests.data.importers.sources import Imported, json_lines, put

REVIEW = {
    "overall": 5.0,
    "verified": True,
    "reviewTime": "09 4, 2015",
    "reviewerID": "ALJ66O1Y6SLHA",
    "asin": "0000031852",
    "style": {"Size:": " Medium"},
    "reviewText": 'Says "fits"\nand does',
    "unixReviewTime": 1441324800,
}
META = {
    "category": ["Tools", "Hand Tools"],
    "tech1": "",
    "description": ["A hammer &amp; more", "", "锤子 🔨"],
    "title": "Hammer &quot;Pro&quot;",
    "also_buy": ["B01"],
    "brand": "Estwing",
    "feature": ["Steel", "16 oz"],
    "rank": [">#1"],
    "price": "$1,012.99",
    "asin": "0000031852",
    "details": {"Weight:": "1"},
}
REVIEW_2023 = {
    "rating": 4.0,
    "title": "Nice",
    "text": "ok",
    "images": [],
    "asin": "B0COLOUR01",
    "parent_asin": "B0PARENT01",
    "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
    "timestamp": 1588687728923,
    "helpful_vote": 0,
    "verified_purchase": True,
}
META_2023 = {
    "main_category": "All Beauty",
    "title": "Lotion",
    "features": ["Soft"],
    "description": ["For hands"],
    "price": 9.5,
    "images": [{"thumb": "x"}],
    "store": "Howard",
    "categories": [],
    "details": {"Brand": "H"},
    "parent_asin": "B0PARENT01",
}


def test_reviews_of_2018_become_interactions_and_metadata_items(tmp_path):
    put(tmp_path / "a" / "Tools_5.json.gz", json_lines(REVIEW))
    put(tmp_path / "a" / "meta_Tools.json.gz", json_lines(META))
    done = Imported("amazon2018", tmp_path / "a")
    assert done.rows("interactions") == [
        {
            "user_id": "ALJ66O1Y6SLHA",
            "item_id": "0000031852",
            "timestamp": 1441324800,
            "value": 5.0,
        }
    ]
    assert done.rows("items") == [
        {
            "item_id": "0000031852",
            "title": "Hammer &quot;Pro&quot;",
            "description": "A hammer &amp; more 锤子 🔨 Steel 16 oz",
            "category": "Tools > Hand Tools",
            "brand": "Estwing",
            "price": 1012.99,
        }
    ]
    assert done.rejected() == []


@pytest.mark.parametrize(
    ("given", "price"),
    [
        ("$12.99", 12.99),
        ("12.99", 12.99),
        (12, 12.0),
        ("$5.00 - $10.50", 5.0),
        ("from 14.99", 14.99),
        ("", None),
        (None, None),
        ("None", None),
        (".a-box-inner{background-color:#fff}#alohaBuyBoxWidget .selected", None),
        ("$1.2.3", None),
    ],
)
def test_a_price_is_a_number_or_empty_and_never_costs_the_item(tmp_path, given, price):
    put(tmp_path / "a" / "meta_T.json", json_lines(META | {"price": given}))
    done = Imported("amazon2018", tmp_path / "a")
    assert [row["price"] for row in done.rows("items")] == [price]
    unreadable = price is None and bool(given)
    assert done.counts["items"].emptied["price"] == int(unreadable)


def test_ratings_of_2018_begin_with_the_item(tmp_path):
    put(tmp_path / "a" / "Tools.csv", "0000031852,A1,5.0,1441324800\n007,A2,3.0,1441324801\n")
    rows = Imported("amazon2018", tmp_path / "a").rows("interactions")
    assert [(r["user_id"], r["item_id"]) for r in rows] == [("A1", "0000031852"), ("A2", "007")]


def test_reviews_of_2023_are_in_milliseconds_and_of_the_parent_product(tmp_path):
    put(tmp_path / "a" / "All_Beauty.jsonl.gz", json_lines(REVIEW_2023))
    put(tmp_path / "a" / "meta_All_Beauty.jsonl.gz", json_lines(META_2023))
    ratings = "user_id,parent_asin,rating,timestamp\nA2,B0PARENT01,1.0,1588687729999\n"
    put(tmp_path / "a" / "All_Beauty.csv.gz", ratings)
    done = Imported("amazon2023", tmp_path / "a")
    rows = done.rows("interactions")
    assert [(r["item_id"], r["timestamp"], r["value"]) for r in rows] == [
        ("B0PARENT01", 1588687728, 4.0),
        ("B0PARENT01", 1588687729, 1.0),
    ]
    assert done.rows("items") == [
        {
            "item_id": "B0PARENT01",
            "title": "Lotion",
            "description": "For hands Soft",
            "category": "All Beauty",
            "brand": "Howard",
            "price": 9.5,
        }
    ]


def test_bad_lines_are_kept_aside_with_their_number(tmp_path):
    lines = [
        json_lines(REVIEW),
        '{"reviewerID": "A", "asin": \n',
        json_lines({k: v for k, v in REVIEW.items() if k != "asin"}),
        json_lines(REVIEW | {"unixReviewTime": "yesterday"}),
        "\n",
        "[1, 2]\n",
        json_lines(REVIEW | {"reviewerID": {"id": 1}}),
        '{"reviewerID": "\\ud83d", "asin": "a", "overall": 1, "unixReviewTime": 1}\n',
        json_lines(REVIEW | {"reviewerID": "用户🙂"}),
    ]
    put(tmp_path / "a" / "T.json.gz", "".join(lines))
    done = Imported("amazon2018", tmp_path / "a")
    assert [r["user_id"] for r in done.rows("interactions")] == ["ALJ66O1Y6SLHA", "用户🙂"]
    told = {line: reason for _, line, reason in done.told()}
    assert sorted(told) == [2, 3, 4, 6, 7, 8]
    assert told[2].startswith("not JSON")
    assert told[3] == "no asin"
    assert told[4] == "unixReviewTime is no number of s"
    assert told[6] == "not a JSON object"
    assert told[7].startswith("'reviewerID' is an object")
    assert "surrogate" in told[8]
    counts = done.counts["interactions"]
    assert (counts.read, counts.written, counts.rejected) == (8, 2, 6)


def test_a_file_in_latin_1_where_utf_8_is_due_loses_one_line_only(tmp_path):
    content = (
        json_lines(REVIEW).encode() + b'{"reviewerID": "caf\xe9"}\n' + json_lines(REVIEW).encode()
    )
    put(tmp_path / "a" / "T.json", content)
    done = Imported("amazon2018", tmp_path / "a")
    assert done.told() == [("T.json", 2, "not utf-8")]
    assert len(done.rows("interactions")) == 2


def test_gzip_that_ends_too_early_is_named_and_nothing_is_written(tmp_path):
    path = put(
        tmp_path / "a" / "T.json.gz", json_lines(*[REVIEW | {"asin": str(n)} for n in range(999)])
    )
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"T\.json\.gz is not whole gzip"):
        Imported("amazon2018", tmp_path / "a")
    assert list((tmp_path / "a-raw").iterdir()) == []


def test_many_batches_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr("recsys.data.importers.records.BATCH_ROWS", 7)
    lines = [json_lines(REVIEW | {"asin": str(n)}) if n % 5 else "bad\n" for n in range(100)]
    path = put(tmp_path / "T.json", "".join(lines))
    with RawTables(tmp_path / "out") as tables:
        import_2018([path], tables)
    counts = tables.counts["interactions"]
    assert (counts.read, counts.written, counts.rejected, counts.skipped) == (100, 80, 20, 0)
