"""One version of everything that answers: loaded whole, replaced whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from recsys.artifact import Artifact
from recsys.config import ServeArgs
from recsys.engine.item_rows import check_columns, columns_of, kept_rows, raw_items
from recsys.engine.recommender import Query, Recommender
from recsys.engine.shop_search import ShopQuery, ShopSearch
from recsys.index.catalogue_time import catalogue_time
from recsys.index.item_vectors import ItemEncoder
from recsys.index.lexical import LEXICAL, item_words
from recsys.registry import DIGITS
from recsys.store.item_log import MICROSECONDS, ItemChange, ItemRow

EXPORT_S = 3_600
"""How long before its time a catalogue may have been read from where items are kept: what changed
in that hour is applied once more, which is harmless where the catalogue has it."""
NOTHING = "nothing_to_read"


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint and its index in memory, with a final ranker of search if there is one.

    A request uses one from start to end. `changed_to` is the number of the last change of items
    that it has.
    """

    checkpoint: Artifact
    index: Artifact
    recommender: Recommender
    search: ShopSearch | None
    ranker: Artifact | None = None
    encoder: ItemEncoder | None = None
    changed_to: int = 0

    @classmethod
    def load(
        cls,
        checkpoint: Artifact,
        index: Artifact,
        args: ServeArgs,
        ranker: Artifact | None = None,
    ) -> Self:
        """Load and warm up. A service without search leaves the ranker out.

        Raises:
            ValueError: an artifact is damaged, the index was made from another checkpoint, or the
                ranker was fitted to another index.
        """
        recommender = Recommender.load(checkpoint, index, args.filter_seen, args.user_states_mb)
        recommender.recommend([Query([], 1)])
        search = None
        if args.search and (index.names(LEXICAL) or ranker):
            search = ShopSearch.load(checkpoint, index, recommender, ranker)
            search.search(ShopQuery("warm up"))
        encoder = None
        if args.items is not None:
            queries = search.query_encoder if search else None
            encoder = ItemEncoder.load(checkpoint, recommender.model, queries)
        since = int((catalogue_time(index) - EXPORT_S) * MICROSECONDS)
        kept = ranker if search else None
        return cls(checkpoint, index, recommender, search, kept, encoder, max(0, since))

    @property
    def version(self) -> str:
        """Digest of the checkpoint."""
        return self.checkpoint.digest

    @property
    def release(self) -> str:
        """As the registry names the version; without the ranker where the service does not search.

        It tells versions of one checkpoint apart.
        """
        return "-".join(digest[:DIGITS] for digest in self.parts.split("-"))

    @property
    def parts(self) -> str:
        """Digests of all that answers: what is kept of one is no answer of another."""
        parts = (self.checkpoint, self.index, self.ranker)
        return "-".join(part.digest for part in parts if part)

    @property
    def state(self) -> str:
        """Names all that an answer depends on, beside the request."""
        return f"{self.parts} {self.changed_to}"

    def check_item(self, item_id: str, row: ItemRow) -> list[str]:
        """What of a row would not be used, by the rules of prepare.

        Raises:
            ValueError: the row does not fit the items, or there is nothing to read in it.
        """
        assert self.encoder is not None
        columns = columns_of(self.recommender.catalogue, self.encoder.prepare.text_fields)
        check_columns(row, columns)
        _, warnings = self.encoder.check(raw_items({item_id: row}, columns))
        if NOTHING in warnings:
            raise ValueError(f"there is nothing to read in the item ({', '.join(warnings)})")
        return sorted(warnings)

    def passed(self, number: int) -> ServedModel:
        """The same model, for which the changes up to a number are done with."""
        return replace(self, changed_to=number)

    def changed(self, changes: Sequence[ItemChange]) -> ServedModel:
        """The model with these changes, each of another item, in the order of their numbers.

        Columns that this index does not have are left out.

        Raises:
            ValueError: a value is of another type than the index has.
        """
        put = {one.item_id: one.row for one in changes if one.row is not None}
        gone = [one.item_id for one in changes if one.row is None]
        made = self._with(put) if put and self.encoder is not None else self
        made = made._without(gone) if gone else made
        return made.passed(changes[-1].number)

    def _with(self, rows: Mapping[str, ItemRow]) -> ServedModel:
        assert self.encoder is not None
        catalogue, fields = self.recommender.catalogue, self.encoder.prepare.text_fields
        found = self.encoder.encode(raw_items(rows, columns_of(catalogue, fields)))
        ids = found.items["item_id"].to_pylist()
        recommender = self.recommender.with_items(
            ids, found.vectors_MD, kept_rows(found.items, catalogue)
        )
        search = None
        if self.search is not None:
            words = dict(zip(ids, item_words(found.items, fields), strict=True))
            search = self.search.with_items(recommender, words, found.text_ME)
        return replace(self, recommender=recommender, search=search)

    def _without(self, item_ids: Sequence[str]) -> ServedModel:
        recommender = self.recommender.without_items(item_ids)
        search = self.search
        if search is not None:
            queries = search.query_encoder
            nothing = torch.empty(0, queries.size if queries else 0)
            search = search.with_items(recommender, {}, nothing)
        return replace(self, recommender=recommender, search=search)
