"""A shop in which time passes when the canary sleeps: users ask, and replicas log what they got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import CanaryConfig, ExperimentConfig
from recsys.experiments.assignment import assign
from recsys.experiments.canary.experiments_toml import read_experiments
from recsys.experiments.canary.run import Clock, Places, run_canary
from recsys.experiments.canary.state import CanaryState
from recsys.experiments.exposures import Exposure, to_table
from recsys.experiments.requests import REQUESTS
from recsys.registry import Registry
from recsys.store.feedback import EVENTS
from tests.test_registry import register

NOON = 1_750_032_000
OTHERS = """# what the others try
[[experiments]]
name = "variety"  # ours
salt = "one"
ramp = 0.5
variants = [{name = "control", share = 0.5}, {name = "varied", share = 0.5, max_per_category = 1}]
"""
CONFIG = CanaryConfig(
    hold_s=1_800,
    min_requests=300,
    min_clicks=20,
    max_step_s=14_400,
    look_s=600,
    wait_s=30,
    expected_loss=0.5,
)
ITEMS = ("a", "b", "c", "d")


@dataclass
class Model:
    """How a model answers: share of requests that fail, CTR, and median time."""

    failing: float = 0.0
    ctr: float = 0.1
    ms: float = 20.0


@dataclass
class Shop:
    """Users, of whom each asks now and then, and the service they ask."""

    folder: Path
    users: int = 4_000
    asks: float = 0.5
    """Requests of a user in ten minutes."""
    live: Model = field(default_factory=Model)
    candidate: Model = field(default_factory=Model)
    lacking: float = 0.0
    """Share of the replicas that lack the candidate."""
    before_sleep: Callable[[Shop], None] = lambda shop: None

    def __post_init__(self) -> None:
        self.now, self.rng = float(NOON), np.random.default_rng(0)
        self.places = Places(
            str(self.folder / "registry"), str(self.folder / "log"), str(self.folder / "x.toml")
        )
        self.registry = Registry(self.places.registry)
        Path(self.places.experiments).write_text(OTHERS)
        for epochs, alias in ((1, "live"), (2, "candidate")):
            version = register(self.registry, self.folder, epochs, self.now)
            self.registry.point(alias, version.name, self.now)
        self.versions = [self.version("live"), self.version("candidate")]
        self.ramps: list[float] = []

    def version(self, alias: str) -> str:
        found = self.registry.alias(alias)
        assert found is not None
        return found.version

    def experiment(self) -> ExperimentConfig | None:
        """The canary's, as the file has it."""
        found = read_experiments(self.places.experiments)
        return next((each for name, each in found.items() if name.startswith("canary-")), None)

    def run(self, config: CanaryConfig = CONFIG) -> CanaryState:
        return run_canary(self.places, config, Clock(lambda: self.now, self.sleep))

    def sleep(self, seconds: float) -> None:
        self.before_sleep(self)
        running = self.experiment()
        if running is not None:
            self.ramps += [running.ramp] if self.ramps[-1:] != [running.ramp] else []
            self.serve(running, seconds)
        self.now += seconds

    def serve(self, experiment: ExperimentConfig, seconds: float) -> None:
        """Log what is asked within some seconds, all at once."""
        time, rows, shown, clicks = int(self.now), [], [], []
        when = datetime.fromtimestamp(self.now, UTC)
        for number in range(self.users):
            user = f"u{number}"
            for variant in assign([experiment], user, when).values():
                for ask in range(self.rng.poisson(self.asks * seconds / 600)):
                    request_id = f"{user}-{time}-{ask}"
                    row, clicked = self.answer(variant)
                    at = {"user_id": user, "timestamp": time, "request_id": request_id}
                    who = {"experiment": experiment.name, "variant": variant}
                    rows.append(row | at | who)
                    if row["status"] == 200:
                        places = range(1, len(ITEMS) + 1)
                        more = {"model_version": "1", "item_ids": ITEMS, "positions": places}
                        shown.append(Exposure(**at, **who, **more))
                    clicks += [at | {"item_id": item, "event": "click"} for item in clicked]
        self.write("requests", pa.Table.from_pylist(rows, REQUESTS), time)
        self.write("exposures", to_table(shown), time)
        self.write("interactions", pa.Table.from_pylist(clicks, EVENTS), time)

    def answer(self, variant: str) -> tuple[dict, list[str]]:
        """A row of the log of requests, and the items that are clicked on."""
        is_live = variant == "live" or self.rng.random() < self.lacking
        model = self.live if is_live else self.candidate
        ms = float(model.ms * self.rng.lognormal(0, 0.5))
        row = {"release": self.versions[not is_live], "route": "/v1/recommend", "ms": ms}
        if self.rng.random() < model.failing:
            return row | {"status": 500, "num_items": None}, []
        clicked = [item for item in ITEMS if self.rng.random() < model.ctr]
        return row | {"status": 200, "num_items": len(ITEMS)}, clicked

    def write(self, name: str, table: pa.Table, time: int) -> None:
        day = datetime.fromtimestamp(time, UTC).date().isoformat()
        path = self.folder / "log" / name / f"date={day}" / f"part-{time}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(table):
            pq.write_table(table, path)
