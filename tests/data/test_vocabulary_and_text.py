"""Item ids to indexes, item columns to text and tokens, and evaluation rows given by the data."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.eval_rows import find_eval_rows, read_eval_rows
from recsys.data.tokenize import item_texts, load_tokenizer, tokenize, with_tokens
from recsys.data.vocabulary import UNKNOWN, ItemVocabulary
from tests.conftest import WORDS

FIELDS = ("title", "category", "brand", "description")
VOCABULARY = ItemVocabulary(["a", "b", "c", "7"])
ROW = {"user_id": "u", "history_item_ids": ["a", "b"], "item_id": "c"}

texts_of_words = st.lists(
    st.lists(st.sampled_from([*WORDS.split(), "家居", "hammers"]), max_size=30).map(" ".join),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return load_tokenizer(tiny_backbone)


@pytest.fixture(scope="module")
def token_names(tokenizer):
    """Token ids -> their words."""
    return tokenizer.convert_ids_to_tokens


def write(folder: Path, columns: dict | list[dict]) -> str:
    """Write evaluation rows; returns the file's path."""
    table = pa.table(columns) if isinstance(columns, dict) else pa.Table.from_pylist(columns)
    pq.write_table(table, folder / "eval_rows.parquet")
    return str(folder / "eval_rows.parquet")


def test_indexes_are_positions_and_round_trip():
    ids = ["b", "a", "商品", "10"]
    vocabulary = ItemVocabulary(ids)
    indexes = vocabulary.indexes_of(["10", "b", "商品", "b"])
    assert indexes.tolist() == [3, 0, 2, 0]
    assert indexes.dtype.name == "int32"
    assert vocabulary.item_ids[indexes].tolist() == ["10", "b", "商品", "b"]
    assert len(vocabulary) == 4


@pytest.mark.parametrize("unknown", ["z", "", "A", "a ", None])
def test_an_id_that_is_not_there_is_unknown(unknown):
    assert VOCABULARY.indexes_of(["c", unknown, "a"]).tolist() == [2, UNKNOWN, 0]


def test_no_ids_have_no_indexes():
    assert VOCABULARY.indexes_of([]).tolist() == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_arrow_columns_make_the_same_vocabulary(kind):
    column = pa.chunked_array([pa.array(["x", "y"], kind), pa.array(["z"], kind)])
    for ids in (column, column.combine_chunks()):
        assert ItemVocabulary(ids).indexes_of(["z", "x"]).tolist() == [2, 0]


def test_an_id_may_stand_only_once():
    with pytest.raises(AssertionError):
        ItemVocabulary(["a", "b", "a"])


@settings(deadline=None)
@given(ids=st.lists(st.text(max_size=5), unique=True, max_size=20), asked=st.text(max_size=5))
def test_any_ids_round_trip(ids, asked):
    vocabulary = ItemVocabulary(ids)
    assert vocabulary.indexes_of(ids).tolist() == list(range(len(ids)))
    wanted = ids.index(asked) if asked in ids else UNKNOWN
    assert vocabulary.indexes_of([asked]).tolist() == [wanted]


def test_a_text_has_the_fields_in_the_asked_order():
    items = pa.table({"brand": ["Acme"], "title": ["red hat"], "category": ["hats"]})
    assert item_texts(items, FIELDS) == ["title: red hat\ncategory: hats\nbrand: Acme"]
    assert item_texts(items, ("category", "title")) == ["category: hats\ntitle: red hat"]


def test_fields_that_an_item_lacks_are_left_out_of_its_text():
    items = pa.table(
        {"title": ["hat", None, "saw", ""], "category": [None, "tools", "tools", None]}
    )
    assert item_texts(items, FIELDS) == [
        "title: hat",
        "category: tools",
        "title: saw\ncategory: tools",
        "",
    ]


@pytest.mark.parametrize("fields", [("brand", "description"), ()])
def test_items_with_none_of_the_fields_have_empty_texts(fields):
    items = pa.table({"item_id": ["a", "b"], "title": ["hat", "saw"]})
    assert item_texts(items, fields) == ["", ""]


def test_a_catalogue_without_items_has_no_texts():
    assert item_texts(pa.table({"title": pa.array([], pa.string())}), FIELDS) == []


def test_tokens_are_the_words_between_the_special_tokens(tokenizer, token_names):
    (ids,) = tokenize(tokenizer, ["title: red hammer"], 16)
    assert token_names(ids) == ["[CLS]", "title", ":", "red", "hammer", "[SEP]"]


