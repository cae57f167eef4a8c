from datetime import UTC, datetime

import pytest

from apps.analytics.active_users import ACTIVE_S, Activity
from apps.analytics.concurrency import EXPIRY_S, peaks, track_users
from apps.analytics.counting import LiveCounters, LivePublisher
from apps.analytics.documents import ConcurrentUser
from apps.analytics.live import live_history
from apps.core.redis import make_async_redis

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")

NOW = 1_800_000_000.0


def moment(seconds):
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
async def publish():
    client = make_async_redis()
    counters = LiveCounters()

    async def write(users, *, at, activity=Activity.API):
        for user in users:
            counters.users.seen(user, activity)
        await LivePublisher(counters, client).publish(now=at)

    yield write
    await client.aclose()


class TestTrackUsers:
    async def test_who_is_active_is_there_with_what_and_goes_when_gone(self, publish):
        await publish(["key1:a", "key1:b"], at=NOW)
        await publish(["key1:a"], at=NOW + 1, activity=Activity.STREAM)
        assert track_users(now=NOW + 2) == 2
        both = ConcurrentUser.objects.get(id="key1:a")
        assert (both.key_prefix, both.address_hash, both.activities) == ("key1", "a", ["api", "stream"])
        assert ConcurrentUser.objects.get(id="key1:b").activities == ["api"]
        assert track_users(now=NOW + 1 + ACTIVE_S) == 1
        assert [user.id for user in ConcurrentUser.objects] == ["key1:a"]
        assert track_users(now=NOW + 60) == 0
        assert ConcurrentUser.objects.count() == 0

    async def test_those_who_stay_are_written_once_a_minute_however_many_they_are(self, publish, monkeypatch):
        names = [f"key1:{number}" for number in range(10_000)]
        await publish(names, at=NOW)
        assert track_users(now=NOW) == 10_000
        written = []
        monkeypatch.setattr("apps.analytics.concurrency._change", lambda *arguments: written.append(arguments))
        track_users(now=NOW + 5)
        assert written == []
        expires_at = ConcurrentUser.objects.first().expires_at
        assert expires_at == moment(NOW + EXPIRY_S)

    async def test_the_peak_of_each_minute_is_kept(self, publish):
        await publish(["key1:a", "key1:b", "key2:c"], at=NOW)
        track_users(now=NOW)
        await publish(["key1:a"], at=NOW + 30)
        track_users(now=NOW + 30)
        track_users(now=NOW + 61)
        found = peaks(moment(NOW - 60), moment(NOW + 120))
        assert [(peak.start, peak.users, peak.api) for peak in found] == [(moment(NOW), 3, 3)]

    async def test_the_chart_of_the_last_hour_knows_the_users(self, publish):
        await publish(["key1:a", "key1:b"], at=NOW)
        track_users(now=NOW)
        assert live_history(now=NOW + 10).users[-1] == 2
