import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config import WorldConfig
from recsys.data.synthetic import DAY, EVENT_SHARES, START, World, generate, write_world

CONFIG = WorldConfig()
SMALL = WorldConfig(num_users=60, num_items=80, num_queries=40)
TABLES = ("interactions", "items", "queries")
SCHEMAS = {
    "interactions": {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "timestamp": pa.int64(),
        "event": pa.string(),
        "value": pa.float32(),
        "order": pa.int32(),
    },
    "items": {
        "item_id": pa.string(),
        "title": pa.string(),
        "description": pa.string(),
        "category": pa.string(),
        "brand": pa.string(),
        "price": pa.float32(),
    },
    "queries": {
        "query_id": pa.string(),
        "query": pa.string(),
        "item_id": pa.string(),
        "relevance": pa.float64(),
    },
}


@dataclass(frozen=True)
class Log:
    """Interactions as arrays: rows of users and items, and where each user's events are."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    order: np.ndarray
    first: np.ndarray
    last: np.ndarray


def rows(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([int(text[1:]) for text in column.to_pylist()])


def log_of(world: World) -> Log:
    table = world.interactions
    users = rows(table["user_id"])
    counts = np.bincount(users)
    last = np.cumsum(counts) - 1
    return Log(
        users,
        rows(table["item_id"]),
        table["timestamp"].to_numpy(),
        table["order"].to_numpy(),
        last - counts + 1,
        last,
    )


@pytest.fixture(scope="module")
def world() -> World:
    return generate(CONFIG)


@pytest.fixture(scope="module")
def log(world: World) -> Log:
    return log_of(world)


def is_chinese(text: str | None) -> bool:
    return text is not None and re.search("[\u4e00-\u9fff]", text) is not None


def hit_rate_of_popularity(log: Log, num_items: int) -> float:
    earlier = np.ones(len(log.items), dtype=bool)
    earlier[log.last] = False
    counts = np.bincount(log.items[earlier], minlength=num_items)
    return float(np.isin(log.items[log.last], np.argsort(-counts)[:10]).mean())


def hits_of_truth(world: World, log: Log, users: np.ndarray) -> tuple[float, float]:
    """HitRate@10 of the truth on users' last events, and the rate that the truth expects."""
    hits, expected = [], []
    for user in users:
        last = log.last[user]
        chances = world.next_item_probabilities(
            int(user), int(log.times[last]), log.items[log.first[user] : last]
        )
        top = np.argpartition(-chances, 10)[:10]
        hits.append(log.items[last] in top)
        expected.append(chances[top].sum())
    return float(np.mean(hits)), float(np.mean(expected))


def test_equal_configs_give_equal_worlds():
    first, second = generate(SMALL), generate(SMALL)
    assert all(getattr(first, name).equals(getattr(second, name)) for name in TABLES)
    assert np.array_equal(first.item_traits, second.item_traits)
    assert np.array_equal(first.tastes.end, second.tastes.end)


def test_global_random_state_changes_nothing_and_is_not_changed():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # pyright: ignore
    first = generate(SMALL)
    assert np.array_equal(before, np.random.get_state()[1])  # pyright: ignore
    np.random.seed(2)
    assert first.interactions.equals(generate(SMALL).interactions)