def test_a_long_text_is_cut_at_its_end(tokenizer, token_names):
    (ids,) = tokenize(tokenizer, ["red blue green hammer nail"], 5)
    assert token_names(ids) == ["[CLS]", "red", "blue", "green", "[SEP]"]


def test_an_empty_text_has_tokens_too(tokenizer, token_names):
    (ids,) = tokenize(tokenizer, [""], 5)
    assert token_names(ids) == ["[CLS]", "[SEP]"]


def test_chinese_text_has_a_token_for_each_character(tokenizer, token_names):
    (ids,) = tokenize(tokenizer, ["title: 红色的帽子"], 16)
    assert token_names(ids) == ["[CLS]", "title", ":", *["[UNK]"] * 5, "[SEP]"]


@settings(deadline=None, max_examples=40)
@given(texts=texts_of_words, max_tokens=st.integers(4, 20))
def test_tokens_keep_to_the_limit_and_depend_on_the_text_alone(tokenizer, texts, max_tokens):
    together = tokenize(tokenizer, texts, max_tokens)
    alone = [tokenize(tokenizer, [text], max_tokens)[0] for text in texts]
    assert together == alone
    for text, ids in zip(texts, together, strict=True):
        words = len(text.replace("家居", "家 居").split())
        assert len(ids) == min(max_tokens, words + 2)


def test_a_tokenizer_loaded_again_says_the_same(tokenizer, tiny_backbone):
    texts = [WORDS, "title: 家居", ""]
    assert tokenize(load_tokenizer(tiny_backbone), texts, 9) == tokenize(tokenizer, texts, 9)


def test_items_gain_text_and_tokens(tokenizer):
    items = pa.table({"item_id": ["a", "b"], "title": ["red hat", None], "brand": [None, "saw"]})
    table = with_tokens(items, tokenizer, FIELDS, 5)
    assert table.drop_columns(["text", "token_ids"]).equals(items)
    assert table["text"].to_pylist() == ["title: red hat", "brand: saw"]
    assert table["token_ids"].to_pylist() == tokenize(tokenizer, table["text"].to_pylist(), 5)
    assert table.schema.field("token_ids").type == pa.list_(pa.int32())


def test_items_with_none_of_the_fields_can_be_tokenised(tokenizer):
    table = with_tokens(pa.table({"title": ["hat", "saw"]}), tokenizer, ("brand",), 5)
    assert table["text"].to_pylist() == ["", ""]


def test_evaluation_rows_are_looked_for_beside_the_tables(tmp_path):
    assert find_eval_rows(str(tmp_path)) is None
    path = write(tmp_path, [ROW])
    assert find_eval_rows(str(tmp_path)) == path
    assert find_eval_rows(f"file://{tmp_path}/") == f"file://{path}"


def test_evaluation_rows_become_histories_and_targets(tmp_path):
    path = write(tmp_path, [ROW | {"history_timestamps": [10, 20]}])
    tables, bad = read_eval_rows(path, VOCABULARY, 50)
    assert tables["test"].to_pylist() == [
        {
            "user_id": "u",
            "item_indexes": [0, 1],
            "timestamps": [10, 20],
            "events": [0, 0],
            "targets": [2],
        }
    ]
    assert len(bad) == 0


def test_without_a_split_all_evaluation_rows_are_test(tmp_path):
    tables, _ = read_eval_rows(write(tmp_path, [ROW, ROW | {"user_id": "v"}]), VOCABULARY, 50)
    assert list(tables) == ["test"]
    assert tables["test"]["user_id"].to_pylist() == ["u", "v"]


def test_evaluation_rows_go_where_their_split_says(tmp_path):
    splits = ["test", "valid", "test"]
    rows = [ROW | {"user_id": f"u{n}", "split": split} for n, split in enumerate(splits)]
    tables, bad = read_eval_rows(write(tmp_path, rows), VOCABULARY, 50)
    users = {part: table["user_id"].to_pylist() for part, table in tables.items()}
    assert users == {"valid": ["u1"], "test": ["u0", "u2"]}
    assert len(bad) == 0


def test_a_split_without_evaluation_rows_is_left_out(tmp_path):
    tables, _ = read_eval_rows(write(tmp_path, [ROW | {"split": "valid"}]), VOCABULARY, 50)
    assert list(tables) == ["valid"]


