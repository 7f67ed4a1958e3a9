"""Amazon Shopping Queries: items and judged queries, no interactions."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.importers.sources import Imported

PRODUCTS = {
    "product_id": ["B01", "B01", None],
    "product_title": ["Kettle &amp; cup", "ケトル", "x"],
    "product_description": ["<b>Boils</b>", None, None],
    "product_bullet_point": ["1 l\nsteel", None, None],
    "product_brand": ["Acme", "", None],
    "product_color": ["Black", None, None],
    "product_locale": ["us", "jp", "us"],
}
EXAMPLES = {
    "example_id": [0, 1, 2, 3, 4],
    "query": ["kettle", "kettle", "ケトル 🍵", "kettle", "kettle"],
    "query_id": [7, 7, 8, 7, 7],
    "product_id": ["B01", "B02", "B01", "B03", "B04"],
    "product_locale": ["us", "us", "jp", "us", "us"],
    "esci_label": ["E", "S", "C", "I", "Z"],
    "small_version": [1, 0, 1, 1, 1],
    "large_version": [1, 1, 1, 1, 1],
    "split": ["train", "test", "train", "test", "test"],
}


@pytest.fixture
def done(tmp_path) -> Imported:
    (tmp_path / "e").mkdir()
    for name, columns in (("products", PRODUCTS), ("examples", EXAMPLES)):
        pq.write_table(
            pa.table(columns), tmp_path / "e" / f"shopping_queries_dataset_{name}.parquet"
        )
    return Imported("esci", tmp_path / "e")


def test_judgements_have_the_published_gains(done):
    rows = done.rows("queries")
    assert [r["relevance"] for r in rows] == [1.0, 0.1, 0.01, 0.0]
    assert rows[2] == {
        "query_id": "8",
        "query": "ケトル 🍵",
        "item_id": "jp_B01",
        "relevance": 0.01,
        "locale": "jp",
        "split": "train",
        "small_version": 1,
    }


def test_one_product_in_two_locales_is_two_items(done):
    assert done.rows("items") == [
        {
            "item_id": "us_B01",
            "title": "Kettle &amp; cup",
            "description": "<b>Boils</b> 1 l\nsteel Black",
            "brand": "Acme",
        },
        {"item_id": "jp_B01", "title": "ケトル", "description": None, "brand": None},
    ]


def test_what_is_no_judgement_or_product_is_rejected_with_its_row(done):
    assert [(line, reason) for _, line, reason in done.told()] == [
        (3, "no product_id or product_locale"),
        (5, "esci_label is not E, S, C or I"),
    ]


def test_there_are_no_interactions(done):
    names = {path.name for path in done.output.iterdir()}
    assert names == {"items.parquet", "queries.parquet", "rejected.jsonl"}
