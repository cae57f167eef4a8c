"""The cache's totals for those who ask often."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from pymongo.errors import PyMongoError

from apps.core.redis import redis_client
from apps.telegram_cache.documents import Asset, AssetState
from apps.telegram_cache.selectors import cache_totals, orphans_pipeline, states_pipeline
from apps.telegram_cache.services import totals, touch_asset
from apps.telegram_cache.services.totals import recent_totals
from tests.scans import stages_of
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


def test_one_answer_serves_everybody_for_a_while(make_asset, clock, counted):
    used = make_asset(1000, seed=1, state=AssetState.CACHED)
    touch_asset(used.asset_id)
    first = recent_totals()
    assert first == cache_totals()
    assert first.most_used[0].asset_id == used.asset_id
    make_asset(1000, seed=2)
    clock.ahead_s = totals.RENEW_S - 1
    assert [recent_totals() for _ in range(5)] == [first] * 5
    assert len(counted) == 1
    clock.ahead_s = totals.FRESH_S + 1
    assert (recent_totals().count, len(counted)) == (2, 2)


def test_while_people_keep_asking_it_is_counted_behind_them(make_asset, clock, counted):
    make_asset(1000)
    before = recent_totals()
    make_asset(1000, seed=2)
    clock.ahead_s = totals.RENEW_S + 1
    redis_client().set(totals.LOCK, b"1")  # somebody of another process counts
    assert [recent_totals() for _ in range(3)] == [before] * 3
    wait_until(lambda: totals._renewing.acquire(blocking=False))
    totals._renewing.release()
    assert len(counted) == 1
    redis_client().delete(totals.LOCK)
    assert recent_totals() == before
    wait_until(lambda: recent_totals().count == 2)
    assert len(counted) == 2
    wait_until(lambda: not redis_client().exists(totals.LOCK))


def test_what_takes_long_to_count_is_counted_less_often(make_asset, clock, monkeypatch):
    counts = []

    def count(**fields):
        counts.append(None)
        clock.ahead_s += 2.0
        return cache_totals(**fields)

    monkeypatch.setattr(totals, "cache_totals", count)
    make_asset(1000)
    recent_totals()
    made_s = clock.ahead_s
    clock.ahead_s = made_s + 2.0 * totals.RENEW_SHARE - 5
    assert (recent_totals().count, len(counts)) == (1, 1)
    make_asset(1000, seed=2)
    clock.ahead_s = made_s + 2.0 * totals.RENEW_SHARE + 5
    assert recent_totals().count == 1
    wait_until(lambda: recent_totals().count == 2)


def test_what_cannot_be_counted_behind_people_is_tried_again(make_asset, clock, monkeypatch):
    make_asset(1000)
    before, failures = recent_totals(), [PyMongoError("away")]

    def count(**_fields):
        if failures:
            raise failures.pop()
        return replace(before, orphans=7)

    monkeypatch.setattr(totals, "cache_totals", count)
    clock.ahead_s = totals.RENEW_S + 1
    assert recent_totals() == before
    wait_until(lambda: recent_totals().orphans == 7)
    assert failures == []


def test_most_assets_are_counted_by_a_key_of_an_index(make_asset):
    for seed in range(5):
        make_asset(1000, seed=seed, state=AssetState.CACHED)
    seen = {}
    for question in (states_pipeline, orphans_pipeline):
        command = {"aggregate": "content_cache", "pipeline": question(), "cursor": {}}
        plan = Asset._get_db().command("explain", command, verbosity="executionStats")
        seen[question] = stages_of(plan)
        assert "COLLSCAN" not in seen[question], plan
        assert "IXSCAN" in seen[question], plan
    assert "FETCH" not in seen[states_pipeline]


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