@pytest.mark.parametrize("split", ["tset", None])
def test_an_evaluation_row_of_no_known_split_is_not_lost(tmp_path, split):
    rows = [ROW | {"split": "test"}, ROW | {"user_id": "lost", "split": split}]
    _, bad = read_eval_rows(write(tmp_path, rows), VOCABULARY, 50)
    assert bad["user_id"].to_pylist() == ["lost"]
    assert bad["rule"].to_pylist() == ["unknown_split"]


def test_a_row_whose_target_is_unknown_is_bad(tmp_path):
    rows = [ROW | {"user_id": f"u{n}", "item_id": i} for n, i in enumerate(["c", "z", "a", None])]
    rows = [row | {"split": "test"} for row in rows]
    tables, bad = read_eval_rows(write(tmp_path, rows), VOCABULARY, 50)
    assert tables["test"]["user_id"].to_pylist() == ["u0", "u2"]
    assert tables["test"]["targets"].to_pylist() == [[2], [0]]
    reason = {"rule": "unknown_item"}
    assert bad.to_pylist() == [rows[1] | reason, rows[3] | reason]


def test_unknown_items_leave_a_history_with_their_times(tmp_path):
    history = {"history_item_ids": ["z", "a", "z", "b"], "history_timestamps": [1, 2, 3, 4]}
    path = write(tmp_path, [ROW | history, ROW | {k: v[:1] for k, v in history.items()}])
    tables, bad = read_eval_rows(path, VOCABULARY, 50)
    assert tables["test"]["item_indexes"].to_pylist() == [[0, 1], []]
    assert tables["test"]["timestamps"].to_pylist() == [[2, 4], []]
    assert tables["test"]["events"].to_pylist() == [[0, 0], []]
    assert len(bad) == 0


def test_the_newest_known_items_of_a_history_are_kept(tmp_path):
    history = {"history_item_ids": ["a", "b", "c", "z"], "history_timestamps": [1, 2, 3, 4]}
    tables, _ = read_eval_rows(write(tmp_path, [ROW | history]), VOCABULARY, 2)
    assert tables["test"]["item_indexes"].to_pylist() == [[1, 2]]
    assert tables["test"]["timestamps"].to_pylist() == [[2, 3]]


def test_without_times_of_the_history_they_are_unknown(tmp_path):
    tables, _ = read_eval_rows(write(tmp_path, [ROW]), VOCABULARY, 50)
    assert tables["test"]["timestamps"].to_pylist() == [[-1, -1]]


def test_integer_ids_of_evaluation_rows_become_strings(tmp_path):
    columns = {"user_id": [5, 6], "history_item_ids": [[7, 8], []], "item_id": [7, 8]}
    tables, bad = read_eval_rows(write(tmp_path, columns), VOCABULARY, 50)
    assert tables["test"]["user_id"].to_pylist() == ["5"]
    assert tables["test"]["item_indexes"].to_pylist() == [[3]]
    assert bad["item_id"].to_pylist() == [8]


@pytest.mark.parametrize("name", ["user_id", "history_item_ids", "item_id"])
def test_a_missing_column_of_evaluation_rows_is_named(tmp_path, name):
    path = write(tmp_path, [{key: value for key, value in ROW.items() if key != name}])
    with pytest.raises(ValueError, match=f"column '{name}' is missing") as caught:
        read_eval_rows(path, VOCABULARY, 50)
    assert path in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 9 + b"\x09\0\0\0PAR1"])
def test_evaluation_rows_that_are_not_whole_parquet_are_refused(tmp_path, content):
    path = tmp_path / "eval_rows.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"eval_rows\.parquet is empty, truncated or not Parquet"):
        read_eval_rows(str(path), VOCABULARY, 50)


@pytest.mark.parametrize("times", [[10], [10, 20, 30]])
def test_an_evaluation_row_needs_a_time_for_each_item_of_its_history(tmp_path, times):
    path = write(tmp_path, [ROW | {"history_timestamps": times}])
    with pytest.raises(ValueError, match="history_timestamps"):
        read_eval_rows(path, VOCABULARY, 50)


def test_a_null_history_is_an_empty_one(tmp_path):
    path = write(tmp_path, [ROW, ROW | {"history_item_ids": None}])
    tables, _ = read_eval_rows(path, VOCABULARY, 50)
    assert tables["test"]["item_indexes"].to_pylist() == [[0, 1], []]
