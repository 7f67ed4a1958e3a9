"""One version of everything that answers: loaded whole, replaced whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from recsys.artifact import Artifact
from recsys.config import ServeArgs
from recsys.engine.recommender import Query, Recommender
from recsys.engine.shop_search import ShopQuery, ShopSearch
from recsys.index.lexical import LEXICAL


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint and its index in memory. A request uses one from start to end."""

    checkpoint: Artifact
    index: Artifact
    recommender: Recommender
    search: ShopSearch | None

    @classmethod
    def load(cls, checkpoint: Artifact, index: Artifact, args: ServeArgs) -> Self:
        """Load and warm up.

        Raises:
            ValueError: an artifact is damaged, or the index was made from another checkpoint.
        """
        recommender = Recommender.load(checkpoint, index, args.filter_seen, args.user_states_mb)
        recommender.recommend([Query([], 1)])
        search = None
        if args.search and index.names(LEXICAL):
            search = ShopSearch.load(checkpoint, index, recommender)
            search.search(ShopQuery("warm up"))
        return cls(checkpoint, index, recommender, search)

    @property
    def version(self) -> str:
        """Digest of the checkpoint."""
        return self.checkpoint.digest
