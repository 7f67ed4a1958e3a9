"""What the logs say of a canary: how requests ended, and what users clicked on.

The logs are those of all replicas, and stay when a replica ends. Rows are those of the variant that
a user was given, whichever model answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from recsys import schema
from recsys.config import AnalysisConfig, CanaryConfig
from recsys.experiments.exposures import VARIANT, NothingLogged
from recsys.experiments.outcomes import read_outcomes
from recsys.experiments.requests import RELEASE, read_requests
from recsys.registry import LIVE, AliasName

CANDIDATE: AliasName = "candidate"
SIDES: tuple[AliasName, ...] = (LIVE, CANDIDATE)
"""The variants, named like the aliases that answer them; live is the control."""
QUANTILE = 0.99
"""Of the time that requests take."""
_REQUESTS = {
    schema.USER_ID: pl.String,
    VARIANT: pl.String,
    RELEASE: pl.String,
    schema.TIMESTAMP: pl.Int64,
    "ms": pl.Float64,
    "failed": pl.Boolean,
}
_CLICKS = {
    schema.USER_ID: pl.String,
    VARIANT: pl.String,
    "impressions": pl.Int64,
    "clicks": pl.Int64,
}


@dataclass(frozen=True)
class Evidence:
    """`requests` has a row for each: user_id, variant, release, timestamp, ms, failed.

    `clicks` has a row for each user who was shown something: user_id, variant, impressions, clicks.
    """

    requests: pl.DataFrame
    clicks: pl.DataFrame

    def of(self, variant: str) -> Evidence:
        """What is known of one variant's users."""
        mine = pl.col(VARIANT) == variant
        return Evidence(self.requests.filter(mine), self.clicks.filter(mine))

    def figures(self) -> dict[str, dict[str, float]]:
        """By variant what there is to tell; a share of nothing is 0."""
        return {name: _figures(self.of(name)) for name in SIDES}


def read_evidence(
    feedback: str, experiment: str, began_at: float, config: CanaryConfig
) -> Evidence:
    """What the service logged below `feedback` of an experiment that began at `began_at`.

    Raises:
        ValueError: a log cannot be read.
    """
    since = datetime.fromtimestamp(began_at, UTC).date().isoformat()
    return Evidence(
        _requests(f"{feedback}/requests", experiment, since),
        _clicks(feedback, experiment, since, config),
    )


def _requests(uri: str, experiment: str, since: str) -> pl.DataFrame:
    try:
        rows = read_requests(uri, experiment, since)
    except NothingLogged:
        return pl.DataFrame(schema=_REQUESTS)
    # Also a 4xx: users are divided at random, so each side has its share of those that the clients
    # are to blame for, and a candidate may refuse what the live model answers.
    failed = (pl.col("status") >= 400) | (pl.col("num_items").fill_null(0) == 0)
    return rows.select(pl.col(n) if n != "failed" else failed.alias(n) for n in _REQUESTS)


def _clicks(feedback: str, experiment: str, since: str, config: CanaryConfig) -> pl.DataFrame:
    analysis = AnalysisConfig(
        window_hours=config.window_hours, click_events=config.click_events, pre_days=0.0
    )
    logs = f"{feedback}/exposures", f"{feedback}/interactions"
    try:
        users = read_outcomes(*logs, analysis, experiment, since).users
    except NothingLogged:
        return pl.DataFrame(schema=_CLICKS)
    return users.select(pl.col(name).cast(kind) for name, kind in _CLICKS.items())


def _figures(evidence: Evidence) -> dict[str, float]:
    requests, clicks = evidence.requests, evidence.clicks
    shown = int(clicks["impressions"].sum())
    clicked = int(clicks["clicks"].sum())
    slowest = requests["ms"].quantile(QUANTILE, "higher")
    return {
        "users": requests[schema.USER_ID].n_unique(),
        "requests": len(requests),
        "failed": int(requests["failed"].sum()),
        "p99_ms": float(slowest or 0.0),
        "items_shown": shown,
        "clicks": clicked,
        "ctr": clicked / shown if shown else 0.0,
    }
