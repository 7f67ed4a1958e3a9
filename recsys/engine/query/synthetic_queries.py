"""Queries that shoppers might type, made of the catalogue: to train on, and for items without any.

Each says what it was made to mean. Templates in English and Chinese are filled from an item:
its title whole or with words left out, its category, brand, other columns and price.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys import schema
from recsys.engine.query.lexicon import BRAND, CATEGORY, PRICE, Lexicon, slot_kind
from recsys.engine.query.query_words import RECIPIENTS, STOP_KEYS
from recsys.engine.query.understanding import Intent, Slot
from recsys.engine.query.units import Unit, words_of

ENGLISH, CHINESE = 0, 1
Templates = dict[Intent, tuple[tuple[str, ...], tuple[str, ...]]]
"""By intent the English and the Chinese templates; in braces the parts of `_parts`."""

TEMPLATES: Templates = {
    "navigational": (
        ("{title}", "{title}", "{title_less}"),
        ("{title}", "{title}", "{title_less}"),
    ),
    "category": (
        ("{term}", "{term}", "{category}", "buy {term}", "{term} online", "all {category}"),
        ("{term}", "{term}", "{category}", "买{term}", "{term}哪里买", "所有{category}"),
    ),
    "attribute": (
        (
            "{brand} {term}",
            "{value} {term}",
            "{words} {term}",
            "{words} {term} {price}",
            "{term} {price}",
            "{brand} {term} {price}",
            "{term} {without}",
            "{value} {term} {without}",
            "{brand}",
            "{category} {price}",
            "{term} {recipient}",
            "{term} with {words}",
            "{term} {size}",
            "{unbranded}",
            "{term} for {words}",
        ),
        (
            "{brand}{term}",
            "{value}{term}",
            "{words}{term}",
            "{words}{term} {price}",
            "{term} {price}",
            "{brand}{term} {price}",
            "{term} {without}",
            "{value}{term} {without}",
            "{brand}",
            "{category} {price}",
            "{recipient}买{term}",
            "{price}的{term}",
            "{term} {size}",
            "{unbranded}",
            "{words}的{term}",
        ),
    ),
    "exploratory": (
        (
            "gift ideas {recipient}",
            "something {recipient} {price}",
            "gifts {price}",
            "popular items",
            "best sellers",
            "new arrivals",
            "what is trending",
            "present {recipient}",
            "recommend me something nice",
            "something {price}",
            "what to buy {recipient}",
            "ideas {recipient}",
        ),
        (
            "{recipient}的礼物",
            "{recipient}买什么好",
            "礼物推荐 {price}",
            "热门商品",
            "新品推荐",
            "有什么好东西",
            "{price}的礼物",
            "推荐一下",
            "随便看看",
            "{recipient}送什么",
        ),
    ),
}
"""What the intents are learned from."""
_PRICES = (
    ("under {}", "under ${}", "below {}", "cheaper than {}", "up to {} euros"),
    ("{}元以下", "{}元以内", "不超过{}元", "低于{}块"),
)
_WITHOUT = (("without {}", "no {}", "not {}"), ("不要{}", "不含{}"))
_LACKED = (("sugar", "plastic", "fragrance", "batteries"), ("糖", "塑料", "香精", "电池"))
_SIZES = (("xl", "size 42", "500 ml", "20 inch"), ("42码", "500毫升", "xl", "20寸"))
_FOR = ("for my {}", "给{}")
_MIN_WORDS = 4
"""A title of fewer, brand aside, no longer names the item without one of them."""
_SPACES = re.compile(" +")


@dataclass(frozen=True, slots=True)
class SyntheticQuery:
    """A query, its intent, the slots it was given, and the row of `Lexicon.frame` it is made of.

    `item_id` is None for what names no item, or where the table has no ids.
    """

    text: str
    intent: Intent
    slots: tuple[Slot, ...]
    row: int
    item_id: str | None


def synthetic_queries(
    lexicon: Lexicon,
    count: int,
    seed: int,
    rows: Sequence[int] | None = None,
    templates: Templates = TEMPLATES,
) -> list[SyntheticQuery]:
    """`count` queries, the intents in turn; equal arguments give equal queries.

    `rows` of `lexicon.frame` are the items they are made of, each in turn; drawn where None.
    """
    rng = np.random.default_rng(seed)
    titles = Counter(_keys(lexicon, row) for row in range(len(lexicon.titles)))
    drawn = rng.integers(max(len(lexicon.titles), 1), size=count) if rows is None else rows
    intents = list(templates)
    queries = []
    for number in range(count):
        row = int(drawn[number % len(drawn)]) if len(drawn) else -1
        parts = _parts(lexicon, row, titles, rng) if 0 <= row < len(lexicon.titles) else {}
        wanted = intents[number % len(intents)]
        queries.append(_query(lexicon, row, parts, wanted, templates, rng))
    return queries


def _keys(lexicon: Lexicon, row: int) -> frozenset[str]:
    return frozenset(unit.key for unit in lexicon.titles[row])


_Part = tuple[str, tuple[Slot, ...]]


def _query(
    lexicon: Lexicon,
    row: int,
    parts: dict[str, _Part],
    intent: Intent,
    templates: Templates,
    rng: np.random.Generator,
) -> SyntheticQuery:
    language = CHINESE if parts.get("is_chinese") else ENGLISH
    parts = {**parts, **_free_parts(lexicon, row, language, rng)}
    fitting = [t for t in templates[intent][language] if _fields(t) <= set(parts)]
    if not fitting:
        intent = "exploratory"
        fitting = [t for t in templates[intent][language] if _fields(t) <= set(parts)]
    template = fitting[rng.integers(len(fitting))]
    used = _fields(template)
    text = template.format(**{field: parts[field][0] for field in used})
    slots = tuple(slot for field in sorted(used) for slot in parts[field][1])
    text = _SPACES.sub(" ", text if language == CHINESE or rng.random() < 0.3 else text.lower())
    ids = lexicon.frame[schema.ITEM_ID] if schema.ITEM_ID in lexicon.frame.columns else None
    item_id = str(ids[row]) if ids is not None and intent != "exploratory" and row >= 0 else None
    return SyntheticQuery(text.strip(), intent, slots, row, item_id)


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def _parts(
    lexicon: Lexicon, row: int, titles: Counter[frozenset[str]], rng: np.random.Generator
) -> dict[str, _Part]:
    """What an item can say of itself."""
    units = lexicon.titles[row]
    title = lexicon.frame["title"][row] or ""
    values = {name: lexicon.frame[name][row] for name in lexicon.columns}
    named = {name: Slot(kind=slot_kind(name), column=name, value=v) for name, v in values.items()}
    parts: dict[str, _Part] = {}
    if units and units[-1].is_cjk:
        parts["is_chinese"] = ("", ())
    for name in (CATEGORY, BRAND):
        if values.get(name):
            parts[name] = (values[name], (named[name],))
    others = [n for n in lexicon.columns if n not in (CATEGORY, BRAND) and values[n]]
    if others:
        name = others[rng.integers(len(others))]
        parts["value"] = (values[name], (named[name],))
    terms = lexicon.find_categories(units, set())
    if terms and terms[-1].term.value == values.get(CATEGORY):
        term = min(terms, key=lambda m: (m.last - m.first, -m.first))
        first, last = units[term.first], units[term.last - 1]
        parts["term"] = (title[first.start : last.end], (named[CATEGORY],))
        parts.update(_words(lexicon, row, term.first, term.last, rng))
    if len(units) > 2 and titles[_keys(lexicon, row)] <= 2:
        parts["title"] = (title, ())
        parts.update(_less_than(title, lexicon, units, rng))
    return parts


def _less_than(
    title: str, lexicon: Lexicon, units: Sequence[Unit], rng: np.random.Generator
) -> dict[str, _Part]:
    """A title without one of its words, which still names the item, and one without its brand."""
    brands = [m for m in lexicon.find(units, set()) if m.term.column == BRAND]
    parts: dict[str, _Part] = {}
    for match in brands[:1]:
        start, end = units[match.first].start, units[match.last - 1].end
        parts["unbranded"] = (title[:start] + title[end:], ())
    of_brands = {n for match in brands for n in range(match.first, match.last)}
    others = [w for w in words_of(units) if not of_brands.intersection(range(*w))]
    if len(others) > _MIN_WORDS:
        first, last = others[rng.integers(len(others))]
        parts["title_less"] = (title[: units[first].start] + title[units[last - 1].end :], ())
    return parts


def _words(
    lexicon: Lexicon, row: int, first: int, last: int, rng: np.random.Generator
) -> dict[str, _Part]:
    """One or two words, or one value, of the rest of the title."""
    units = lexicon.titles[row]
    title = lexicon.frame["title"][row]
    found = [m for m in lexicon.find(units, set(range(first, last))) if m.term.column != CATEGORY]
    if found and rng.random() < 0.5:
        match = found[rng.integers(len(found))]
        text = title[units[match.first].start : units[match.last - 1].end]
        column = match.term.column
        return {
            "words": (text, (Slot(kind=slot_kind(column), column=column, value=match.term.value),))
        }
    rest = [
        (begin, end)
        for begin, end in words_of(units)
        if (end <= first or begin >= last) and units[begin].key not in STOP_KEYS
    ]
    if not rest:
        return {}
    chosen = sorted(rng.permutation(len(rest))[: 1 + rng.integers(2)].tolist())
    texts = [title[units[rest[n][0]].start : units[rest[n][1] - 1].end] for n in chosen]
    return {"words": (("" if units[rest[0][0]].is_cjk else " ").join(texts), ())}


def _free_parts(
    lexicon: Lexicon, row: int, language: int, rng: np.random.Generator
) -> dict[str, _Part]:
    """A price, something unwanted, and for whom."""
    known = lexicon.has_price and row >= 0
    price = lexicon.frame[PRICE][row] if known else None
    limit = int(np.ceil((price or rng.uniform(5, 200)) / 10)) * 10
    column = PRICE if lexicon.has_price else None
    lacked = _LACKED[language][rng.integers(len(_LACKED[language]))]
    name = list(RECIPIENTS)[rng.integers(len(RECIPIENTS))]
    words = [w for w in RECIPIENTS[name].split() if w.isascii() == (language == ENGLISH)]
    word = words[rng.integers(len(words))]
    price_text = _PRICES[language][rng.integers(len(_PRICES[language]))].format(max(limit, 10))
    without = _WITHOUT[language][rng.integers(len(_WITHOUT[language]))].format(lacked)
    size = _SIZES[language][rng.integers(len(_SIZES[language]))]
    return {
        "size": (size, ()),
        "price": (price_text, (Slot(kind="price", column=column, maximum=max(limit, 10)),)),
        "without": (without, (Slot(kind="without", value=lacked, negated=True),)),
        "recipient": (_FOR[language].format(word), (Slot(kind="recipient", value=name),)),
    }
