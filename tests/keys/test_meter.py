from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from apps.core.errors import ApiError, NotReady, QuotaExceeded, TooManyStreams
from apps.core.redis import make_async_redis, redis_client
from apps.keys import limits, meter, redis_loss
from apps.keys.grants import KeyGrant
from apps.keys.local_limits import LocalLimiter
from apps.keys.meter import KeyMeter, StreamMeters, slots_name
from tests.waiting import wait_until

PREFIX = "aaaaaaaa"
BYTES = f"yt:limit:{PREFIX}:bytes"


def make_grant(*, streams: int | None = None, bytes_per_day: int | None = None) -> KeyGrant:
    return KeyGrant(
        prefix=PREFIX, name="n", owner="", scopes=frozenset(), concurrent_streams=streams, bytes_per_day=bytes_per_day
    )


def used_bytes() -> int:
    return int(redis_client().hget(BYTES, "total") or 0)


@pytest.fixture
async def meters(redis_server, monkeypatch):
    health, counts = redis_loss.RedisHealth(), LocalLimiter()
    for module in (limits, meter):
        monkeypatch.setattr(module, "health", health)
        monkeypatch.setattr(module, "local_counts", counts)
    meters = StreamMeters()
    yield meters
    await meters.aclose()


async def closed(meters: StreamMeters) -> None:
    """Until everything that was given back has arrived."""
    while meters._closing:
        await asyncio.wait(meters._closing)


class HeldBack:
    """Keeps the next calls of one script from Redis until ``go_on``."""

    def __init__(self, meters: StreamMeters, script: str) -> None:
        self.begun, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._run, self._script = meters.run, script
        meters.run = self._held

    async def _held(self, script, keys, arguments):
        if script != self._script:
            return await self._run(script, keys, arguments)
        self.begun.set()
        await self.go_on.wait()
        try:
            return await self._run(script, keys, arguments)
        finally:
            self.ended.set()


