"""What is remembered between requests, where, and for how long."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from recsys.config.section import Section


class StoreConfig(Section):
    """Where the histories of users are kept. A password is never a setting."""

    url: str
    """`sqlite:///path` for one machine (`sqlite:////path` from the root), `sqlite://` for memory,
    or `redis://user@host:6379/0`, with TLS `rediss://`, for many."""
    ttl_days: PositiveInt = 365
    """Days after which an event is forgotten."""
    max_events: PositiveInt = 1_000
    """Newest events that are kept of each user."""
    timeout_s: PositiveFloat = 1.0
    """Seconds after which a store that does not answer is given up."""


class ItemLogConfig(Section):
    """Where changes of items are kept, so that every replica has them. A password is no setting."""

    url: str
    """As that of `store`; they may share one database."""
    keep_days: PositiveInt = 30
    """Days after which a change is dropped: by then the catalogue of an index should have it."""
    poll_s: PositiveFloat = 5.0
    """Seconds between two looks of a replica at what others changed."""
    timeout_s: PositiveFloat = 1.0
    """Seconds after which a log that does not answer is given up."""


class FeedbackConfig(Section):
    """Where events and exposures are logged as Parquet, for the next training and for tests."""

    uri: str
    """Directory or URI; events come below `interactions/`, exposures below `exposures/`, and how
    requests of users in an experiment ended below `requests/`."""
    spool: str
    """Local directory of files on their way to `uri`. It should outlive the replica."""
    max_rows: PositiveInt = 10_000
    """Rows in memory from which on they are written. Ten times as many are the most there are."""
    max_seconds: PositiveFloat = 60.0
    """Seconds after which rows are written, which are those that a crash may lose."""
    max_spool_mb: PositiveInt = 1_024
    """Size of the spool from which on new rows are refused."""
