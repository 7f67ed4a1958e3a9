"""Whom something is for: `for my daughter`, `给女儿`."""

from __future__ import annotations

import re
from typing import NamedTuple

from recsys.engine.query.query_words import RECIPIENT_OF_WORD

_ENGLISH = sorted((w for w in RECIPIENT_OF_WORD if w.isascii()), key=len, reverse=True)
_CHINESE = sorted((w for w in RECIPIENT_OF_WORD if not w.isascii()), key=len, reverse=True)
_FOR = re.compile(
    rf"(?<![\w])for (?:[a-z0-9'-]{{1,12}} ){{0,4}}?(?P<english>{'|'.join(_ENGLISH)})(?!\w)"
    rf"|(?:送给|给|送|适合|为)(?:我的?|你的?|他的?|她的?)?(?P<chinese>{'|'.join(_CHINESE)})"
)


class Recipient(NamedTuple):
    """A name of `query_words.RECIPIENTS` at a place of a text; `noun` is where its word begins."""

    name: str
    start: int
    end: int
    noun: int


def find_recipients(folded: str) -> list[Recipient]:
    """Recipients named in a lower-case text."""
    found = []
    for match in _FOR.finditer(folded):
        group = "english" if match["english"] else "chinese"
        name = RECIPIENT_OF_WORD[match[group]]
        found.append(Recipient(name, match.start(), match.end(), match.start(group)))
    return found
