"""Who asks: the history to answer by, the experiments they are in, and what they were shown."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import State

from recsys.config import VariantConfig
from recsys.engine.recommender import MODEL, Event
from recsys.engine.shop_search import ShopAnswer
from recsys.experiments.exposures import Exposure, to_table
from recsys.registry import LIVE
from recsys.schema import Answer, Explanation, Recommendation
from recsys.serving.api.requests import PersonalRequest
from recsys.serving.api.responses import RecommendResponse, SearchResponse
from recsys.serving.measured import Asked
from recsys.serving.queries import events_of
from recsys.serving.served_model import ServedModel
from recsys.serving.service import RecommenderService
from recsys.store.feedback import FeedbackRefused

NOT_LOGGED = "exposures: the log takes no more at the moment"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asking:
    """A request by a user, or by nobody in particular."""

    service: RecommenderService
    user_id: str | None
    state: State
    """The request's: its id, and for its log line which model answered."""
    history: list[Event]
    degraded: list[str]
    variants: dict[str, VariantConfig]

    @classmethod
    async def of(cls, service: RecommenderService, request: PersonalRequest, state: State) -> Self:
        """With the history that was sent or is remembered."""
        with service.stage("history"):
            sent = events_of(request)
            history, degraded = await service.memory.history_of(request.user_id, sent)
        variants = service.experiments.variants_of(request.user_id)
        names = {name: variant.name for name, variant in variants.items()}
        asked = Asked(request.user_id, names, service.model_for(variants).release)
        state.asked = [*getattr(state, "asked", []), asked]
        return cls(service, request.user_id, state, history, degraded, variants)

    @property
    def request_id(self) -> str:
        """By which events name the answer."""
        return self.state.request_id

    def response(
        self,
        route: str,
        answer: Answer,
        model: ServedModel,
        why: list[Explanation] | None = None,
    ) -> RecommendResponse:
        """The answer as it travels; it is counted and, for a user, logged as shown."""
        degraded = self._told(route, answer, model)
        return RecommendResponse.of(
            answer,
            model.version,
            why,
            degraded=degraded,
            variants={name: variant.name for name, variant in self.variants.items()},
            request_id=self.request_id,
        )

    def search_response(self, answer: ShopAnswer, model: ServedModel) -> SearchResponse:
        """What was found as it travels; counted and logged likewise."""
        found = [Recommendation(item.item_id, item.score) for item in answer.found.items]
        counted = Answer(found, answer.found.source, answer.found.unknown_items)
        degraded = self._told("search", counted, model)
        return SearchResponse.of(
            answer,
            degraded=degraded,
            variants={name: variant.name for name, variant in self.variants.items()},
            model_version=model.version,
            request_id=self.request_id,
        )

    def _told(self, route: str, answer: Answer, model: ServedModel) -> list[str]:
        """Count and log an answer; what it was made without."""
        self.state.model_version = model.version
        self.state.release, self.state.num_items = model.release, len(answer.items)
        shown = [(item.item_id, item.score) for item in answer.items]
        degraded = [*self.degraded, *self._log_exposure(shown, model)]
        self.service.metrics.answered(route, answer, model, degraded)
        if route == "recommend" and answer.source == MODEL and answer.items:
            is_live = model.version == self.service.models.of(LIVE).version
            alias = LIVE if is_live else "candidate"
            self.service.metrics.scored(alias, model.version, answer.items[0].score)
        return degraded

    def _log_exposure(self, answered: list[tuple[str, float]], model: ServedModel) -> list[str]:
        """What was shown to a user, once for each experiment; what could not be logged."""
        feedback = self.service.memory.feedback
        if feedback is None or self.user_id is None or not answered:
            return []
        names = {name: variant.name for name, variant in self.variants.items()} or {None: None}
        shown = [
            Exposure(
                request_id=self.request_id,
                user_id=self.user_id,
                experiment=experiment,
                variant=variant,
                timestamp=int(time.time()),
                model_version=model.version,
                item_ids=[item_id for item_id, _ in answered],
                positions=list(range(1, len(answered) + 1)),
                scores=[score for _, score in answered],
            )
            for experiment, variant in names.items()
        ]
        try:
            feedback.append_exposures(to_table(shown))
        except FeedbackRefused as error:
            log.error("an exposure is not logged: %s", error)
            return [NOT_LOGGED]
        return []
