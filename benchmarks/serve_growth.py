"""How answers slow down as the catalogue and the histories grow.

    python -m benchmarks.serve_growth --picture outputs/serve_growth.png

The engine alone, one thread: model, index and catalogue as a service has them, without HTTP. Random
weights and clustered random vectors stand for trained ones; the work of the exact index does not
depend on them, that of IVF does, so its recall@10 is told beside. p50 is of one request at a time,
requests/s of batches of 32, both in CPU time, which on an idle machine is the time that passes.
The peer is the smallest catalogue. Ratio: how many times as long the p50 is with the largest one,
with the exact index and histories of 50 events; the target is as many times as there are items.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys import schema
from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.engine.catalogue import Catalogue
from recsys.engine.recommender import Event, Query, Recommender
from recsys.index.item_index import ExactIndex, ItemIndex
from recsys.index.recall import Sample, build_approximate, recall_facts
from recsys.models.build import ModelShape, build_model
from recsys.models.recommender_model import RecommenderModel
from recsys.schema import History

SIZE, PER_CLUSTER, BATCH, QUERIES, TOP_K = 128, 1_000, 32, 256, 10
MIDDLE = 50
"""The length of the history that the ratio is of."""
EVENT = "view"


@dataclass(frozen=True)
class Arguments:
    """What grows, and for how long each point is measured."""

    items: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Sizes of the catalogue."""
    lengths: tuple[int, ...] = (10, 50, 200)
    """Events of a history."""
    seconds: float = 3.0
    """Seconds for each point's p50, and as many for its requests/s."""
    picture: Path = Path("outputs/serve_growth.png")
    """Where the picture is written."""


@dataclass(frozen=True)
class Point:
    """One size of everything, and how fast it is answered."""

    index: str
    items: int
    length: int
    p50_ms: float
    requests_per_second: float


def main(arguments: Arguments) -> None:
    """Measure each point, draw them, and print the result as one JSON object."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    torch.manual_seed(0)
    points: list[Point] = []
    recalls: dict[int, float] = {}
    for num_items in arguments.items:
        model = _model(max(arguments.lengths))
        exact = ExactIndex(_vectors(num_items))
        catalogue = _catalogue(num_items)
        indexes: dict[str, ItemIndex] = {"exact": exact}
        indexes["ivf"], recalls[num_items] = _ivf(model, exact)
        for name, index in indexes.items():
            engine = _engine(model, index, catalogue, max(arguments.lengths))
            points += [_point(name, engine, n, arguments.seconds) for n in arguments.lengths]
    draw(points, arguments.picture)
    print(json.dumps(_result(arguments, points, recalls)))


def _vectors(num_items: int) -> torch.Tensor:
    """(N, D) around a thousandth as many centres, of length 1."""
    centres = torch.randn(max(10, num_items // PER_CLUSTER), SIZE)
    vectors = torch.randn(num_items, SIZE).add_(centres[torch.randint(len(centres), (num_items,))])
    return F.normalize(vectors, dim=-1)


def _catalogue(num_items: int) -> Catalogue:
    items = {
        schema.ITEM_ID: [f"i{number}" for number in range(num_items)],
        "title": [f"Item {number}" for number in range(num_items)],
        schema.TRAIN_COUNT: np.arange(num_items, 0, -1),
        schema.REMOVED: np.zeros(num_items, dtype=bool),
    }
    return Catalogue(pa.table(items))


def _model(max_history: int) -> RecommenderModel:
    """The default model; items come by their vectors, so its own table of items may be small."""
    shape = ModelShape(num_items=1, max_history=max_history, num_events=1, text_size=384)
    return build_model(ModelConfig(embedding_size=SIZE), shape).eval()


def _ivf(model: RecommenderModel, exact: ExactIndex) -> tuple[ItemIndex, float]:
    """The index of the least effort that finds .95 of the first ten, as `index` builds it."""
    random = np.random.default_rng(1)
    histories = [
        History.of_items(random.integers(0, len(exact.vectors), MIDDLE)) for _ in range(QUERIES)
    ]
    batch = collate_histories(histories, MIDDLE)
    with torch.inference_mode():
        users = model.encode_users(exact.vectors_of(batch.item_indexes), batch)
    sample = Sample(users, [history.item_indexes.tolist() for history in histories], "users")
    index, _ = build_approximate(exact, "ivf", 0.95, exact, sample)
    return index, recall_facts(index, exact, sample)["recall@10"]


def _engine(
    model: RecommenderModel, index: ItemIndex, catalogue: Catalogue, max_history: int
) -> Recommender:
    return Recommender(model, index, catalogue, max_history, [EVENT], filter_seen=True)


def _point(name: str, engine: Recommender, length: int, seconds: float) -> Point:
    random = np.random.default_rng(0)
    items = random.integers(0, engine.num_items, (QUERIES, length))
    queries = [Query([Event(f"i{item}") for item in row], TOP_K) for row in items]
    p50_s = _median_seconds(lambda start: engine.recommend([queries[start % QUERIES]]), seconds)
    batch_s = _median_seconds(
        lambda start: engine.recommend([queries[(start + n) % QUERIES] for n in range(BATCH)]),
        seconds,
    )
    rate = round(BATCH / batch_s, 1)
    return Point(name, engine.num_items, length, round(1e3 * p50_s, 3), rate)


def _median_seconds(work: Callable[[int], object], seconds: float) -> float:
    """Of as many calls as fit, three at least; the first warms up."""
    work(0)
    took: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(took) < 3 or time.perf_counter() < deadline:
        started = time.process_time()
        work(len(took))
        took.append(time.process_time() - started)
    return statistics.median(took)


def draw(points: Sequence[Point], path: Path) -> None:
    """Two panels against the items, both logarithmic: milliseconds, and requests/s."""
    with rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        slow, fast = figure.subplots(1, 2)
        _panel(slow, points, "p50_ms", "p50 of one request, ms")
        _panel(fast, points, "requests_per_second", f"requests/s in batches of {BATCH}")
        slow.legend(fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _panel(axes: Axes, points: Sequence[Point], field: str, label: str) -> None:
    """A colour for each length of a history; the exact index is drawn through, IVF in dashes."""
    lengths = sorted({point.length for point in points})
    for index, style in (("exact", "-o"), ("ivf", "--s")):
        for number, length in enumerate(lengths):
            own = [p for p in points if (p.index, p.length) == (index, length)]
            items, values = [p.items for p in own], [getattr(p, field) for p in own]
            name = f"{index}, {length} events"
            axes.plot(items, values, style, color=f"C{number}", label=name)
    axes.set(xscale="log", yscale="log", xlabel="items", ylabel=label)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("{x:,.0f}")


def _result(
    arguments: Arguments, points: Sequence[Point], recalls: dict[int, float]
) -> dict[str, object]:
    length = MIDDLE if MIDDLE in arguments.lengths else arguments.lengths[0]
    line = {p.items: p.p50_ms for p in points if (p.index, p.length) == ("exact", length)}
    few, many = min(line), max(line)
    return {
        "benchmark": "serve_growth",
        "peer": f"the same engine with {few:,} items",
        "ratio": round(line[many] / line[few], 2),
        "target": round(many / few, 2),
        "higher_is_better": False,
        "detail": {
            "points": [asdict(point) for point in points],
            "ivf_recall@10": recalls,
            "picture": str(arguments.picture),
        },
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
