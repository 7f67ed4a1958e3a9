"""Who asks: the history to answer by, the experiments they are in, and what they were shown."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Self

from recsys.config import VariantConfig
from recsys.engine.recommender import Event
from recsys.engine.shop_search import ShopAnswer
from recsys.experiments.exposures import Exposure, to_table
from recsys.schema import Answer, Explanation, Recommendation
from recsys.serving.api.requests import PersonalRequest
from recsys.serving.api.responses import RecommendResponse, SearchResponse
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
    request_id: str
    history: list[Event]
    degraded: list[str]
    variants: dict[str, VariantConfig]

    @classmethod
    async def of(
        cls, service: RecommenderService, request: PersonalRequest, request_id: str
    ) -> Self:
        """With the history that was sent or is remembered."""
        with service.metrics.stage("history"):
            history, degraded = await service.memory.history_of(request.user_id, request.events)
        variants = service.experiments.variants_of(request.user_id)
        return cls(service, request.user_id, request_id, history, degraded, variants)

    def response(
        self,
        route: str,
        answer: Answer,
        model: ServedModel,
        why: list[Explanation] | None = None,
    ) -> RecommendResponse:
        """The answer as it travels; it is counted and, for a user, logged as shown."""
        shown = [(item.item_id, item.score) for item in answer.items]
        degraded = [*self.degraded, *self._log_exposure(shown, model)]
        self.service.metrics.answered(route, answer, model.recommender.num_items, degraded)
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
        shown = [(item.item_id, item.score) for item in answer.found.items]
        degraded = [*self.degraded, *self._log_exposure(shown, model)]
        found = [Recommendation(*one) for one in shown]
        counted = Answer(found, answer.found.source)
        self.service.metrics.answered("search", counted, model.recommender.num_items, degraded)
        return SearchResponse.of(
            answer,
            degraded=degraded,
            variants={name: variant.name for name, variant in self.variants.items()},
            model_version=model.version,
            request_id=self.request_id,
        )

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
