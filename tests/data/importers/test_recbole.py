"""RecBole atomic files."""

from __future__ import annotations

import pytest

from tests.data.importers.sources import Imported, put

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"


def test_typed_columns_become_raw_tables(tmp_path):
    put(
        tmp_path / "r" / "ml.inter",
        INTER + "1\t007\t5\t978300760.0\n2\t8\t\t9.783e8\n3\t9\tbad\t1\n",
    )
    put(
        tmp_path / "r" / "ml.item",
        ITEM + '007\tToy "Story" 玩具\t1995\tAnimation Children\'s Comedy\n',
    )
    put(tmp_path / "r" / "ml.user", "user_id:token\tage:token\n1\t24\n")
    done = Imported("recbole", tmp_path / "r")
    assert done.rows("interactions") == [
        {"user_id": "1", "item_id": "007", "timestamp": 978300760, "value": 5.0},
        {"user_id": "2", "item_id": "8", "timestamp": 978300000, "value": None},
    ]
    assert done.rows("items") == [
        {"item_id": "007", "title": 'Toy "Story" 玩具', "category": "Animation Children's Comedy"}
    ]
    assert done.told() == [("ml.inter", 4, "rating is no number")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("user_id\titem_id\n", "is not <name>:<type>"),
        ("user_id:token\titem_id:text\n", "is not <name>:<type>"),
        ("item_id:token\trating:float\n", "has no user_id"),
        ("user_id:token\tthing:token\n", "has no item_id"),
        ("", "has no header line"),
        ("user_id:token\tuser_id:token\n", "names a column twice"),
    ],
)
def test_a_header_that_does_not_fit_is_told(tmp_path, header, message):
    put(tmp_path / "r" / "x.inter", header + "1\t2\n" if header else "")
    with pytest.raises(ValueError, match=message) as caught:
        Imported("recbole", tmp_path / "r")
    assert "x.inter" in str(caught.value)
