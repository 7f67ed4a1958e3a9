"""One version of everything that answers: loaded whole, replaced whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from recsys.artifact import Artifact
from recsys.config import ServeArgs
from recsys.engine.recommender import Query, Recommender
from recsys.engine.shop_search import ShopQuery, ShopSearch
from recsys.index.lexical import LEXICAL
from recsys.registry import DIGITS


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint and its index in memory, with a final ranker of search if there is one.

    A request uses one from start to end.
    """

    checkpoint: Artifact
    index: Artifact
    recommender: Recommender
    search: ShopSearch | None
    ranker: Artifact | None = None

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
        return cls(checkpoint, index, recommender, search, ranker if search else None)

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
