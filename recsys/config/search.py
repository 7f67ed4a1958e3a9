"""Search: what it learns from, and what it is measured on."""

from __future__ import annotations

from pydantic import NonNegativeInt

from recsys.config.section import Section


class SearchConfig(Section):
    """Items and queries to search by words and by meaning."""

    enabled: bool = True
    """Let the index hold what search needs; takes the extra `search`."""
    queries: str = ""
    """Parquet file with columns `query`, `item_id` and perhaps `relevance`, above 0. Three
    fifths of the distinct queries are learned from, a fifth chooses settings and a fifth is
    measured. Without a file words and meaning count the same."""
    query_prompt: str = ""
    """Stands before every query that the language model reads; some want one, such as `query: `."""
    epochs: NonNegativeInt = 10
    """Passes over the learned queries that fit query vectors to item vectors; the pass that does
    best on the choosing ones stays, which may be none."""
