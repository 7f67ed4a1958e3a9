"""A shop whose taste moves: a model refreshed every day, one left as it was, one trained anew.

    python -m benchmarks.drifting_world --output outputs/drifting_world [--days 30]

Each day's events come through the feedback log and the stages of `ray_jobs.refresh`; what passes
the gate is live the next day. All three models rank the rows of the newest day. At the end bots
flood a day, and the gate must stop what learns from it. Peer: the model that is trained anew each
day. The ratio is that of mean NDCG@10, refreshed to trained anew.
"""

# pyarrow.compute makes its functions when it is imported, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro

from ray_jobs.command import on_ray
from ray_jobs.refresh_command import Arguments as Loop
from recsys.config import GateConfig, RefreshConfig, StorageConfig, WorldConfig

CONFIG = """
[prepare]
max_history = 30
max_item_tokens = 64
split = {{strategy = "time", valid_days = 1.0, test_days = 1.0}}
[model]
item_features = "{item_features}"
[training]
epochs = {epochs}
global_batch_size = 64
[search]
enabled = false
"""
METRIC = "ndcg@10"
NUM_PUSHED, PUSHES = 10, 2
"""Items that bots push, and how many of them they take after each event of a real user."""
DAY_SECONDS = 86_400
ARMS = ("frozen", "refreshed", "trained anew")


@dataclass(frozen=True)
class Arguments:
    """Size of the world and of the trainings."""

    output: str
    """Directory of all artifacts, `result.json` and `result.html`; emptied first."""
    days: int = 6
    """Days of the loop."""
    first_days: int = 30
    """Days before, from which the first model learns."""
    num_users: int = 1_500
    """Users."""
    num_items: int = 500
    """Items."""
    drift: float = 0.1
    """How much of what makes an item popular is new each day."""
    epochs: int = 6
    """Passes of a training from nothing."""
    refresh_epochs: int = 1
    """Passes of a refresh."""
    item_features: str = "text"
    """What the models know of items; a warm start carries nothing over that is known by ID."""
    seed: int = 0
    """Seed of the world."""


class Shop:
    """The world's tables as they are on disk, and the log that grows."""

    def __init__(self, arguments: Arguments, place: Path) -> None:
        from recsys.data.synthetic import generate

        self._arguments, self._place = arguments, place
        num_days = arguments.first_days + arguments.days
        world = generate(
            WorldConfig(
                num_users=arguments.num_users,
                num_items=arguments.num_items,
                num_days=num_days,
                num_queries=0,
                drift=arguments.drift,
                seed=arguments.seed,
            )
        )
        self._interactions = world.interactions.drop_columns(["order"])
        (place / "data" / "items").mkdir(parents=True)
        pq.write_table(world.items, place / "data" / "items" / "1.parquet")
        write(self._events(0, arguments.first_days), place / "data/interactions/1.parquet")

    def _events(self, first: int, last: int) -> pa.Table:
        from recsys.data.synthetic import DAY, START

        times = self._interactions["timestamp"]
        inside = pc.and_(
            pc.greater_equal(times, START + first * DAY), pc.less(times, START + last * DAY)
        )
        return self._interactions.filter(inside)

    def log_day(self, day: int) -> None:
        """Put a day's events into the feedback log; day 0 is the first of the loop."""
        number = self._arguments.first_days + day
        rows = self._events(number, number + 1)
        write(rows, self._place / f"log/interactions/date={number:03}/part-{day}.parquet")

    def poison(self, day: int) -> None:
        """Let bots flood a day that was taken in.

        Each does on that day what a real user did in all, and after each event takes some of the
        items that are to be pushed: so a model learns to recommend these to whom it knows.
        """
        number = self._arguments.first_days + day
        folder = self._place / f"data/interactions/feedback/date={number:03}"
        (path,) = folder.glob("*.parquet")
        real, copied = pq.read_table(path), self._interactions
        rng = np.random.default_rng(self._arguments.seed)
        items = pc.unique(copied["item_id"])
        pushed = rng.choice(len(items), NUM_PUSHED, replace=False)
        each = np.repeat(np.arange(len(copied)), 1 + PUSHES)
        taken = copied["item_id"].to_numpy(zero_copy_only=False)[each]
        is_push = np.arange(len(each)) % (1 + PUSHES) > 0
        names = np.array(items.to_pylist(), dtype=object)
        taken[is_push] = names[rng.choice(pushed, size=is_push.sum())]
        users = copied["user_id"].to_numpy(zero_copy_only=False)[each]
        midnight = pc.min(real["timestamp"]).as_py() // DAY_SECONDS * DAY_SECONDS
        bots = pa.table(
            {
                "user_id": [f"bot-{user}" for user in users],
                "item_id": taken,
                # The log has a user's events together, so a day's seconds keep their order.
                "timestamp": midnight + np.arange(len(each)) % DAY_SECONDS,
                "event": ["click"] * len(each),
                "value": pa.nulls(len(each), real.schema.field("value").type),
            }
        )
        write(pa.concat_tables([real, bots.cast(real.schema)]), path)


