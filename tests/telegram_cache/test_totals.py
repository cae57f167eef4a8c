"""The cache's totals for those who ask often."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from apps.core.redis import redis_client
from apps.telegram_cache.documents import AssetState
from apps.telegram_cache.selectors import cache_totals
from apps.telegram_cache.services import totals, touch_asset
from apps.telegram_cache.services.totals import recent_totals
from tests.waiting import Clock, wait_until

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(totals, "time", clock)
    return clock


@pytest.fixture
def counted(monkeypatch) -> list[object]:
    counts: list[object] = []

    def count(**fields):
        counts.append(None)
        return cache_totals(**fields)

    monkeypatch.setattr(totals, "cache_totals", count)
    return counts


def test_one_answer_serves_everybody_for_half_a_minute(make_asset, clock, counted):
    used = make_asset(1000, seed=1, state=AssetState.CACHED)
    touch_asset(used.asset_id)
    first = recent_totals()
    assert first == cache_totals()
    assert first.most_used[0].asset_id == used.asset_id
    make_asset(1000, seed=2)
    clock.ahead_s = totals.FRESH_S - 1
    assert [recent_totals() for _ in range(5)] == [first] * 5
    assert len(counted) == 1
    clock.ahead_s = totals.FRESH_S + 1
    assert (recent_totals().count, len(counted)) == (2, 2)


def test_while_one_counts_anew_the_others_get_the_answer_before(make_asset, clock, monkeypatch):
    make_asset(1000)
    before = recent_totals()
    clock.ahead_s = totals.FRESH_S + 1
    counting, go_on = threading.Event(), threading.Event()

    def count(**_fields):
        counting.set()
        assert go_on.wait(20)
        return replace(before, orphans=7)

    monkeypatch.setattr(totals, "cache_totals", count)
    one = threading.Thread(target=recent_totals)
    one.start()
    assert counting.wait(20)
    assert recent_totals() == before
    go_on.set()
    one.join()
    assert recent_totals().orphans == 7
    assert not redis_client().exists(totals.LOCK)


def test_the_very_first_answer_is_counted_once_too(make_asset, counted):
    make_asset(1000)
    redis_client().set(totals.LOCK, b"1")
    found = []
    callers = [threading.Thread(target=lambda: found.append(recent_totals())) for _ in range(8)]
    for caller in callers:
        caller.start()
    redis_client().delete(totals.LOCK)
    for caller in callers:
        caller.join()
    wait_until(lambda: len(found) == 8)
    assert (len({answer.size_bytes for answer in found}), len(counted)) == (1, 1)
