from __future__ import annotations

import asyncio

import pytest

from apps.core.errors import QuotaExceeded, RateLimited
from apps.core.redis import redis_client
from apps.keys import charging, limits, redis_loss
from apps.keys.charging import MAX_BATCH, Charger
from apps.keys.limits import charge
from apps.keys.local_limits import LocalLimiter
from tests.keys.test_limits import make_grant


@pytest.fixture(autouse=True)
def _redis(redis_server, monkeypatch):
    health = redis_loss.RedisHealth()
    monkeypatch.setattr(limits, "health", health)
    monkeypatch.setattr(charging, "health", health)
    monkeypatch.setattr(limits, "local_counts", LocalLimiter())


@pytest.fixture
async def charger(_redis):
    charger = Charger()
    yield charger
    await charger.aclose()


async def charge_many(charger: Charger, grants) -> list:
    return await asyncio.gather(*(charger.charge(grant) for grant in grants), return_exceptions=True)


class TestCharger:
    async def test_says_what_charge_says_and_counts_in_the_same_windows(self, charger):
        grant = make_grant(limit=3)
        first = await charger.charge(grant)
        second = charge(grant)
        assert (first.limit, first.remaining, second.remaining) == (3, 2, 1)
        assert (await charger.charge(grant)).remaining == 0
        with pytest.raises(RateLimited) as refused:
            await charger.charge(grant)
        assert refused.value.headers["RateLimit-Remaining"] == "0"

    async def test_exactly_the_limit_gets_through_of_very_many_at_once(self, charger):
        answers = await charge_many(charger, [make_grant(limit=250)] * 400)
        assert sorted(answer.remaining for answer in answers if not isinstance(answer, Exception)) == list(range(250))
        assert sum(isinstance(answer, RateLimited) for answer in answers) == 150

    async def test_each_key_has_its_own_answer(self, charger):
        small, large = make_grant(limit=1), make_grant(limit=9, prefix="bbbbbbbb")
        spent = make_grant(limit=9, per_day=1, prefix="cccccccc")
        answers = await charge_many(charger, [small, large, small, spent, large, spent])
        assert [answers[at].remaining for at in (0, 1, 3, 4)] == [0, 8, 0, 7]
        assert (type(answers[2]), type(answers[5])) == (RateLimited, QuotaExceeded)

    async def test_many_at_once_are_few_trips(self, charger, monkeypatch):
        await charger.charge(make_grant(limit=10_000))
        trips, run_all = [], charger._run_all

        async def counted(command, script, calls):
            trips.append(len(calls))
            return await run_all(command, script, calls)

        monkeypatch.setattr(charger, "_run_all", counted)
        await charge_many(charger, [make_grant(limit=10_000)] * 400)
        assert trips == [MAX_BATCH] * 4

    async def test_a_batch_is_bounded(self, charger, monkeypatch):
        sizes = []
        count = charger._count

        async def counted(grants):
            sizes.append(len(grants))
            return await count(grants)

        monkeypatch.setattr(charger._gatherer, "_work", counted)
        await charge_many(charger, [make_grant(limit=10_000)] * (2 * MAX_BATCH + 1))
        assert sum(sizes) == 2 * MAX_BATCH + 1
        assert max(sizes) <= MAX_BATCH

    async def test_a_redis_that_lost_its_scripts_is_given_the_script_again(self, charger):
        grant = make_grant(limit=100)
        await charger.charge(grant)
        redis_client().script_flush()
        answers = await charge_many(charger, [grant] * 5)
        assert sorted(answer.remaining for answer in answers) == [94, 95, 96, 97, 98]
        assert not charging.health.is_away()

    async def test_a_connection_that_was_cut_is_made_anew(self, charger):
        grant = make_grant(limit=100)
        await charger.charge(grant)
        redis_client().client_kill_filter(_type="normal", skipme=True)
        assert (await charger.charge(grant)).remaining == 98
        assert not charging.health.is_away()


class TestWithoutRedis:
    @pytest.fixture(autouse=True)
    def _no_redis(self, settings, monkeypatch, _redis):
        services = settings.SERVICES.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        with monkeypatch.context() as patch:
            patch.setattr(settings, "SERVICES", services)
            redis_client.cache_clear()
            yield
        redis_client.cache_clear()

    async def test_each_process_limits_by_itself_to_its_share(self, charger, settings):
        share = 10 // settings.ENV.web_workers
        answers = await charge_many(charger, [make_grant(limit=10)] * (share + 2))
        assert sorted(answer.remaining for answer in answers if not isinstance(answer, Exception)) == list(range(share))
        assert sum(isinstance(answer, RateLimited) for answer in answers) == 2

    async def test_redis_is_left_alone_for_a_while(self, charger, monkeypatch):
        await charger.charge(make_grant(limit=10))
        assert charging.health.is_away()
        monkeypatch.setattr(charger._gatherer, "submit", None)  # asking would fail now
        assert (await charger.charge(make_grant(limit=10))).limit == redis_loss.share_of(10)