def write(rows: pa.Table, path: Path) -> None:
    """Write a table, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


class Race:
    """The three models, day by day."""

    def __init__(self, arguments: Arguments) -> None:
        self.place = Path(arguments.output).absolute()
        self.shop = Shop(arguments, self.place)
        config = self.place / "loop.toml"
        config.write_text(
            CONFIG.format(epochs=arguments.epochs, item_features=arguments.item_features)
        )
        self.loop = Loop(
            config=config,
            data=f"{self.place}/data",
            previous=f"{self.place}/first/dataset",
            output=f"{self.place}/first",
            registry=f"{self.place}/registry",
            feedback=f"{self.place}/log",
            alias="live",
            wait_s=0.0,
            refresh=RefreshConfig(epochs=arguments.refresh_epochs, gate=GateConfig(min_rows=50)),
        )

    def begin(self) -> None:
        """Train and promote the first model, which the frozen one stays."""
        from ray_jobs import stages

        command = replace(self.loop.command, previous="", incremental=False)
        stages.prepare(command)
        self.frozen = stages.train(command), stages.index(command)
        self.promote(self.loop.output)

    def promote(self, run: str) -> None:
        """Make the model of a run live."""
        from ray_jobs import promote

        places = f"{run}/checkpoint", f"{run}/index"
        promote.run(promote.Arguments(self.loop.registry, *places, "live", 0.0))

    def day(self, number: int) -> dict[str, Any]:
        """A day of the loop: seconds, scores of all three, and the gate's verdict."""
        from ray_jobs.refresh_stages import refresh
        from recsys.artifact import open_artifact

        self.shop.log_day(number)
        self.loop = replace(self.loop, output=f"{self.place}/day_{number}")
        verdict, seconds = timed(lambda: refresh(self.loop, self.loop.command))
        told = verdict.read_json("gate.json")
        if told["passed"]:
            self.promote(self.loop.output)
        dataset = open_artifact(f"{self.loop.output}/dataset", "dataset")
        anew, seconds_anew = timed(lambda: self._train_anew(dataset))
        self.loop = replace(self.loop, previous=dataset.uri)
        scores = {**self._scores(dataset, anew), **self._judged_scores(told)}
        return {
            "day": number,
            "rows": told["judged"][0]["rows"] if told["judged"] else 0,
            METRIC: scores,
            "seconds": {"refreshed": seconds, "trained anew": seconds_anew},
            "reasons": told["reasons"],
        }

    def _train_anew(self, dataset: Any) -> tuple[Any, Any]:
        from recsys.config import SearchConfig
        from recsys.index.build import build_index
        from recsys.training.trainer import train

        job = self.loop.command.job
        place = f"{self.loop.output}/anew"
        checkpoint = train(job.model, job.training, dataset, f"{place}/checkpoint")
        search = SearchConfig(enabled=False)
        return checkpoint, build_index(job.index, dataset, checkpoint, f"{place}/index", search)

    def _scores(self, dataset: Any, anew: tuple[Any, Any]) -> dict[str, float]:
        from recsys.eval.paired import score_pair

        config = self.loop.command.job.evaluation
        found = score_pair(dataset, self.frozen, anew, config).of("all")[:, :, 1].mean(axis=0)
        return {"frozen": float(found[0]), "trained anew": float(found[1])}

    def _judged_scores(self, told: dict[str, Any]) -> dict[str, float]:
        """Of the candidate, and of what is live after the gate: a stopped one is not."""
        if not told["judged"]:
            return dict.fromkeys(("candidate", "refreshed"), float("nan"))
        overall = told["judged"][0]
        live = overall["candidate" if told["passed"] else "live"]
        return {"candidate": overall["candidate"], "refreshed": live}

    def poisoned_day(self, number: int) -> dict[str, Any]:
        """Bots flood the newest day that a candidate learns from; the verdict of the gate."""
        from ray_jobs.refresh_stages import refresh

        self.shop.log_day(number)
        self.shop.poison(number - 2)
        poisoned = replace(self.loop, output=f"{self.place}/poisoned", full=True)
        told = refresh(poisoned, poisoned.command).read_json("gate.json")
        overall = told["judged"][0]
        return {
            "passed": told["passed"],
            "reasons": told["reasons"],
            METRIC: {name: overall[name] for name in ("live", "candidate")},
        }


