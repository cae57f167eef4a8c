import asyncio
import time
from dataclasses import asdict

import pytest
import redis

from apps.analytics import counting
from apps.analytics.active_users import ACTIVE_S, REFRESH_S, ActiveUsers, Activity, user_id
from apps.analytics.counting import LiveCounters, LivePublisher
from apps.analytics.histogram import BOUNDS_S, BUCKETS, bucket_of, quantile
from apps.analytics.live import RATE_S, live_figures, live_history
from apps.analytics.open_stream import OpenStream
from apps.analytics.recorder import EventRecorder
from apps.core.redis import make_async_redis, redis_client
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("redis_server")

NOW = 1_800_000_005.0  # in the middle of a step of ten seconds


def answer(counters, *, status=200, tier="hot", first_byte_s=0.04, size_bytes=1000):
    counters.sent(size_bytes, "api")
    counters.answered(
        route="/api/v1/audio", status=status, kind="api", tier=tier, error=None, first_byte_s=first_byte_s
    )


async def nothing(scope, receive, send):
    pass


@pytest.fixture
async def client():
    client = make_async_redis()
    yield client
    await client.aclose()


class TestHistogram:
    def test_every_time_has_its_bucket(self):
        assert bucket_of(0.0) == 0
        assert [bucket_of(bound) for bound in BOUNDS_S] == list(range(BUCKETS - 1))
        assert bucket_of(10_000) == BUCKETS - 1

    def test_quantiles_lie_in_the_right_bucket(self):
        counts = [0] * BUCKETS
        for milliseconds in range(1, 1001):
            counts[bucket_of(milliseconds / 1000)] += 1
        assert quantile(counts, 0.5) == pytest.approx(0.5, rel=0.05)
        assert quantile(counts, 0.95) == pytest.approx(0.95, rel=0.05)

    def test_nothing_counted_has_no_quantile_and_very_long_ones_read_as_the_last_bound(self):
        assert quantile([0] * BUCKETS, 0.5) is None
        assert quantile([0] * (BUCKETS - 1) + [3], 0.5) == BOUNDS_S[-1]


class TestLiveFigures:
    async def test_the_processes_add_up(self, client):
        one, other = LiveCounters(), LiveCounters()
        publishers = [LivePublisher(counters, client) for counters in (one, other)]
        for counters in (one, other):
            counters.open[Activity.STREAM] = 2
            for _ in range(RATE_S):
                answer(counters)
        answer(other, status=503, tier=None, first_byte_s=2.0)
        answer(other, status=404, tier="external")
        for publisher in publishers:
            await publisher.publish(now=NOW - 1)
        figures = live_figures(now=NOW)
        assert figures.requests == 2 * RATE_S + 2
        assert figures.requests_per_s == (2 * RATE_S + 2) / RATE_S
        assert figures.bytes_per_s == 1000 * figures.requests_per_s
        assert figures.error_rate == pytest.approx(1 / 12)
        assert figures.refused_rate == pytest.approx(1 / 12)
        assert (figures.errors_per_s, figures.refused_per_s) == (1 / RATE_S, 1 / RATE_S)
        later = live_figures(now=NOW + RATE_S)  # still in the last minute, but no longer now
        assert (later.errors_per_s, later.refused_per_s) == (0, 0)
        assert later.error_rate == pytest.approx(1 / 12)
        assert figures.tiers == {"hot": 10, "telegram": 0, "external": 1}
        assert figures.hit_ratio == pytest.approx(10 / 11)
        assert 0.03 < figures.first_byte_p50_s <= 0.05
        assert figures.first_byte_p95_s > 1
        assert figures.streams == 4

    async def test_requests_of_the_last_minute_are_not_those_of_seventy_seconds(self, client):
        counters = LiveCounters()
        for ago in (62, 2):
            for _ in range(40):
                answer(counters)
            await LivePublisher(counters, client).publish(now=NOW - ago)
        assert live_figures(now=NOW).requests == 40 + 20  # half of the oldest step has passed
        assert live_figures(now=NOW + 2.5).requests == 40 + 10
        assert live_figures(now=NOW + 5).requests == 40

    def test_an_idle_server_has_zeros_and_unknown_times(self):
        figures = live_figures(now=NOW)
        assert (figures.requests_per_s, figures.error_rate, figures.users, figures.streams) == (0, 0, 0, 0)
        assert (figures.first_byte_p50_s, figures.hit_ratio) == (None, None)

    async def test_nothing_is_written_while_nothing_happens(self, client):
        await LivePublisher(LiveCounters(), client).publish(now=NOW)
        assert redis_client().dbsize() == 0

    async def test_many_requests_are_one_write_and_every_key_expires(self, client):
        counters = LiveCounters()
        for _ in range(1000):
            answer(counters)
            counters.users.seen("k:h", Activity.API)
        await LivePublisher(counters, client).publish(now=NOW)
        keys = set(redis_client().keys("*"))
        forever = {key for key in keys if redis_client().ttl(key) < 0}
        assert forever == {counting.TOTALS.encode()}
        assert len(keys) == 5

    async def test_counts_that_redis_did_not_take_go_along_with_the_next_write(self, client):
        counters = LiveCounters()
        answer(counters)
        nowhere = redis.asyncio.Redis(port=1, socket_connect_timeout=0.2)
        await LivePublisher(counters, nowhere).publish(now=NOW - 2)
        answer(counters)
        await LivePublisher(counters, client).publish(now=NOW - 1)
        assert live_figures(now=NOW).requests == 2

    async def test_streams_of_a_killed_process_are_forgotten_and_a_stopping_one_says_so(self, client):
        counters = LiveCounters()
        counters.open[Activity.STREAM] = 3
        publisher = LivePublisher(counters, client)
        await publisher.publish(now=NOW)
        assert live_figures(now=NOW + 1).streams == 3
        assert live_figures(now=NOW + 8).streams == 0
        await publisher.aclose()
        assert live_figures(now=NOW + 1).streams == 0