async def in_thread(work: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


async def drain(one: KeyMeter, at_most: int, step: int = 256 * 1024) -> int:
    """Send like a stream does, until the limit; how many bytes left."""
    sent = 0
    while sent < at_most:
        taken = one.take(min(step, at_most - sent))
        if not taken:
            try:
                await one.refill()
            except QuotaExceeded:
                break
        sent += taken
    return sent


class TestStreams:
    async def test_the_limit_is_reached_not_passed_and_a_slot_is_free_at_once_when_a_stream_ends(self, meters):
        streams = [meters.meter(make_grant(streams=2)) for _ in range(3)]
        await streams[0].open()
        await streams[1].open()
        with pytest.raises(TooManyStreams) as refused:
            await streams[2].open()
        assert refused.value.retry_after_s == meter.RETRY_AFTER_S
        streams[0].close()
        await closed(meters)
        await streams[2].open()
        assert redis_client().zcard(slots_name(PREFIX)) == 2
        for stream in streams:
            stream.close()
            stream.close()
        await closed(meters)
        assert not redis_client().exists(slots_name(PREFIX))
        assert (meters._grants, meters._held) == ({}, {})

    async def test_a_killed_processs_slots_are_free_when_they_expire(self, meters):
        now_ms = redis_client().time()[0] * 1000
        redis_client().zadd(slots_name(PREFIX), {"killed": now_ms + 600_000, "killed long ago": now_ms - 1})
        one, two = (meters.meter(make_grant(streams=2)) for _ in range(2))
        await one.open()
        with pytest.raises(TooManyStreams):
            await two.open()

    async def test_slots_of_running_streams_are_renewed(self, meters, monkeypatch):
        monkeypatch.setattr(meter, "RENEW_EVERY_S", 0.01)
        stream = meters.meter(make_grant(streams=1))
        await stream.open()
        (member,) = redis_client().zrange(slots_name(PREFIX), 0, -1)
        redis_client().zadd(slots_name(PREFIX), {member: 1})
        await in_thread(lambda: wait_until(lambda: redis_client().zscore(slots_name(PREFIX), member) > 1))
        redis_client().flushdb()  # also after Redis lost them
        await in_thread(lambda: wait_until(lambda: redis_client().exists(slots_name(PREFIX))))
        stream.close()
        await closed(meters)

    async def test_a_stream_that_ends_while_its_slot_is_renewed_gets_none_again(self, meters, monkeypatch):
        monkeypatch.setattr(meter, "RENEW_EVERY_S", 0.01)
        stream, other = (meters.meter(make_grant(streams=2)) for _ in range(2))
        await stream.open()
        await other.open()
        held = HeldBack(meters, meter.RENEW_SCRIPT)
        await held.begun.wait()
        stream.close()
        await closed(meters)
        held.go_on.set()
        await held.ended.wait()
        assert redis_client().zrange(slots_name(PREFIX), 0, -1) == [other._stream.encode()]
        other.close()
        await closed(meters)

    async def test_a_stream_that_ends_while_a_lost_slot_is_taken_again_has_none_in_the_end(self, meters, monkeypatch):
        monkeypatch.setattr(meter, "RENEW_EVERY_S", 0.01)
        stream = meters.meter(make_grant(streams=2))
        await stream.open()
        held = HeldBack(meters, meter.TAKE_AGAIN_SCRIPT)
        redis_client().flushdb()
        await held.begun.wait()
        stream.close()
        held.go_on.set()
        await held.ended.wait()
        await closed(meters)
        assert not redis_client().exists(slots_name(PREFIX))

    async def test_a_stream_that_is_broken_off_while_it_opens_keeps_neither_slot_nor_bytes(self, meters):
        held = HeldBack(meters, meter.SCRIPT)
        stream = meters.meter(make_grant(streams=2, bytes_per_day=10**9))
        opening = asyncio.create_task(stream.open())
        await held.begun.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        held.go_on.set()
        await held.ended.wait()
        await closed(meters)
        assert not redis_client().exists(slots_name(PREFIX))
        assert used_bytes() == 0

    async def test_unlimited_streams_cost_nothing(self, meters):
        stream = meters.meter(make_grant())
        await stream.open()
        assert stream.take(10**12) == 10**12
        stream.close()
        assert redis_client().dbsize() == 0

    def test_never_more_than_the_limit_over_processes_and_a_killed_one_gives_its_slots_back(self, redis_server):
        program = (
            "import django; django.setup(); import asyncio, sys; from tests.keys.test_meter import hold_streams;"
            "asyncio.run(hold_streams(15))"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        try:
            assert all(process.stdout.readline() == "ready\n" for process in processes)
            for process in processes:
                process.stdin.write("go\n")
                process.stdin.flush()
            slots = [json.loads(process.stdout.readline()) for process in processes]
            held = [len(each) for each in slots]
            assert sum(held) == 20
            victim = max(range(3), key=lambda index: held[index])
            processes[victim].kill()
            processes[victim].wait(timeout=60)
            for slot in slots[victim]:  # which nobody renews any more
                assert redis_client().zscore(slots_name(PREFIX), slot) <= server_ms() + 1000 * (meter.SLOT_LIFE_S + 1)
                redis_client().zadd(slots_name(PREFIX), {slot: server_ms() - 1})
            survivor = next(slot for each in slots if each is not slots[victim] for slot in each)
            redis_client().zadd(slots_name(PREFIX), {survivor: server_ms() + 5000})
            wait_until(lambda: redis_client().zscore(slots_name(PREFIX), survivor) > server_ms() + 10_000)
            assert redis_client().zcount(slots_name(PREFIX), server_ms(), "+inf") == 20 - held[victim]
            assert asyncio.run(try_one(20)) == "open"
            assert asyncio.run(try_one(20 - held[victim])) == "too_many_streams"
        finally:
            for process in processes:
                process.kill()
                process.communicate()


async def try_one(limit: int) -> str:
    meters = StreamMeters()
    stream = meters.meter(make_grant(streams=limit))
    try:
        await stream.open()
    except TooManyStreams as error:
        return error.code
    finally:
        stream.close()
        await closed(meters)
        await meters.aclose()
    return "open"


def server_ms() -> int:
    return int(redis_client().time()[0]) * 1000


async def hold_streams(count: int) -> None:
    """In a process of its own: open as many of ``count`` streams as may be, say which, and hold them."""
    meter.RENEW_EVERY_S = 0.1
    meters = StreamMeters()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    streams = [meters.meter(make_grant(streams=20)) for _ in range(count)]
    answers = await asyncio.gather(*(stream.open() for stream in streams), return_exceptions=True)
    assert all(answer is None or isinstance(answer, TooManyStreams) for answer in answers)
    opened = [stream._stream for stream, answer in zip(streams, answers, strict=True) if answer is None]
    sys.stdout.write(json.dumps(opened) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


class TestBytes:
    @pytest.mark.parametrize("limit", [1, 100_000, 256 * 1024, 5_000_001])
    async def test_every_byte_of_the_limit_may_leave_and_not_one_more(self, meters, limit):
        stream = meters.meter(make_grant(bytes_per_day=limit))
        await stream.open()
        assert await drain(stream, 10**8) == limit
        stream.close()
        with pytest.raises(QuotaExceeded) as refused:
            await meters.meter(make_grant(bytes_per_day=limit)).open()
        assert (refused.value.limit_state.limit, refused.value.limit_state.remaining) == (limit, 0)
        assert 86_000 < refused.value.retry_after_s <= 86_700

    async def test_what_was_not_sent_is_given_back(self, meters):
        stream = meters.meter(make_grant(bytes_per_day=10**9))
        await stream.open()
        assert await drain(stream, 5_000_000) == 5_000_000
        assert used_bytes() > 5_000_000
        stream.close()
        await closed(meters)
        assert used_bytes() == 5_000_000

    async def test_many_streams_together_send_exactly_the_limit(self, meters):
        others = [StreamMeters() for _ in range(3)]
        streams = [each.meter(make_grant(bytes_per_day=20_000_000)) for each in (meters, *others) for _ in range(6)]

        async def send(stream: KeyMeter) -> int:
            try:
                await stream.open()
            except QuotaExceeded:
                return 0
            sent = await drain(stream, 3_000_000)
            stream.close()
            return sent

        sent = await asyncio.gather(*(send(stream) for stream in streams))
        for each in (meters, *others):
            await closed(each)
        assert sum(sent) == used_bytes() <= 20_000_000
        last, more = meters.meter(make_grant(bytes_per_day=20_000_000)), 0
        if sum(sent) < 20_000_000:
            await last.open()
            more = await drain(last, 10**8)
        assert sum(sent) + more == 20_000_000
        for each in others:
            await each.aclose()

    async def test_a_limit_that_was_changed_holds_for_running_streams(self, meters):
        stream = meters.meter(make_grant())
        await stream.open()
        assert stream.take(10**9) == 10**9
        meters.note_grant(make_grant(bytes_per_day=1000))
        assert await drain(stream, 10**9) == 1000
        meters.note_grant(make_grant())
        assert stream.take(10**9) == 10**9
        stream.close()

    async def test_a_slot_is_not_kept_when_no_bytes_are_left(self, meters):
        grant = make_grant(streams=5, bytes_per_day=1)
        stream = meters.meter(grant)
        await stream.open()
        assert await drain(stream, 2) == 1
        with pytest.raises(QuotaExceeded):
            await meters.meter(grant).open()
        assert redis_client().zcard(slots_name(PREFIX)) == 1

    async def test_a_redis_that_lost_its_scripts_gets_them_again(self, meters):
        async with make_async_redis() as client:
            await client.script_flush()
        stream = meters.meter(make_grant(streams=1, bytes_per_day=10**9))
        await stream.open()
        stream.close()
        await closed(meters)
        assert used_bytes() == 0


class TestRedisAway:
    @pytest.fixture(autouse=True)
    def _away(self, meters):
        meter.health.note_failure = lambda: None
        meter.health.is_away = lambda: True

    async def test_each_process_gives_its_share(self, meters, settings):
        workers = settings.ENV.web_workers
        grant = make_grant(streams=2 * workers, bytes_per_day=1_000_000 * workers)
        streams = [meters.meter(grant) for _ in range(3)]
        await streams[0].open()
        await streams[1].open()
        with pytest.raises(TooManyStreams):
            await streams[2].open()
        sent = [await drain(stream, 10**8) for stream in streams[:2]]
        assert sum(sent) == 1_000_000
        streams[0].close()
        with pytest.raises(QuotaExceeded):
            await streams[2].open()
        assert meters._local == {PREFIX: 1}

    async def test_or_nothing(self, meters, settings):
        settings.ENV = settings.ENV.model_copy(update={"limits_on_redis_loss": "deny"})
        for grant in (make_grant(streams=5), make_grant(bytes_per_day=5)):
            with pytest.raises(NotReady) as refused:
                await meters.meter(grant).open()
            assert isinstance(refused.value, ApiError)
        await meters.meter(make_grant()).open()
        with pytest.raises(NotReady):
            limits.charge(make_grant())


async def test_bytes_asked_for_after_the_end_are_not_taken(meters):
    """The client left before the task that refills had begun."""
    one = meters.meter(make_grant(bytes_per_day=100_000_000))
    await one.open()
    one.close()
    await closed(meters)
    await one.refill()
    assert used_bytes() == 0