def main(arguments: Arguments) -> None:
    """Run the loop, write `result.json` and `result.html`, and print the ratio last."""
    shutil.rmtree(arguments.output, ignore_errors=True)
    if arguments.days < 4:
        sys.exit("error: --days must be 4 or more: two clean days follow the poisoned one")
    race = Race(arguments)
    result: dict[str, Any] = {}

    def run() -> Any:
        race.begin()
        result["days"] = []
        for number in range(arguments.days - 1):
            result["days"].append(race.day(number))
            print(json.dumps(result["days"][-1]), file=sys.stderr, flush=True)
        result["poisoned"] = race.poisoned_day(arguments.days - 1)
        return race.frozen[0]

    on_ray(StorageConfig(), run)
    (race.place / "result.json").write_text(json.dumps(result, indent=2))
    (race.place / "result.html").write_text(draw(result["days"]))
    means = {arm: float(np.mean([day[METRIC][arm] for day in result["days"]])) for arm in ARMS}
    seconds = {
        arm: float(np.mean([day["seconds"][arm] for day in result["days"]])) for arm in ARMS[1:]
    }
    detail = {METRIC: means, "seconds_a_day": seconds, "poisoned": result["poisoned"]}
    told = {
        "benchmark": "drifting_world",
        "peer": "a model trained anew each day",
        "ratio": round(means["refreshed"] / means["trained anew"], 3),
        "target": 1.0,
        "higher_is_better": True,
        "detail": detail,
    }
    print(json.dumps(told))


def draw(days: list[dict[str, Any]]) -> str:
    """The page: NDCG@10 and seconds by day."""
    from recsys.page import figure, legend, page, section

    parts = []
    for title, arms in {METRIC: ARMS, "seconds": ARMS[1:]}.items():
        colours = {arm: ARMS.index(arm) for arm in arms}
        parts.append(figure(plot(title, days, colours), f"{title} by day", legend(colours)))
    return page("A drifting world", section("Day by day", "".join(parts)))


def plot(title: str, days: list[dict[str, Any]], colours: dict[str, int]) -> str:
    """One value of the arms over the days."""
    from recsys.plots import drawn_colour, new_figure, plot_style, to_svg

    with plot_style():
        picture, axes = new_figure(4.4, 2.6)
        for arm, number in colours.items():
            values = [day[title][arm] for day in days]
            axes.plot([day["day"] for day in days], values, "o-", color=drawn_colour(number))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("day")
        return to_svg(picture, title, f"{title} by day, one line per model")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
