"""Cleaning of text: what goes, what stays, and that clean text is left alone."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.text import MAX_PASSES, clean_texts, detect_languages

CLEANED = [
    ("<b>Red</b> hat<br/>new", "Red hat new"),
    ("<P CLASS='x'>Red</P><div>hat</div>", "Red hat"),
    ('<a href="/x>y" title="a">link</a>', "link"),
    ("红<b>色</b>帽子", "红色帽子"),
    ("<style>b {color: red}</style>hat<script>x < 1</script><!-- no -->", "hat"),
    ("Shoes &amp; Jewelry", "Shoes & Jewelry"),
    ("4&#39; x 6&#x27; &eacute;&nbsp;&#128512;", "4' x 6' é 😀"),
    ("&amp;amp;lt;b&amp;amp;gt;bold&lt;/b&gt;", "bold"),
    ("＜b＞Ｗｉｄｅ＜/b＞ ①", "Wide 1"),
    ("a\x00b\x07c", "abc"),
    ("a\t b\r\n\n c\u2028d\u3000e\xa0", "a b c d e"),
    ("\u202egnp.exe\u202c \u200fשלום\u200e", "gnp.exe שלום"),
    ("so\xadft zero\u200bwidth\ufeff", "soft zerowidth"),
    ("joi\u200dner\u200c", "joiner"),
    ("\U000e0068\U000e0069shown", "shown"),
    ("e\u200b\u0301", "é"),
    ("<scr\x00ipt>hat", "hat"),
]
KEPT = [
    "中文标题 蓝色",
    "日本語のカップ",
    "가죽 지갑",
    "حقيبة حمراء",
    "می\u200cخواهم",
    "क्\u200dष",
    "👨\u200d👩\u200d👧 ❤️\u200d🔥 👍🏽",
    "I <3 tea, 5<6>2",
    "List<String> and <hello>",
    "AT&T R&D &bogus; ?a=1&copy=2",
    "Hat",
]
NOTHING = ["", "   ", "<br><p></p>", "\u200b\u202e\x00", "\u3164", "<!-- only a comment -->", None]


@pytest.mark.parametrize(("raw", "clean"), CLEANED)
def test_markup_and_invisible_characters_go_and_the_rest_is_one_normal_form(raw, clean):
    assert clean_texts([raw]).to_list() == [clean]


@pytest.mark.parametrize("text", KEPT)
def test_letters_emoji_and_signs_that_only_look_like_markup_stay(text):
    assert clean_texts([text]).to_list() == [text]


def test_where_nothing_is_left_there_is_null():
    assert clean_texts(NOTHING).to_list() == [None] * len(NOTHING)


def test_texts_stay_in_their_rows():
    texts = ["<b>a</b>", "b", None, "c  d", "<br>", "&lt;b&gt;e"]
    assert clean_texts(pl.Series(texts)).to_list() == ["a", "b", None, "c d", None, "e"]
    assert clean_texts([]).to_list() == []
    assert clean_texts(pl.Series([None, None], dtype=pl.Null)).to_list() == [None, None]


def test_long_texts_are_cut_between_characters_and_short_ones_are_not():
    assert clean_texts(["红色的帽子", "hat"], max_chars=3).to_list() == ["红色的", "hat"]
    assert clean_texts(["ab cd"], max_chars=3).to_list() == ["ab"]
    assert clean_texts(["<p>" * 50 + "hat"], max_chars=3).to_list() == ["hat"]
    assert clean_texts(["👨\u200d👩"], max_chars=2).to_list() == ["👨"]


def test_markup_nested_deeper_than_the_passes_ends_without_markup():
    depth = 3 * MAX_PASSES
    (tags, entities) = clean_texts(
        ["<" * depth + "b>" * depth + "hat", "&" + "amp;" * 9999 + "lt;b&gt;cap"]
    )
    assert tags.endswith("hat")
    assert not set(tags) & set("<>&")
    assert entities == "cap"


ENTITIES = "&lt; &gt; &amp; amp; lt; gt; #38; &#38; &#x3c; &nbsp; &"
MARKUP = "< > ; / b br script </ <b> <p> \uff1c \uff1e \uff06"
SIGNS = "\u200d\u200c\u0301\u0302\uffe8\ufdfa\ufb01👩❤\ufe0f🏽红\u0627\u0915\u094dÅ가\u1100\u1161"
SIGNS += "\u202e\x00\x85\u2028"
pieces = st.sampled_from([*ENTITIES.split(), *MARKUP.split(), *SIGNS])
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.one_of(pieces, st.just(" "), st.characters(codec="utf-8")), max_size=25).map(
        "".join
    ),
)


@settings(deadline=None, max_examples=300)
@given(raw=texts, max_chars=st.sampled_from([3, 7, 10_000]))
def test_cleaning_a_clean_text_changes_nothing(raw, max_chars):
    once = clean_texts([raw], max_chars)
    assert clean_texts(once, max_chars).to_list() == once.to_list()


@settings(deadline=None, max_examples=200)
@given(raw=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=30))
def test_letters_and_digits_are_never_lost(raw):
    fillers = "\u115f\u1160\u3164\uffa0"  # letters by name, that show nothing
    visible = "".join(c for c in raw if c not in fillers)
    expected = " ".join(unicodedata.normalize("NFKC", visible).split())
    assert clean_texts([raw]).to_list() == [expected or None]


def test_languages_are_told_by_the_text_and_left_open_where_it_says_little():
    told = {
        "A warm red hat for the winter, made of soft wool": "en",
        "红色羊毛帽子": "zh",
        "かわいい猫のマグカップ": "ja",
        "가죽 지갑": "ko",
        "Rote Wollmütze für Herren": "de",
        "حقيبة حمراء للنساء": "ar",
        "3M 1234": None,
        "": None,
        None: None,
    }
    assert detect_languages(pl.Series(list(told), dtype=pl.String)).to_list() == list(told.values())
