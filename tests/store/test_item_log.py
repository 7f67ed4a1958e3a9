"""One contract for every log of changed items."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from recsys.config import ItemLogConfig
from recsys.schema import SECONDS_A_DAY
from recsys.store.histories import StoreUnavailable
from recsys.store.item_log import MICROSECONDS, ItemChange, ItemLog, ItemRow
from recsys.store.open import open_item_log
from tests.store.conftest import Clock

ROW: ItemRow = {"title": "锤子 \u2028\x00", "price": 4.5, "stock": 3, "new": True, "brand": None}


@pytest.fixture
def item_log(url: str, clock: Clock) -> Iterator[ItemLog]:
    """An empty log."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as server:
            server.flushdb()
    log = open_item_log(ItemLogConfig(url=url, keep_days=2), now=clock)
    yield log
    log.close()


def tail(log: ItemLog, number: int = 0, count: int = 100) -> list[tuple[str, ItemRow | None]]:
    return [(change.item_id, change.row) for change in log.after(number, count)]


def test_changes_come_back_whole_in_order_and_from_any_number_on(item_log: ItemLog) -> None:
    first, second, third = (item_log.append(*c) for c in [("a", ROW), ("用户", None), ("c", {})])
    assert first < second < third
    assert item_log.after(0, 9) == [
        ItemChange(first, "a", ROW),
        ItemChange(second, "用户", None),
        ItemChange(third, "c", {}),
    ]
    assert tail(item_log, first) == [("用户", None), ("c", {})]
    assert tail(item_log, third) == []
    assert tail(item_log, 0, 1) == [("a", ROW)]


def test_the_last_change_of_an_item_stands_for_all_of_them(item_log: ItemLog) -> None:
    seen = item_log.append("a", ROW)
    item_log.append("b", ROW)
    item_log.append("a", None)
    assert tail(item_log) == [("b", ROW), ("a", None)]
    assert tail(item_log, seen) == [("b", ROW), ("a", None)]


def test_a_number_tells_the_time_and_grows_when_the_clock_does_not(
    item_log: ItemLog, clock: Clock
) -> None:
    first = item_log.append("a", ROW)
    assert first == int(clock.now * MICROSECONDS)
    clock.now -= 5
    assert item_log.append("b", ROW) == first + 1


def test_old_changes_are_neither_told_nor_kept(item_log: ItemLog, clock: Clock) -> None:
    old = item_log.append("old", ROW)
    clock.now += 2 * SECONDS_A_DAY + 1
    assert tail(item_log) == []
    assert item_log.append("new", None) > old
    assert tail(item_log) == [("new", None)]
    clock.now -= SECONDS_A_DAY
    assert tail(item_log) == [("new", None)]


def test_writers_at_once_lose_nothing(item_log: ItemLog) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda n: item_log.append(f"i{n}", {"n": n}), range(40)))
    assert len(set(numbers)) == 40
    assert sorted(tail(item_log)) == sorted((f"i{n}", {"n": n}) for n in range(40))


def test_a_file_is_one_log_for_all_who_open_it(tmp_path) -> None:
    config = ItemLogConfig(url=f"sqlite:///{tmp_path / 'items.sqlite'}")
    one, other = open_item_log(config), open_item_log(config)
    number = one.append("a", ROW)
    assert other.after(number - 1, 9) == [ItemChange(number, "a", ROW)]
    one.close()
    other.close()


def test_a_wrong_url_and_a_missing_folder_are_told(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"items\.url cannot be used"):
        open_item_log(ItemLogConfig(url="redis://:secret@host/0"))
    with pytest.raises(StoreUnavailable, match="item log .* failed"):
        open_item_log(ItemLogConfig(url=f"sqlite:///{tmp_path}/none/items.sqlite"))
