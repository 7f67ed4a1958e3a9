"""The models that a replica serves: one, or those that the aliases of a registry stand for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from recsys.artifact import open_artifact
from recsys.config import ServeArgs
from recsys.registry import ALIASES, LIVE, AliasName, Registry, Version
from recsys.serving.release import Follower, Refusal, check_golden, check_searches
from recsys.serving.served_model import ServedModel

Renew = Callable[[ServedModel], ServedModel]


def _as_it_is(model: ServedModel) -> ServedModel:
    return model


class Models:
    """Served models by alias; without a registry there is the one called live.

    What is loaded later is put through `renew` first, which brings its items up to date.
    """

    def __init__(
        self,
        served: dict[str, ServedModel],
        followers: list[Follower] | None = None,
        renew: Renew = _as_it_is,
    ) -> None:
        self._served = served
        self._followers = followers or []
        self._renew = renew
        self._lock = threading.Lock()

    @classmethod
    def load(cls, args: ServeArgs, renew: Renew = _as_it_is) -> Self:
        """Load what is to be served, and follow the registry if there is one.

        Raises:
            ValueError: an artifact is damaged or does not fit, or nothing is live.
        """
        if not args.registry:
            checkpoint = open_artifact(args.checkpoint, "checkpoint")
            index = open_artifact(args.index, "index")
            ranker = open_artifact(args.ranker, "ranker") if args.ranker else None
            return cls({LIVE: ServedModel.load(checkpoint, index, args, ranker)})
        registry = Registry(args.registry)
        if registry.alias(LIVE) is None:
            raise ValueError(
                f"nothing is live in {args.registry}: python -m ray_jobs.promote --registry ..."
            )
        models = cls({}, [], renew)
        for alias in ALIASES:
            models._follow(registry, alias, args)
        return models

    def _follow(self, registry: Registry, alias: AliasName, args: ServeArgs) -> None:
        load, flip = _loader(registry, args, self._renew), self._flipper(alias)
        follower = Follower(registry, alias, load, flip, args.registry_poll_s)
        self._followers.append(follower)
        seen = registry.alias(alias)
        if seen is not None:
            # A new replica has nothing older to answer with, so it does not wait for `flip_at`.
            flip(load(registry.version(seen.version)))
        follower.start(seen)

    def _flipper(self, alias: str) -> Callable[[ServedModel], None]:
        def flip(model: ServedModel) -> None:
            # Once more, for what came since it was loaded.
            renewed = self._renew(model)
            with self._lock:
                self._served = {**self._served, alias: renewed}

        return flip

    def distinct(self) -> list[ServedModel]:
        """Every model that is served, once."""
        return list({id(model): model for model in self._served.values()}.values())

    def replace(self, before: ServedModel, after: ServedModel) -> None:
        """Serve one in place of another; where that is served no more, nothing changes."""
        with self._lock:
            self._served = {a: after if m is before else m for a, m in self._served.items()}

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that may be asked for."""
        return ALIASES if self._followers else (LIVE,)

    def known(self, alias: str) -> str:
        """The alias itself, or live where it stands for nothing."""
        return alias if alias in self._served else LIVE

    def of(self, alias: str) -> ServedModel:
        """The model that answers for an alias at this moment."""
        return self._served[self.known(alias)]

    @property
    def refused(self) -> list[Refusal]:
        """Versions that were not taken, and why."""
        return [f.refused for f in self._followers if f.refused is not None]

    def close(self) -> None:
        """Stop following."""
        for follower in self._followers:
            follower.stop()


def _loader(registry: Registry, args: ServeArgs, renew: Renew) -> Callable[[Version], ServedModel]:
    def load(version: Version) -> ServedModel:
        checkpoint, index = registry.open(version)
        model = ServedModel.load(checkpoint, index, args, registry.open_ranker(version))
        check_golden(model.recommender, version.golden)
        if model.search is not None:
            check_searches(model.search, version.searches, version.registered_at)
        return renew(model)

    return load
