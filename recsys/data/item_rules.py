"""Row rules for items: texts are cleaned, unusable values become null, bad rows go to quarantine.

A rule holds where its expression is true. A title, text or price that breaks one costs the item
that value alone. An item with nothing left to read is counted and stays: its id can be learned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dataframely as dy
import polars as pl
import pyarrow as pa

from recsys import schema
from recsys.config import PrepareConfig
from recsys.data.text import clean_texts, detect_languages

TITLE, PRICE, LANGUAGE = "title", "price", "language"

MISSING_WORDS = frozenset(
    [
        "null",
        "none",
        "nil",
        "nan",
        "n/a",
        "#n/a",
        "undefined",
        "unknown",
        "not available",
        "not applicable",
        "not specified",
        "未知",
        "未知品牌",
        "无",
        "暂无",
        "空",
        "不详",
        "不明",
        "なし",
        "없음",
        "알 수 없음",
        "неизвестно",
        "нет",
        "desconocido",
        "unbekannt",
        "inconnu",
        "غير معروف",
    ]
)
"""What stands, in any field, for a value that is not there. NA is not among them: it is sodium."""
DUMMY_TITLES = frozenset(
    [
        "untitled",
        "no title",
        "no name",
        "title",
        "item",
        "product",
        "product name",
        "test",
        "testing",
        "test item",
        "test product",
        "placeholder",
        "dummy",
        "todo",
        "tbd",
        "lorem ipsum",
        "asdf",
        "na",
        "#value!",
        "#ref!",
        "#name?",
        "无标题",
        "未命名",
        "测试",
        "测试商品",
        "無題",
        "無標題",
        "テスト",
        "테스트",
        "제목 없음",
        "тест",
        "без названия",
        "sin título",
        "ohne titel",
        "sans titre",
        "senza titolo",
        "sem título",
        "اختبار",
    ]
)
"""What stands for a title, beside `MISSING_WORDS`."""
_AROUND_WORDS = " .,;:!?-_=~*'\"()[]{}<>"

_UNREADABLE = r"[\p{Cc}&&[^\s]]|\x{FFFD}"
MAX_UNREADABLE_SHARE = 0.4
_BLOB = (
    r"^(?:(?:0x)?[0-9a-fA-F]{24,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|"
    r"data:[a-z]+/[^ ]+)$"
)
_BASE64 = r"^[A-Za-z0-9+/]{32,}={0,2}$"
"""Also German compounds look so, and lists with slashes: it must hold both cases and two digits."""
_NUM_REPEATS = 3


class TitleRules(dy.Schema):
    """What a title must be to be of use. `title` is cleaned, `raw` is as it was read."""

    row = dy.UInt32()
    title = dy.String(nullable=True)
    raw = dy.String(nullable=True)

    @dy.rule()
    def unreadable(cls) -> pl.Expr:
        """Mostly characters, not replacement and control characters."""
        broken = pl.col("raw").str.count_matches(_UNREADABLE)
        return broken <= MAX_UNREADABLE_SHARE * pl.col("raw").str.len_chars()

    @dy.rule()
    def empty(cls) -> pl.Expr:
        """More than markup and invisible characters."""
        return pl.col("title").is_not_null() | (pl.col("raw").str.strip_chars() == "")

    @dy.rule()
    def no_letters(cls) -> pl.Expr:
        """A letter or digit of some script."""
        return pl.col("title").str.contains(r"[\p{L}\p{N}]")

    @dy.rule()
    def repeated(cls) -> pl.Expr:
        """More than one character over and over."""
        text = pl.col("title").str.to_lowercase().str.replace_all(" ", "", literal=True)
        rest = text.str.strip_chars(text.str.head(1))
        return (rest != "") | (text.str.len_chars() < _NUM_REPEATS)

    @dy.rule()
    def placeholder(cls) -> pl.Expr:
        """Not a word that stands for a missing title."""
        return ~_is_word(pl.col("title"), MISSING_WORDS | DUMMY_TITLES)

    @dy.rule()
    def blob(cls) -> pl.Expr:
        """Not a hash, UUID, data address or base64."""
        title = pl.col("title")
        coded = title.str.contains(_BASE64) & title.str.contains("[a-z]")
        coded &= title.str.contains("[A-Z]") & (title.str.count_matches("[0-9]") > 1)
        return ~(title.str.contains(_BLOB) | coded)


class ItemRules(dy.Schema):
    """What every item must be."""

    row = dy.UInt32()
    item_id = dy.String(nullable=True)

    @dy.rule()
    def null_item_id(cls) -> pl.Expr:
        """An item is named."""
        return pl.col("item_id").fill_null("") != ""


ITEM_RULES = ("null_item_id", "duplicate_item_id")
"""The rules that cost a row, the one that is named as the reason first."""
TITLE_RULES = ("unreadable", "empty", "no_letters", "repeated", "placeholder", "blob")
"""The rules that cost a title, the one that is counted first."""
_NOTHING_BROKEN = pl.DataFrame(schema={"row": pl.UInt32, "rule": pl.String})


@dataclass(frozen=True)
class CheckedItems:
    """Read rows = good + bad + duplicates.

    `good` has one row an item, sorted by id: texts are cleaned, and there is a `language` where it
    was asked for. `bad` holds the rows as they were read, with `rule` and `rule_value`. `warnings`
    counts values of good items that were set to null: `bad_price`, `title_garbage`, of which each
    `title_garbage_<rule>` is a part, and `<column>_placeholder` and `<column>_empty` of the others;
    `nothing_to_read` counts the items that are left without any text.
    """

    good: pa.Table
    bad: pa.Table
    duplicates: int
    warnings: dict[str, int]


def check_items(items: pa.Table, config: PrepareConfig) -> CheckedItems:
    """Divide raw items into good and bad rows; the order of the rows does not matter.

    Rows that are equal once cleaned are dropped but one. Of rows with one item_id and different
    content the smaller, by the columns from left to right with null last, is kept and the others
    are bad: `duplicate_item_id`. Rows without an id are all bad.
    """
    raw = _with_text_types(items).with_row_index("row")
    clean, lost = _clean(raw, config.max_text_chars)
    _, failure = ItemRules.filter(clean.select("row", schema.ITEM_ID))
    broken = _first_broken(failure, ITEM_RULES)
    good, conflicts, duplicates = _one_row_an_item(clean.join(broken, "row", "anti"), raw)
    duplicated = conflicts.select("row", rule=pl.lit("duplicate_item_id"))
    bad = _quarantined(raw, pl.concat([broken, duplicated]))
    warnings = _count(lost.join(good, "row", "semi"))
    good = good.drop("row")
    if config.detect_language:
        good = good.with_columns(detect_languages(_joined_text(good)).alias(LANGUAGE))
    return CheckedItems(good.to_arrow(), bad.to_arrow(), duplicates, warnings)


def _with_text_types(items: pa.Table) -> pl.DataFrame:
    """The rows with ids and texts as valid strings, also where a file has a column of nulls."""
    names = [n for n in (schema.ITEM_ID, *schema.ITEM_TEXT_COLUMNS) if n in items.column_names]
    for name in names:
        place = items.column_names.index(name)
        items = items.set_column(place, name, _valid_text(items[name]))
    return pl.DataFrame(pl.from_arrow(items))


def _valid_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text with U+FFFD for bytes that are no UTF-8: Parquet holds any, and Polars fails on them."""
    text = column.cast(pa.large_string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        values = text.cast(pa.large_binary()).to_pylist()
        repaired = [None if v is None else v.decode("utf-8", "replace") for v in values]
        return pa.chunked_array([pa.array(repaired, pa.large_string())])
    return text


def _clean(raw: pl.DataFrame, max_chars: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with cleaned values, and which lost a value by what: (row, rule)."""
    names = [name for name in schema.ITEM_TEXT_COLUMNS if name in raw.columns]
    clean = raw.with_columns(clean_texts(raw[name], max_chars).alias(name) for name in names)
    found = [_NOTHING_BROKEN]
    for name in names:
        broken = _broken_titles(raw, clean) if name == TITLE else _broken_texts(raw, clean, name)
        clean = _without(clean, name, broken)
        found.append(broken)
    if PRICE in raw.columns:
        price = pl.col(PRICE).cast(pl.Float64)
        bad = clean.filter(~price.is_finite() | (price < 0)).select("row", rule=pl.lit("bad_price"))
        clean = _without(clean, PRICE, bad)
        found.append(bad)
    unread = clean.filter(_first_text(clean).is_null())
    found.append(unread.select("row", rule=pl.lit("nothing_to_read")))
    return clean, pl.concat(found)


def _broken_titles(raw: pl.DataFrame, clean: pl.DataFrame) -> pl.DataFrame:
    _, failure = TitleRules.filter(clean.select("row", TITLE, raw=raw[TITLE]))
    return _first_broken(failure, TITLE_RULES).with_columns(rule="title_garbage_" + pl.col("rule"))


def _broken_texts(raw: pl.DataFrame, clean: pl.DataFrame, name: str) -> pl.DataFrame:
    emptied = pl.col(name).is_null() & (raw[name].str.strip_chars() != "")
    rule = pl.when(emptied).then(pl.lit(f"{name}_empty"))
    rule = rule.when(_is_word(pl.col(name), MISSING_WORDS)).then(pl.lit(f"{name}_placeholder"))
    return clean.select("row", rule=rule).drop_nulls()


def _is_word(text: pl.Expr, words: Iterable[str]) -> pl.Expr:
    """Whether a text is one of `words`, in any case and between any brackets or dots."""
    bare = text.str.strip_chars(_AROUND_WORDS).str.to_lowercase()
    return bare.is_in(sorted(words)).fill_null(False)


def _without(frame: pl.DataFrame, name: str, broken: pl.DataFrame) -> pl.DataFrame:
    """The column with nulls in the broken rows; row n is numbered n."""
    return frame.with_columns(frame[name].scatter(broken["row"], None))


def _first_text(frame: pl.DataFrame) -> pl.Series:
    texts = [name for name in schema.ITEM_TEXT_COLUMNS if name in frame.columns]
    return frame.select(pl.coalesce(*texts, pl.lit(None, pl.String))).to_series()


def _joined_text(frame: pl.DataFrame) -> pl.Series:
    """Title and description, whose language an item's is."""
    texts = [name for name in schema.ITEM_TEXT_COLUMNS[:2] if name in frame.columns]
    return frame.select(pl.concat_str(texts, separator=" ", ignore_nulls=True)).to_series()


def _first_broken(failure: dy.FailureInfo, rules: tuple[str, ...]) -> pl.DataFrame:
    """(row, rule) of the rows that broke a rule, with the first that each broke."""
    if not len(failure):
        return _NOTHING_BROKEN
    names = [name for name in rules if name in failure.counts()]
    first = pl.coalesce(pl.when(pl.col(n) == "invalid").then(pl.lit(n)) for n in names)
    return failure.details().select("row", rule=first)


def _one_row_an_item(
    clean: pl.DataFrame, raw: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Rows to keep, rows in conflict with them, and the number of equal rows dropped."""
    content = [name for name in clean.columns if name != "row"]
    several = pl.col(schema.ITEM_ID).is_duplicated()
    single, repeated = clean.filter(~several), clean.filter(several)
    # What is raw decides between rows that are equal when clean, whose warnings may differ.
    ordered = repeated.join(raw, "row", suffix="_raw").sort(pl.exclude("row"), nulls_last=True)
    unique = ordered.select("row", *content).unique(content, keep="first", maintain_order=True)
    kept = unique.unique(schema.ITEM_ID, keep="first", maintain_order=True)
    good = pl.concat([single, kept]).sort(schema.ITEM_ID)
    return good, unique.join(kept, "row", "anti"), len(repeated) - len(unique)


def _quarantined(raw: pl.DataFrame, broken: pl.DataFrame) -> pl.DataFrame:
    """Raw rows with rule and value, in an order that does not depend on the files'."""
    rows = raw.join(broken.rename({"rule": schema.RULE}), "row").drop("row")
    rows = rows.with_columns(pl.col(schema.ITEM_ID).alias(schema.RULE_VALUE))
    return rows.sort(schema.RULE, *raw.columns[1:], nulls_last=True)


def _count(lost: pl.DataFrame) -> dict[str, int]:
    counts = dict(sorted(lost["rule"].value_counts().iter_rows()))
    garbage = sum(n for rule, n in counts.items() if rule.startswith("title_garbage_"))
    return counts | ({"title_garbage": garbage} if garbage else {})