class TestLiveHistory:
    async def test_a_stream_is_counted_in_a_process_that_has_answered_nothing_else(self):
        recorder = EventRecorder(nothing)
        facts = {"key_prefix": "abcdefgh", "video_id": "dQw4w9WgXcQ", "asset_id": "a", "tier": "hot"}
        stream = OpenStream(recorder, route="/stream", facts=facts, address="127.0.0.1", started_at=time.monotonic())
        try:
            await asyncio.to_thread(wait_until, lambda: live_figures().streams)
            figures = live_figures()
            assert (figures.streams, figures.users_by_activity["stream"]) == (1, 1)
        finally:
            stream.close()
            await recorder.close()

    async def test_one_step_is_the_last_of_the_hour(self, client):
        counters = LiveCounters()
        for ago, status in ((10, 503), (20, 404)):
            answer(counters, status=status)
            await LivePublisher(counters, client).publish(now=NOW - ago)
        hour, step = asdict(live_history(now=NOW)), asdict(live_history(steps=1, now=NOW))
        assert {name: values[-1:] for name, values in hour.items() if isinstance(values, list)} == {
            name: values for name, values in step.items() if isinstance(values, list)
        }
        assert (step["errors_per_s"], step["refused_per_s"]) == ([0.1], [0.0])

    async def test_the_last_hour_comes_at_once_and_the_running_step_is_not_in_it(self, client):
        counters = LiveCounters()
        publisher = LivePublisher(counters, client)
        for ago in (0, 10, 20, 3590, 3700):
            for _ in range(10):
                answer(counters)
            await publisher.publish(now=NOW - ago)
        history = live_history(now=NOW)
        assert len(history.starts) == len(history.users) == len(history.tiers["hot"]) == 360
        assert history.starts[-1] == 1_799_999_990
        assert history.requests_per_s[-2:] == [1.0, 1.0]
        assert history.requests_per_s[1] == 1.0
        assert sum(history.requests_per_s) == 3.0
        assert history.first_byte_p50_s[-3] is None


class TestActiveUsers:
    async def test_a_user_counts_once_however_many_things_it_does_in_however_many_processes(self, client):
        for _ in range(2):
            counters = LiveCounters()
            counters.users.seen("key:one", Activity.API)
            counters.users.opened("key:one", Activity.STREAM)
            counters.users.opened("key:one", Activity.STREAM)
            counters.users.seen("key:two", Activity.API)
            await LivePublisher(counters, client).publish(now=NOW)
        figures = live_figures(now=NOW + 1)
        assert figures.users == 2
        assert figures.users_by_activity == {"api": 2, "stream": 1, "websocket": 0}
        assert live_figures(now=NOW + ACTIVE_S + 1).users == 0

    def test_an_open_stream_is_written_again_and_again_but_not_each_second(self):
        users = ActiveUsers()
        users.opened("k:a", Activity.STREAM)
        written = [second for second in range(21) if users.take_due(NOW + second)]
        assert written == list(range(0, 21, int(REFRESH_S)))
        users.closed("k:a", Activity.STREAM)
        assert users.take_due(NOW + 30)
        assert not users.take_due(NOW + 40)

    def test_who_is_written_late_counts_from_when_they_were_active(self):
        users = ActiveUsers()
        users.seen("k:a", Activity.API)
        assert users.take_due(NOW) == {Activity.API: {"k:a": NOW}}
        users.seen("k:a", Activity.API)
        assert not users.take_due(NOW + 1)
        written = {NOW + second: users.take_due(NOW + second) for second in range(2, 9)}
        assert [at for at, due in written.items() if due] == [NOW + REFRESH_S]
        assert written[NOW + REFRESH_S] == {Activity.API: {"k:a": NOW + 1}}

    async def test_an_older_sight_of_another_process_does_not_win(self, client):
        late, early = LiveCounters(), LiveCounters()
        early.users.seen("key:one", Activity.API)
        late.users.seen("key:one", Activity.API)
        await LivePublisher(late, client).publish(now=NOW + 5)
        await LivePublisher(early, client).publish(now=NOW)
        assert live_figures(now=NOW + 5 + ACTIVE_S - 1).users == 1

    def test_addresses_are_kept_as_keyed_hashes(self):
        one = user_id("abcd1234", "192.0.2.7")
        assert one.startswith("abcd1234:")
        assert len(one) == len("abcd1234:") + 16
        assert user_id("abcd1234", "192.0.2.8") != one
        assert user_id("abcd1234", "2001:db8::1") == user_id("abcd1234", "2001:db8::2")
        assert user_id(None, "").startswith("-:")
