"""Text as shops store it -> text to read: no markup, no invisible characters, one normal form.

Letters of every script, emoji and right-to-left text stay as they are.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Sequence
from html.entities import html5

import polars as pl

MAX_CHARS = 10_000
MAX_PASSES = 8
"""Entities in entities and tags in tags are undone so often; then their signs become spaces."""

_BLOCK_TAGS = (
    "address article aside base blockquote body br button canvas caption center col colgroup dd "
    "details dialog dir div dl dt embed fieldset figcaption figure footer form frame frameset "
    "h1 h2 h3 h4 h5 h6 head header hr html iframe img input legend li link main map menu meta nav "
    "noscript object ol optgroup option p param picture pre progress script section select source "
    "style summary svg table tbody td template textarea tfoot th thead title tr track ul video"
)
_INLINE_TAGS = (
    "a abbr acronym audio b bdi bdo big cite code data del dfn em font i ins kbd label mark meter "
    "nobr q rp rt ruby s samp small span strike strong sub sup time tt u var wbr"
)
"""Elements of HTML (https://html.spec.whatwg.org/multipage/indices.html, with obsolete ones). Only
these are tags: `<3`, `List<String>` and `<3 mm` are text."""


def _tag(names: str) -> str:
    attributes = r"""\s(?:"[^"]*"|'[^']*'|[^<>"'])*|\s[^<>]*"""
    return rf"(?i)</?(?:{names.replace(' ', '|')})(?:{attributes})?/?>"


_HIDDEN_MARKUP = (
    r"(?is)<!--.*?-->|<!doctype[^<>]*>|"
    r"<script\b[^<>]*>.*?</script\s*>|<style\b[^<>]*>.*?</style\s*>"
)
_BLOCK_TAG, _INLINE_TAG = _tag(_BLOCK_TAGS), _tag(_INLINE_TAGS)
_NESTED_AMPERSAND = r"(?i)&(?:amp;|#0*38;|#x0*26;)+"
_ENTITY = r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[A-Za-z][A-Za-z0-9]{1,31});"
_ENTITY_RE = re.compile(_ENTITY)

_INVISIBLE = (
    r"[\p{Cc}&&[^\s]]|"  # control characters that are no space
    r"[\x{61C}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}]|"  # direction of writing
    r"[\x{AD}\x{34F}\x{180E}\x{200B}\x{2060}-\x{2065}\x{206A}-\x{206F}\x{FEFF}\x{FFF9}-\x{FFFB}]|"
    r"[\x{115F}\x{1160}\x{3164}\x{FFA0}]|"  # Hangul fillers
    r"[\x{E0000}-\x{E007F}]"  # tag characters, in which text can be hidden
)
_JOINED = (
    r"\p{Extended_Pictographic}\x{FE0F}\x{1F3FB}-\x{1F3FF}"
    r"\p{Arabic}\p{Syriac}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}"
    r"\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)
"""Between two of these a (non-)joiner means something: in emoji, Persian and Indic words."""
_JOINER_AFTER_OTHER = rf"(^|[^{_JOINED}])[\x{{200C}}\x{{200D}}]+"
_JOINER_BEFORE_OTHER = rf"[\x{{200C}}\x{{200D}}]+([^{_JOINED}]|$)"

_CHANGED_BY_CLEANING = r"[^ -~]|  |^ | $|[<&]"
"""Printable ASCII in single spaces without markup, most of most catalogues, stays as it is."""


def clean_texts(values: pl.Series | Sequence[str | None], max_chars: int = MAX_CHARS) -> pl.Series:
    """Texts without HTML, control, direction and zero-width characters; null where nothing is left.

    Block tags become spaces and inline tags nothing, entities what they stand for however deep they
    are nested, the rest NFKC, white space single spaces, and of it the first `max_chars`
    characters. A joiner stays between emoji and within words of scripts that need it. Cleaning a
    clean text changes nothing.
    """
    texts = pl.Series(values, dtype=pl.String)
    todo = texts.str.contains(_CHANGED_BY_CLEANING) | (texts.str.len_chars() > max_chars)
    for number in range(MAX_PASSES + 1):
        rows = todo.fill_null(False).arg_true()
        if not len(rows):
            break
        before = texts.gather(rows)
        if number == MAX_PASSES:
            before = before.str.replace_all("[<>&]", " ")
        after = _clean_once(before, max_chars)
        texts = texts.scatter(rows, after)
        todo = pl.repeat(False, len(texts), eager=True).scatter(rows, after != before)
    return texts.replace("", None)


def _clean_once(texts: pl.Series, max_chars: int) -> pl.Series:
    plain = (
        texts.str.replace_all(_HIDDEN_MARKUP, " ")
        .str.replace_all(_BLOCK_TAG, " ")
        .str.replace_all(_INLINE_TAG, "")
    )
    return (
        _decode_entities(plain)
        .str.replace_all(_INVISIBLE, "")
        .str.replace_all(_JOINER_AFTER_OTHER, "$1")
        .str.replace_all(_JOINER_BEFORE_OTHER, "$1")
        .str.normalize("NFKC")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars(" ")
        .str.head(max_chars)
        .str.strip_chars_end(" ")
    )


def _decode_entities(texts: pl.Series) -> pl.Series:
    """Entities that end in a semicolon; without one `&copy` may be part of an address."""
    rows = texts.str.contains(_ENTITY).arg_true()
    if not len(rows):
        return texts
    nested = texts.gather(rows).str.replace_all(_NESTED_AMPERSAND, "&amp;")
    decoded = [_ENTITY_RE.sub(_decode_entity, text) for text in nested]
    return texts.scatter(rows, pl.Series(decoded, dtype=pl.String))


def _decode_entity(match: re.Match[str]) -> str:
    entity = match[0]
    return html.unescape(entity) if entity[1] == "#" else html5.get(entity[1:], entity)


LANGUAGES = (
    "ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru "
    "sk sl sr sv ta te th tr uk ur vi zh"
)
"""The languages told apart. The library knows 139, but takes a short English title for Pidgin."""
MIN_CONFIDENCE = 0.5


def detect_languages(texts: pl.Series) -> pl.Series:
    """Two-letter language codes by py3langid; null where it is less than half sure, or no text is.

    About 25,000 titles a second. Titles of a few words, names and numbers are often left open.

    Raises:
        ValueError: py3langid is not installed.
    """
    classify = _language_classifier()
    return pl.Series([_language(classify, text) for text in texts], dtype=pl.String)


def _language(classify: Callable[[str], tuple[str, float]], text: str | None) -> str | None:
    if not text:
        return None
    language, _ = classify(text)
    return language if len(language) == 2 else None


@functools.cache
def _language_classifier() -> Callable[[str], tuple[str, float]]:
    # An extra: it takes 1.5 s to load, and few need it.
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError(
            "prepare.detect_language needs py3langid: install recsys[language]"
        ) from error
    identifier = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE
    )
    identifier.set_languages(LANGUAGES.split())
    return identifier.classify