def test_another_seed_gives_another_world():
    first = generate(SMALL)
    second = generate(SMALL.model_copy(update={"seed": 1}))
    assert not any(getattr(first, name).equals(getattr(second, name)) for name in TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_schema(world: World, name: str):
    schema = getattr(world, name).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == SCHEMAS[name]


def test_sizes_are_honoured(world: World, log: Log):
    assert world.items.num_rows == CONFIG.num_items
    assert world.item_traits.shape[0] == CONFIG.num_items
    assert len(world.interactions["user_id"].unique()) == CONFIG.num_users
    assert len(world.queries["query_id"].unique()) == CONFIG.num_queries
    counts = np.bincount(log.users)
    assert counts.min() == 3
    assert counts.mean() == pytest.approx(CONFIG.mean_events, rel=0.05)
    assert counts.max() > 8 * counts.mean()  # the long tail
    assert world.catalogue.cold.sum() == round(CONFIG.cold_share * CONFIG.num_items)


def test_sorted_by_user_then_order(world: World, log: Log):
    ids = np.array(world.interactions["user_id"].to_pylist())
    assert (ids[1:] >= ids[:-1]).all()
    counts = np.bincount(log.users)
    assert np.array_equal(log.order, np.concatenate([np.arange(count) for count in counts]))
    same_user = log.users[1:] == log.users[:-1]
    assert (np.diff(log.times)[same_user] >= 0).all()


def test_times_span_the_days(log: Log):
    assert log.times.min() >= START
    assert log.times.max() < START + CONFIG.num_days * DAY
    assert len(np.unique((log.times - START) // DAY)) == CONFIG.num_days


def test_every_item_of_interactions_and_queries_exists(world: World):
    known = set(world.items["item_id"].to_pylist())
    assert len(known) == CONFIG.num_items
    assert known.issuperset(world.interactions["item_id"].to_pylist())
    assert known.issuperset(world.queries["item_id"].to_pylist())


def test_cold_items_come_only_at_the_end(world: World, log: Log):
    cold = world.catalogue.cold[log.items]
    assert cold.sum() > 100
    assert log.times[cold].min() >= START + 0.9 * CONFIG.num_days * DAY
    before = world.next_item_probabilities(0, world.cold_from - 1, [])
    after = world.next_item_probabilities(0, world.cold_from, [])
    assert not before[world.catalogue.cold].any()
    assert after[world.catalogue.cold].all()


def test_popularity_is_like_zipf(log: Log):
    counts = np.sort(np.bincount(log.items, minlength=CONFIG.num_items))[::-1]
    assert 0.35 <= counts[: CONFIG.num_items // 10].sum() / counts.sum() <= 0.60


def test_events_have_their_shares_and_only_purchases_a_value(world: World, log: Log):
    events = np.array(world.interactions["event"].to_pylist())
    for name, share in EVENT_SHARES.items():
        assert (events == name).mean() == pytest.approx(share, abs=0.005)
    bought = events == "purchase"
    value = world.interactions["value"]
    assert np.array_equal(value.is_valid().to_numpy(), bought)
    prices = world.items["price"].to_numpy()[log.items[bought]]
    assert np.array_equal(value.drop_null().to_numpy(), prices)


def test_chinese_items_are_wholly_chinese(world: World):
    items = world.items.to_pylist()
    chinese = [item for item in items if is_chinese(item["title"])]
    assert len(chinese) == round(CONFIG.chinese_share * CONFIG.num_items)
    for item in chinese:
        texts = [item[name] for name in ("title", "description", "category", "brand")]
        assert not re.search("[A-Za-z]", "".join(text for text in texts if text))
    others = [item for item in items if not is_chinese(item["title"])]
    assert not any(is_chinese(item["description"]) for item in others)


def test_some_descriptions_and_brands_are_missing(world: World):
    for name in ("description", "brand"):
        assert 0.04 < world.items[name].null_count / CONFIG.num_items < 0.15
    assert world.items["title"].null_count == world.items["category"].null_count == 0


def test_text_carries_the_traits(world: World):
    """Items with more traits in common share more words."""
    items = world.items.filter(world.items["description"].is_valid())
    known = rows(items["item_id"])[:200]
    texts = [set(text.lower().split()) for text in items["description"].to_pylist()[:200]]
    common = world.item_traits[known] @ world.item_traits[known].T
    words = np.array([[len(one & other) for other in texts] for one in texts])
    pairs = np.triu_indices(len(texts), k=1)
    assert words[pairs][common[pairs] >= 3].mean() > words[pairs][common[pairs] == 0].mean() + 1


def test_taste_drifts_in_a_line(world: World):
    users = np.arange(CONFIG.num_users)
    start, middle, end = (
        world.tastes.at(users, np.full(len(users), START + day * DAY)) for day in (0, 60, 120)
    )
    correlation = np.corrcoef(start.ravel(), end.ravel())[0, 1]
    assert 0.3 < correlation < 0.9
    assert np.allclose(middle, (start + end) / 2, atol=1e-5)
    early, late = (np.argmax(world.affinity(7, START + day * DAY)) for day in (0, 120))
    assert early != late


def test_sessions_stay_in_a_type_or_category(world: World, log: Log):
    together = (log.users[1:] == log.users[:-1]) & (np.diff(log.times) < 600)
    types = world.catalogue.types[log.items]
    categories = world.catalogue.traits[log.items, 0]
    assert (types[1:] == types[:-1])[together].mean() > 0.55
    assert (categories[1:] == categories[:-1])[together].mean() > 0.8
    assert (types[1:] == types[:-1])[~together].mean() < 0.2
    # Of those who turn to another type, most turn to the same one: order matters.
    turns = together & (types[1:] != types[:-1])
    counts = np.zeros((48, 48))
    np.add.at(counts, (types[:-1][turns], types[1:][turns]), 1)
    assert counts.max(axis=1).sum() / counts.sum() > 0.5


def test_truth_beats_popularity(world: World, log: Log):
    hits, expected = hits_of_truth(world, log, np.arange(1000))
    assert hits >= 4 * hit_rate_of_popularity(log, CONFIG.num_items)
    # What was drawn follows the law that the truth states.
    assert hits == pytest.approx(expected, abs=0.07)


def test_taste_matters_beside_the_session(world: World, log: Log):
    shuffled = np.random.default_rng(0).permutation(CONFIG.num_users)
    stranger = World(
        **{name: getattr(world, name) for name in World.__slots__ if name != "tastes"},
        tastes=type(world.tastes)(
            world.tastes.start[shuffled], world.tastes.end[shuffled], CONFIG.num_days
        ),
    )
    users = np.arange(500)
    own, _ = hits_of_truth(world, log, users)
    other, _ = hits_of_truth(stranger, log, users)
    assert own > 1.3 * other


def test_next_item_probabilities_are_chances(world: World):
    chances = world.next_item_probabilities(3, START + 50 * DAY, [1, 2, 3])
    assert chances.shape == (CONFIG.num_items,)
    assert chances.min() >= 0
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    assert chances[[1, 2, 3]].max() < 1e-4  # just seen


def test_queries_fit_their_items(world: World):
    queries = world.queries.to_pylist()
    items = {item["item_id"]: item for item in world.items.to_pylist()}
    assert {0.5, 1.0} <= {query["relevance"] for query in queries} <= {0.5, 2 / 3, 0.75, 1.0}
    per_query = np.unique([query["query_id"] for query in queries], return_counts=True)[1]
    assert per_query.max() == 6
    chinese = [is_chinese(query["query"]) for query in queries]
    assert 0.03 < np.mean(chinese) < 0.2
    for query, in_chinese in zip(queries, chinese, strict=True):
        item = items[query["item_id"]]
        assert in_chinese == is_chinese(item["title"])
        limit = re.search(r"under (\d+)|(\d+)元以下", query["query"])
        if limit and query["relevance"] == 1.0:
            assert item["price"] <= int(limit[1] or limit[2])


def test_write_world(tmp_path):
    world = generate(SMALL)
    write_world(world, tmp_path / "raw")
    for name in TABLES:
        path = tmp_path / "raw" / f"{name}.parquet"
        assert pq.read_table(path).equals(getattr(world, name))
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_users": 5, "num_items": 20, "num_queries": 3},
        {"num_users": 1, "num_items": 1, "num_days": 1, "mean_events": 4.0, "num_queries": 0},
        {"num_users": 5, "num_items": 49, "cold_share": 1.0, "chinese_share": 1.0},
        {"num_users": 5, "num_items": 20, "cold_share": 0.0, "chinese_share": 0.0},
    ],
)
def test_tiny_and_extreme_worlds(sizes: dict):
    config = WorldConfig(**sizes)
    world = generate(config)
    log = log_of(world)
    assert world.items.num_rows == config.num_items
    assert len(log.last) == config.num_users
    assert log.items.max() < config.num_items
    assert len(world.queries["query_id"].unique()) == config.num_queries
    assert (log.times[world.catalogue.cold[log.items]] >= world.cold_from).all()
    assert (
        dict(zip(world.queries.schema.names, world.queries.schema.types, strict=True))
        == (SCHEMAS["queries"])
    )
