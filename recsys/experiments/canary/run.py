"""The canary itself: looks at the logs, moves `ramp` and in the end `live`, or goes back.

At every moment the files say what is to be done next, so it may be ended and begun again. No users
stay with a candidate that nobody watches: the experiment ends by itself when its step has taken too
long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from recsys.config import CanaryConfig, ExperimentConfig, VariantConfig
from recsys.experiments.canary.evidence import CANDIDATE, SIDES, read_evidence
from recsys.experiments.canary.experiments_toml import (
    change_experiment,
    put_experiment,
    read_experiments,
    utc,
)
from recsys.experiments.canary.state import CanaryState, decide, load_state, save_state
from recsys.registry import LIVE, Alias, AliasName, Registry

log = logging.getLogger(__name__)
MOST_BLIND = 12
"""Looks without a result, one after the other: an hour as `look_s` is by default."""


@dataclass(frozen=True)
class Places:
    """Directories or URIs: the registry, the service's feedback log, its file of experiments."""

    registry: str
    feedback: str
    experiments: str

    @property
    def state(self) -> str:
        """Where it is written how far the canary is."""
        return f"{self.experiments}.canary.json"


@dataclass(frozen=True)
class Clock:
    """Unix seconds, and how to let some pass."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def run_canary(places: Places, config: CanaryConfig, clock: Clock | None = None) -> CanaryState:
    """Bring the registry's candidate to all users, or back to none; returns how that ended.

    One that was begun goes on, and a candidate that was judged is not judged again until it is
    promoted again. A step takes `max_step_s` at most, and after `MOST_BLIND` looks at places that
    cannot be read the candidate goes back.

    Raises:
        ValueError: there is nothing to begin with, or nothing can be written either.
    """
    clock = clock or Clock()
    canary = Canary(places, config, clock)
    state, blind = canary.begin(), 0
    while not state.is_over:
        try:
            state, blind = canary.look(), 0
        except ValueError as error:
            blind += 1
            log.warning("look %d of %d at the canary failed: %s", blind, MOST_BLIND, error)
            if blind == MOST_BLIND:
                return canary.stop(str(error))
        if not state.is_over:
            clock.sleep(config.look_s)
    return state


class Canary:
    """One registry's; see `run_canary`."""

    def __init__(self, places: Places, config: CanaryConfig, clock: Clock) -> None:
        self._places, self._config, self._clock = places, config, clock
        self._registry = Registry(places.registry)

    def begin(self) -> CanaryState:
        """The canary of the registry's candidate as far as it is, or a new one.

        Raises:
            ValueError: there is no candidate, it is live, or another experiment shows it.
        """
        seen, candidate = load_state(self._places.state), self._alias(CANDIDATE)
        if seen and not seen.is_over and seen.candidate != candidate.version:
            seen = self.look()  # ends it, as another candidate came
        is_judged = seen is not None and seen.generation == candidate.generation
        if seen and seen.candidate == candidate.version and (is_judged or not seen.is_over):
            return seen
        live = self._alias(LIVE)
        if live.version == candidate.version:
            raise ValueError(f"candidate {candidate.version} of {self._places.registry} is live")
        self._check_alone(seen)
        now = self._clock.now()
        state = CanaryState(
            # A name and a salt of its own, so that no older rows are counted.
            experiment=f"canary-{candidate.version}-{int(now)}",
            instead_of=seen.experiment if seen else "",
            live=live.version,
            candidate=candidate.version,
            generation=candidate.generation,
            share=self._config.steps[0],
            began_at=now,
            step_began_at=max(now, candidate.flip_at),
        )
        return self._save(state)

    def look(self) -> CanaryState:
        """Do what is due now; returns how far the canary is then.

        Raises:
            ValueError: a place cannot be read or written.
        """
        # As it is written: after a fault in the middle of a look it is further than we knew.
        state = self._load()
        if state.outcome == "running":
            state = self._judge(state)
        if state.outcome == "promoting":
            state = self._promote(state)
        if state.outcome == "rolling back":
            state = self._roll_back(state)
        log.info("%s", tell(state))
        return state

    def stop(self, reason: str) -> CanaryState:
        """Give the candidate to nobody; one that is being promoted stays where it is.

        Raises:
            ValueError: a place cannot be read or written, or the candidate is being promoted.
        """
        state = self._load()
        if state.outcome == "promoting":
            raise ValueError(f"{state.candidate} is being made live and it is not done: {reason}")
        return self._roll_back(self._save(state.but(outcome="rolling back", reason=reason)))

    def _judge(self, state: CanaryState) -> CanaryState:
        state = state.but(generation=self._alias(CANDIDATE).generation)
        if reason := self._disturbed(state):
            return self._save(state.but(outcome="rolling back", reason=reason))
        if not state.in_file:
            state = self._show(state)
        logs = (self._places.feedback, state.experiment, state.began_at, self._config)
        state = self._save(decide(state, read_evidence(*logs), self._config, self._clock.now()))
        # At once: the next look may be far.
        return self._show(state) if state.outcome == "running" and not state.in_file else state

    def _disturbed(self, state: CanaryState) -> str:
        """What somebody did meanwhile, after which nothing can be told; empty where nothing."""
        for alias, version in zip(SIDES, (state.live, state.candidate), strict=True):
            if (found := self._alias(alias).version) != version:
                return f"'{alias}' was moved from {version} to {found}"
        if not state.in_file:
            return ""
        found = read_experiments(self._places.experiments).get(state.experiment)
        if found is None or abs(found.ramp - state.ramp) > 1e-9:
            ramp = "it is gone" if found is None else f"its ramp is {found.ramp:g}"
            return f"the experiment was changed by hand: {ramp}"
        return ""

    def _show(self, state: CanaryState) -> CanaryState:
        """Give the candidate to this step's users."""
        experiment = ExperimentConfig(
            name=state.experiment,
            salt=state.experiment,
            ramp=state.ramp,
            end=utc(state.step_began_at + self._config.max_step_s + 2 * self._config.look_s),
            variants=tuple(VariantConfig(name=side, share=0.5, alias=side) for side in SIDES),
        )
        put_experiment(self._places.experiments, experiment, without=state.instead_of)
        return self._save(state.but(in_file=True))

    def _promote(self, state: CanaryState) -> CanaryState:
        """Make the candidate live, and end the experiment once all replicas have it."""
        live = self._alias(LIVE)
        if live.version not in (state.live, state.candidate):
            reason = f"'live' was moved from {state.live} to {live.version}"
            return self._save(state.but(outcome="rolling back", reason=reason))
        if live.version != state.candidate:
            wait_s = self._config.wait_s
            live = self._registry.point(LIVE, state.candidate, self._clock.now(), wait_s)
        self._clock.sleep(min(max(0.0, live.flip_at - self._clock.now()), self._config.wait_s))
        now = self._clock.now()
        change_experiment(self._places.experiments, state.experiment, end=utc(now))
        return self._save(state.but(outcome="promoted"))

    def _roll_back(self, state: CanaryState) -> CanaryState:
        """Give the candidate to nobody."""
        change_experiment(self._places.experiments, state.experiment, ramp=0.0)
        return self._save(state.but(outcome="rolled back"))

    def _check_alone(self, seen: CanaryState | None) -> None:
        """Who gets the candidate for another reason as well would be on both sides."""
        now = utc(self._clock.now())
        for name, each in read_experiments(self._places.experiments).items():
            shows = any(variant.alias == CANDIDATE for variant in each.variants)
            is_ours = seen is not None and name == seen.experiment
            if shows and each.ramp > 0 and not is_ours and (each.end is None or now < each.end):
                raise ValueError(
                    f"{self._places.experiments}: experiment '{name}' shows the candidate too: "
                    "end it first"
                )

    def _alias(self, name: AliasName) -> Alias:
        alias = self._registry.alias(name)
        if alias is None:
            raise ValueError(f"nothing is {name} in {self._places.registry}: promote a version")
        return alias

    def _load(self) -> CanaryState:
        state = load_state(self._places.state)
        assert state is not None, "it has begun"
        return state

    def _save(self, state: CanaryState) -> CanaryState:
        return save_state(self._places.state, state)


def tell(state: CanaryState) -> str:
    """A line about a canary."""
    parts = [f"{state.candidate}: {state.outcome}, at {state.share:.0%} of the users"]
    parts += [state.reason] if state.reason else []
    for side, found in state.figures.items():
        parts.append(
            f"{side} {found['requests']:,} requests, {found['failed']:,} failed, "
            f"p99 {found['p99_ms']:.0f} ms, CTR {found['ctr']:.4f}"
        )
    return "; ".join(parts)
