"""What the lane counts is written once, whatever a write runs into."""

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager

import pytest

from apps.analytics.recorder import EventRecorder
from apps.core.redis import redis_client
from apps.downloads.ready import Ready
from apps.downloads.services import cache_stats
from apps.downloads.services.cache_stats import TIER_COUNTS
from apps.downloads.services.media import Tier
from apps.telegram_cache.documents import Asset
from tests.downloads.library import AUDIO, CONTENT, VIDEO, put_in_telegram
from tests.waiting import wait_until
from ytserver.fast_lane import tally
from ytserver.fast_lane.tally import Tally


@contextmanager
def refusing(asset_id):
    """MongoDB itself refuses to count uses of this asset until the block ends."""
    rule = {"$or": [{"_id": {"$ne": asset_id}}, {"access_count": {"$exists": False}}, {"access_count": 0}]}
    Asset._get_db().command("collMod", Asset._get_collection().name, validator=rule)
    try:
        yield
    finally:
        Asset._get_db().command("collMod", Asset._get_collection().name, validator={})


@pytest.fixture
def assets(mongo, redis_server, hot_root):
    """Two, of which the first is the one that writes run into."""
    return [put_in_telegram(AUDIO, CONTENT).id, put_in_telegram(VIDEO, CONTENT).id]


@pytest.fixture
async def counting(monkeypatch):
    monkeypatch.setattr(tally, "PERIOD_S", 0.01)
    it = Tally(EventRecorder(None))
    yield it
    await it.aclose()


def add(counting, asset_id, *, times=1):
    ready = Ready(pieces=[], read_at=0.0, asset_id=asset_id, facts={"tier": Tier.TELEGRAM.value})
    for _ in range(times):
        counting.add(ready, "prefix", "10.0.0.1", polled=False)


async def happens(condition, what):
    await asyncio.to_thread(wait_until, condition, what=what)


def uses(asset_id):
    return Asset.objects.get(id=asset_id).access_count


def counted_answers():
    return int(redis_client().hget(TIER_COUNTS, Tier.TELEGRAM.value) or 0)


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


class TestTally:
    async def test_what_mongodb_refuses_is_tried_again_and_the_rest_is_counted_once(
        self, counting, assets, monkeypatch, caplog
    ):
        monkeypatch.setattr(tally, "MAX_TRIES", 1_000_000)
        refused, taken = assets
        with refusing(refused):
            add(counting, refused, times=3)
            add(counting, taken, times=2)
            await happens(lambda: uses(taken) == 2, "the other's count")
            add(counting, taken)
            await happens(lambda: uses(taken) == 3, "the next second's count")
            await happens(lambda: counted_answers() == 3, "the count of both by tier")
            assert uses(refused) == 0
        await happens(lambda: counting._writer is None, "the count that was refused")
        assert [uses(asset_id) for asset_id in assets] == [3, 3]
        assert counted_answers() == 6
        assert errors(caplog)

    async def test_goes_on_after_an_error_that_nobody_foresaw(self, counting, assets, monkeypatch, caplog):
        count_uses, failures = cache_stats.touch_assets, [RuntimeError("can't start new thread"), ValueError("a fault")]

        def fails_at_first(given):
            if failures:
                raise failures.pop()
            return count_uses(given)

        monkeypatch.setattr(cache_stats, "touch_assets", fails_at_first)
        add(counting, assets[0], times=2)
        await happens(lambda: uses(assets[0]) == 2, "the count")
        add(counting, assets[0])
        await happens(lambda: counting._writer is None, "the next count")
        assert (uses(assets[0]), counted_answers()) == (3, 3)
        assert errors(caplog)

    async def test_an_error_after_mongodb_has_counted_counts_nothing_twice(self, counting, assets, monkeypatch):
        def fails():
            raise RuntimeError("a fault")

        with monkeypatch.context() as patch:
            patch.setattr(cache_stats, "redis_client", fails)
            add(counting, assets[0])
            await happens(lambda: counting._writer is None, "the count")
        add(counting, assets[0])
        await happens(lambda: counting._writer is None, "the next count")
        assert (uses(assets[0]), counted_answers()) == (2, 1)

    async def test_what_is_refused_for_good_is_given_up(self, counting, assets, monkeypatch, caplog):
        monkeypatch.setattr(tally, "MAX_TRIES", 3)
        refused, taken = assets
        with refusing(refused):
            add(counting, refused, times=4)
            await happens(lambda: counting._writer is None, "the end of its tries")
        add(counting, taken)
        await happens(lambda: uses(taken) == 1, "the next count")
        assert uses(refused) == 0
        assert Counter(getattr(record, "count", None) for record in errors(caplog))[4] == 1
