"""How much of what can be known the model learns, where the truth is known: the generated shop.

    python -m benchmarks.oracle --output <dir> [--users 30000]

Peer: an oracle that knows every taste and the law that shoppers follow, and ranks by the chance of
each item to be the next event. The ratio is that of NDCG@10 on each user's last event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import tyro

from benchmarks.seeds import METRIC, run_pipeline
from recsys.config import WorldConfig
from recsys.data.synthetic import World, generate, write_world
from recsys.schema import ITEM_ID, TIMESTAMP, USER_ID

CUTOFF = 10


@dataclass(frozen=True)
class Arguments:
    """What is run."""

    output: str
    """Directory of the world and of all artifacts."""
    config: str = "ray_jobs/configs/toy.toml"
    """TOML file of the run."""
    users: int = 3_000
    """Users of the world: more of them tell more of what is liked together."""
    judged: int = 3_000
    """Users that the oracle ranks for, chosen at random."""


def main(arguments: Arguments) -> None:
    """Run the pipeline, ask the oracle, and print the ratio."""
    world = generate(WorldConfig(num_users=arguments.users))
    write_world(world, f"{arguments.output}/world")
    run = ("--config", arguments.config, "--data", f"{arguments.output}/world")
    report = run_pipeline(arguments.output, {}, *run, "--evaluation.baselines", "popularity")
    oracle = oracle_ndcg(world, arguments.judged)
    found = {name: segments["all"][METRIC] for name, segments in report["models"].items()}
    result = {
        "benchmark": "oracle",
        "peer": "an oracle that knows every taste",
        "ratio": round(found["model"] / oracle, 3),
        "target": 0.9,
        "higher_is_better": True,
        "detail": {"users": arguments.users, "oracle": oracle, **found},
    }
    print(json.dumps(result))


def oracle_ndcg(world: World, judged: int) -> float:
    """NDCG@10 of the true law on the last event of so many users."""
    ids = {item: row for row, item in enumerate(world.items[ITEM_ID].to_pylist())}
    items = np.array([ids[item] for item in world.interactions[ITEM_ID].to_pylist()])
    times = world.interactions[TIMESTAMP].to_numpy()
    users = world.interactions[USER_ID].to_numpy(zero_copy_only=False)
    # Users are numbered in the order of their ids, and events of each lie in order of time.
    names, starts = np.unique(users, return_index=True)
    chosen = np.random.default_rng(0).permutation(len(names))[:judged]
    ends = np.append(starts[1:], len(users))
    gains = [
        _gain(world, row, items[starts[row] : ends[row]], times[ends[row] - 1]) for row in chosen
    ]
    return float(np.mean(gains))


def _gain(world: World, user: int, items: np.ndarray, time: int) -> float:
    chances = world.next_item_probabilities(user, int(time), items[:-1])
    rank = 1 + int((chances > chances[items[-1]]).sum())
    return 1 / np.log2(1 + rank) if rank <= CUTOFF else 0.0


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
