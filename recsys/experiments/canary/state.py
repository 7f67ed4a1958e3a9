"""Where a canary stands, in a file beside that of the experiments, and what comes next."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.config import CanaryConfig
from recsys.experiments.canary.evidence import CANDIDATE, Evidence
from recsys.experiments.canary.harm import find_harm
from recsys.experiments.requests import RELEASE
from recsys.registry import LIVE
from recsys.schema import TIMESTAMP
from recsys.storage import has_file, read_bytes, write_bytes

Outcome = Literal["running", "promoting", "promoted", "rolling back", "rolled back"]


class CanaryState(BaseModel):
    """One canary. Times are Unix seconds.

    It is written before what it says is done, so that who starts again knows what to do. `share` of
    the users get the candidate since `step_began_at`, and `in_file` says whether the file of the
    experiments has it yet. `experiment` takes the place of `instead_of`, an earlier canary's.
    `generation` is that of the alias `candidate`. `reason` is why it went back, or what the step
    lacks. `figures` are those of the newest look, by variant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    experiment: str
    instead_of: str = ""
    live: str
    candidate: str
    generation: int
    share: float
    began_at: float
    step_began_at: float
    in_file: bool = False
    outcome: Outcome = "running"
    reason: str = ""
    figures: dict[str, dict[str, float]] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done."""
        return self.outcome in ("promoted", "rolled back")

    @property
    def ramp(self) -> float:
        """Share of the users that are in the experiment: half of them get the candidate."""
        return 2 * self.share

    def but(self, **changes: object) -> CanaryState:
        """With other values."""
        return self.model_copy(update=changes)


def load_state(place: str) -> CanaryState | None:
    """The state at `place`; None where there never was a canary.

    Raises:
        ValueError: it is damaged, or cannot be read.
    """
    if not has_file(place):
        return None
    try:
        return CanaryState.model_validate_json(read_bytes(place))
    except ValidationError as error:
        raise ValueError(f"{place} is damaged: {error.errors()[0]['msg']}") from error


def save_state(place: str, state: CanaryState) -> CanaryState:
    """Write the state to `place`; returns it."""
    write_bytes(place, state.model_dump_json(indent=2).encode())
    return state


def decide(state: CanaryState, evidence: Evidence, config: CanaryConfig, now: float) -> CanaryState:
    """The state after a look: the same step, the next one, or the end that is to be brought about.

    Harm that is shown ends it at any time; a step goes on until it was long enough and has enough
    requests, and ends it where that takes too long.
    """
    state = state.but(figures=evidence.figures())
    if harm := find_harm(evidence, config):
        return state.but(outcome="rolling back", reason="; ".join(harm))
    seconds = now - state.step_began_at
    lacks = _lacks(state, evidence, config)
    if lacks and seconds >= config.max_step_s:
        told = f"{lacks} after {seconds / 3600:.1f} hours at {state.share:.0%} of the users"
        return state.but(outcome="rolling back", reason=told)
    if lacks or seconds < config.hold_s:
        return state.but(reason=lacks)
    higher = [share for share in config.steps if share > state.share]
    if not higher:
        return state.but(outcome="promoting", reason="")
    return state.but(share=higher[0], step_began_at=now, in_file=False, reason="")


def _lacks(state: CanaryState, evidence: Evidence, config: CanaryConfig) -> str:
    """What this step still needs besides time; empty where that is nothing."""
    rows = evidence.requests.filter(pl.col(TIMESTAMP) >= int(state.step_began_at))
    step = Evidence(rows, evidence.clicks)
    answered = {}
    for side, version in ((CANDIDATE, state.candidate), (LIVE, state.live)):
        requests = step.of(side).requests
        answered[side] = int(requests[RELEASE].is_in(_names(version)).sum())
        if answered[side] < config.min_answered * len(requests):
            return (
                f"only {answered[side]:,} of {len(requests):,} requests were answered by "
                f"{version}, which is {side}: a replica may have refused it, see /v1/model"
            )
    if answered[CANDIDATE] < config.min_requests:
        return f"{answered[CANDIDATE]:,} of {config.min_requests:,} requests"
    clicks = int(evidence.of(LIVE).clicks["clicks"].sum())
    return "" if clicks >= config.min_clicks else f"{clicks:,} of {config.min_clicks:,} clicks"


def _names(version: str) -> list[str]:
    """What a release of a version may be called: who does not search leaves its ranker out."""
    return [version, "-".join(version.split("-")[:2])]
