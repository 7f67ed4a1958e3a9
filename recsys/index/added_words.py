"""BM25 of items that came after an index by words was built, in that index's own measure.

How rare a word is and how long an item is on average are taken from the index below, so an item
that comes again with the words it had gets the scores it had, and no other score moves.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch

K1, B = 1.5, 0.75
"""Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009."""


class AddedWords:
    """The words of some items, by item index, and what they score.

    `num_items` are those of the index below, `items_with` tells how many of them have a word, and
    `mean_words` is their mean number of words, 0 where it is not known: then length counts nothing.
    """

    def __init__(
        self,
        words: Mapping[int, Sequence[str]],
        num_items: int,
        items_with: Callable[[str], int],
        mean_words: float,
    ) -> None:
        self.words = dict(words)
        self._scores: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for item, some in words.items():
            length = len(some) / mean_words if mean_words else 1.0
            norm = K1 * (1 - B + B * length)
            for word, times in Counter(some).items():
                rarity = _rarity(items_with(word), num_items)
                self._scores[word][item] = rarity * times / (times + norm)

    def put_into(self, scores_N: torch.Tensor, query: Sequence[str]) -> None:
        """Replace the scores of these items by those for a query's words."""
        scores_N[list(self.words)] = 0.0
        for word in query:
            found = self._scores.get(word)
            if found:
                scores_N[list(found)] += torch.tensor(list(found.values()))


def _rarity(items_with: int, num_items: int) -> float:
    """The inverse document frequency of Lucene's variant, as the index below has it."""
    return math.log(1 + (num_items - items_with + 0.5) / (items_with + 0.5))
