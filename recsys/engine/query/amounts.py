"""Prices and sizes in a query, in English and Chinese.

Small expressions of our own: price-parser finds one price a text, no range and no place, and
quantulum3 gives the middle of a range and reads no Chinese. Every repetition is bounded, so the
time is linear in the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

AROUND = 0.2
"""`around 20` is within this share of 20."""

_CURRENCIES = {
    "USD": r"us\$|\$|usd|dollars?|bucks?|美元|美金",
    "EUR": r"€|eur|euros?|欧元",
    "GBP": r"£|gbp|pounds?|quid|英镑",
    "CNY": r"¥|cny|rmb|yuan|人民币|块钱|元钱|元|块",
}
_CURRENCY = {name: re.compile(pattern) for name, pattern in _CURRENCIES.items()}
_SIGN = "|".join(_CURRENCIES.values())
_DIGITS = r"[0-9]{1,3}(?:[,.][0-9]{3}){1,3}(?:[.,][0-9]{1,2})?|[0-9]{1,9}(?:[.,][0-9]{1,2})?"
_CHINESE_NUMBER = "[零一二两三四五六七八九十百千万]{1,9}"
_MEASURES = (
    r"ml|cl|dl|l|lit(?:er|re)s?|kg|g|grams?|mg|oz|lbs?|cm|mm|m|km|met(?:er|re)s?|inch(?:es)?|ft|"
    r"feet|gb|tb|mb|watts?|w|v|volts?|mah|hz|毫升|升|千克|公斤|克|斤|厘米|毫米|英寸|寸|米|瓦|伏"
)
_COUNTED = (
    r"hours?|hrs?|h|min(?:ute)?s?|days?|weeks?|years?|yrs?|yo|months?|pcs|pieces?|packs?|people|"
    r"persons?|players?|%|x|码|号|岁|人|件|个|片|瓶|盒|小时|分钟|天|年|月|度|级"
)
_NO_PRICE = rf"(?![0-9])(?![.,][0-9])(?! ?-?(?:{_MEASURES}|{_COUNTED})(?![a-z]))"


def _amount(name: str) -> str:
    """An amount of money; groups `c`, `n` and `d` with the name: sign, number, sign."""
    number = rf"(?P<n{name}>{_DIGITS}|{_CHINESE_NUMBER})"
    sign = rf"(?P<c{name}>{_SIGN})"
    return rf"(?<![0-9a-z.])(?:{sign} ?)?{number}{_NO_PRICE}(?: ?(?P<d{name}>{_SIGN})(?![a-z]))?"


_TO = r" ?(?:-|\u2013|\u2014|~|to|and|到|至) ?"
_LESS = (
    "not over|no more than|not more than|not above|(?<!not )under|(?<!not )below|"
    "(?<!no )(?<!not )less than|(?<!not )cheaper than|lower than|up to|at most|within|"
    "max(?:imum)?(?: of)?|<=?|≤|不超过|不高于|不多于|不大于|低于|少于|小于|不到|最多|预算"
)
_MORE = (
    "not under|not below|no less than|not less than|not cheaper than|over|above|more than|at least|"
    "starting (?:at|from)|min(?:imum)?(?: of)?|>=?|≥|超过|高于|大于|多于|至少|不低于|不少于|最少"
)
_ABOUT = "around|about|approximately|roughly|大约|大概|约|差不多"
_BEGIN = r"(?<![a-z])"
_KINDS = {
    "between": rf"(?:{_BEGIN}(?P<cue>between|from) )?{_amount('a')}{_TO}{_amount('b')}",
    "most": rf"{_BEGIN}(?:{_LESS}) ?{_amount('a')}"
    rf"|{_amount('b')} ?(?:以下|以内|之内|封顶|or (?:less|under|below)(?![a-z]))",
    "least": rf"{_BEGIN}(?P<cue>{_MORE}) ?{_amount('a')}"
    rf"|{_amount('b')} ?(?:以上|起步|or (?:more|above|over)(?![a-z]))",
    "about": rf"{_BEGIN}(?P<cue>{_ABOUT}) ?{_amount('a')}|{_amount('b')} ?(?:左右|上下)",
    "bare": _amount("a"),
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}
_CONFIDENCE = {"between": 0.95, "most": 0.9, "least": 0.65, "about": 0.6, "bare": 0.5}
_WITH_CURRENCY = {"between": 0.99, "most": 0.99, "least": 0.98, "about": 0.9, "bare": 0.6}

_SIZE = re.compile(
    rf"(?<![0-9a-z.])(?P<number>[0-9]{{1,5}}(?:[.,][0-9]{{1,2}})?) ?-?"
    rf"(?P<measure>{_MEASURES})(?![a-z])"
    r"|(?<![a-z])size (?P<named>[2-5]?x{0,3}[sml]|[0-9]{1,3}(?:\.5)?)(?![0-9a-z])"
    r"|(?<![0-9])(?P<code>[0-9]{2,3}(?:\.5)?)[码号]"
    r"|(?<![0-9a-z'])(?P<letters>[2-5]xl|x{1,3}l|x{1,3}s)(?![0-9a-z'])"
)


class Price(NamedTuple):
    """A range of money at a place of the text."""

    minimum: float | None
    maximum: float | None
    currency: str | None
    start: int
    end: int
    confidence: float


class Size(NamedTuple):
    """A size at a place of the text, such as `500 ml`, `xl` or `42`."""

    value: str
    start: int
    end: int


def find_prices(folded: str) -> list[Price]:
    """Prices of a lower-case text, in the order of their places.

    An amount without a currency is a price after words that say so, and unless a measure follows.
    """
    found: list[Price] = []
    for kind, pattern in _PATTERNS.items():
        for match in pattern.finditer(folded):
            price = _price(kind, match)
            if price and all(price.end <= p.start or p.end <= price.start for p in found):
                found.append(price)
    return sorted(found, key=lambda price: price.start)


def _price(kind: str, match: re.Match[str]) -> Price | None:
    groups = match.groupdict()
    numbers = [to_number(groups[n]) for n in ("na", "nb") if groups.get(n)]
    signs = [groups[n] for n in ("ca", "da", "cb", "db") if groups.get(n)]
    currency = _iso_code(signs[0]) if signs else None
    said = currency is not None or groups.get("cue") or kind == "most"
    if kind in ("bare", "about"):
        said = currency is not None or groups.get("cue") == "around"
    if not said and not re.search("以[下内上]|左右", match[0]) and " or " not in match[0]:
        return None
    low, high = _bounds(kind, numbers)
    confidence = (_WITH_CURRENCY if currency else _CONFIDENCE)[kind]
    return Price(low, high, currency, match.start(), match.end(), confidence)


def _bounds(kind: str, numbers: list[float]) -> tuple[float | None, float | None]:
    if kind == "most":
        return None, numbers[0]
    if kind == "least":
        return numbers[0], None
    if kind == "between":
        return min(numbers), max(numbers)
    return round((1 - AROUND) * numbers[0], 2), round((1 + AROUND) * numbers[0], 2)


def _iso_code(sign: str) -> str:
    return next(name for name, pattern in _CURRENCY.items() if pattern.fullmatch(sign))


def find_sizes(folded: str) -> list[Size]:
    """Sizes of a lower-case text, in order."""
    return [Size(_size(match), match.start(), match.end()) for match in _SIZE.finditer(folded)]


def _size(match: re.Match[str]) -> str:
    if match["number"]:
        return f"{match['number'].replace(',', '.')} {match['measure']}"
    return match["named"] or match["code"] or match["letters"]


def to_number(text: str) -> float:
    """The number a text stands for: `1,299.50`, `1.299,50`, `12,5`, `两百五`.

    One separator with three digits behind it parts thousands.
    """
    if not text[0].isascii():
        return float(_chinese_number(text))
    whole, point, cents = text, "", ""
    last = max(text.rfind("."), text.rfind(","))
    if last >= 0 and len(text) - last - 1 < 3:
        whole, point, cents = text[:last], ".", text[last + 1 :]
    return float(re.sub("[.,]", "", whole) + point + cents)


def _chinese_number(text: str) -> int:
    """`三千五百` is 3500; a digit after a power and at the end counts tenths of it: `两百五`."""
    total = section = digit = 0
    power = 1
    for character in text:
        if character in (tens := {"十": 10, "百": 100, "千": 1000}):
            power = tens[character]
            section += (digit or 1) * power
            digit = 0
        elif character == "万":
            power = 10_000
            total += ((section + digit) or 1) * power
            section = digit = 0
        else:
            digit = "零一二三四五六七八九".find(character.replace("两", "二"))
            power = 1 if digit == 0 else power
    tail = digit * (power // 10 if power > 10 else 1)
    return total + section + tail
