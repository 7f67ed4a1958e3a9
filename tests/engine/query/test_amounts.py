"""Prices and sizes in the words of shoppers."""

from __future__ import annotations

import pytest

from recsys.engine.query.amounts import find_prices, find_sizes, to_number

PRICES = [
    ("backpack under $20", None, 20, "USD"),
    ("cheaper than 30", None, 30, None),
    ("20-30 euros", 20, 30, "EUR"),
    ("between 20 and 30", 20, 30, None),
    ("from 30 to 20 dollars", 20, 30, "USD"),
    ("100元以下的背包", None, 100, "CNY"),
    ("不超过50块", None, 50, "CNY"),
    ("50到100元", 50, 100, "CNY"),
    ("一百元以内", None, 100, "CNY"),
    ("no less than 20", 20, None, None),
    ("no more than $1,299", None, 1299, "USD"),
    ("at least 20€", 20, None, "EUR"),
    ("30 or less", None, 30, None),
    ("iphone 13 under 500", None, 500, None),
    ("20元左右", 16, 24, "CNY"),
    ("£12.50", 10, 15, "GBP"),
]
NO_PRICES = ["under 5 kg", "over 40 litre", "3-5 years", "20 to 30", "under 30 minutes", "wh-1000"]
NO_PRICES += ["iphone 13", "size 42", "99个", "两个", ""]


@pytest.mark.parametrize(("text", "minimum", "maximum", "currency"), PRICES)
def test_a_price_is_read_with_its_bounds_and_currency(text, minimum, maximum, currency):
    [price] = find_prices(text)
    assert (price.minimum, price.maximum, price.currency) == (minimum, maximum, currency)
    assert any(c.isdigit() or c == "百" for c in text[price.start : price.end])


@pytest.mark.parametrize("text", NO_PRICES)
def test_a_number_that_measures_or_counts_is_no_price(text):
    assert find_prices(text) == []


def test_a_text_may_name_two_bounds():
    low, high = find_prices("over $20 but under $50")
    assert (low.minimum, low.maximum, high.minimum, high.maximum) == (20, None, None, 50)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("500 ml bottle", ["500 ml"]),
        ("t-shirt xl", ["xl"]),
        ("shoes size 42.5", ["42.5"]),
        ("42码 鞋", ["42"]),
        ("2,5kg flour", ["2.5 kg"]),
        ("mother's 2-in-1 lamp", []),
    ],
)
def test_sizes_are_read_with_their_unit(text, sizes):
    assert [size.value for size in find_sizes(text)] == sizes


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,299.50", 1299.5),
        ("1.299,50", 1299.5),
        ("12,5", 12.5),
        ("1.299", 1299),
        ("两百五", 250),
        ("三千五百", 3500),
        ("十二", 12),
        ("一万二", 12_000),
        ("一百零五", 105),
    ],
)
def test_numbers_of_both_notations_and_of_chinese_are_read(text, number):
    assert to_number(text) == number
