from __future__ import annotations

import asyncio
import threading
import time

import pytest
from redis.asyncio.client import PubSub

from apps.core import wake
from apps.core.redis import redis_client
from apps.core.wake import TOPIC_PREFIX, WakeHub, publish, wake_hub
from tests.core.subscriptions import subscriptions
from tests.waiting import Clock, wait_until

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
def no_redis(settings):
    redis_client.cache_clear()
    settings.SERVICES = settings.SERVICES.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    yield
    redis_client.cache_clear()


class TestWait:
    def test_returns_when_the_topic_is_published(self):
        outcomes: list[bool] = []
        waiter = threading.Thread(target=lambda: outcomes.append(wake.wait("asset:1", timeout_s=3600)), daemon=True)
        waiter.start()
        wait_until(lambda: redis_client().pubsub_numsub(f"{TOPIC_PREFIX}asset:1")[0][1] == 1)
        publish("asset:2")
        publish("asset:1")
        waiter.join(timeout=90)
        assert outcomes == [True]

    def test_gives_up_when_the_time_is_over(self):
        assert wake.wait("asset:1", timeout_s=0.1) is False

    def test_without_redis_neither_side_fails_nor_spins(self, no_redis, monkeypatch):
        pauses_s: list[float] = []
        clock = Clock()
        clock.sleep = pauses_s.append
        monkeypatch.setattr(wake, "time", clock)
        publish("asset:1")
        assert wake.wait("asset:1", timeout_s=0.2) is False
        assert wake.wait("asset:1", timeout_s=60) is False
        assert pauses_s == pytest.approx([0.2, wake.RETRY_S])


class TestWakeHub:
    @pytest.fixture
    async def hub(self):
        made = WakeHub()
        assert await made.until_listening(timeout_s=60)
        yield made
        await made.aclose()

    async def test_wakes_everybody_who_waits_for_the_topic_and_nobody_else(self, hub):
        waiting = [asyncio.create_task(hub.wait("info:a", timeout_s=60)) for _ in range(1000)]
        other = asyncio.create_task(hub.wait("info:b", timeout_s=0.5))
        await asyncio.sleep(0)
        await asyncio.to_thread(publish, "info:a")
        assert await asyncio.gather(*waiting) == [True] * 1000
        assert await other is False
        assert hub._waiters == {}

    async def test_who_is_cancelled_in_the_moment_of_being_woken_is_cancelled(self, hub):
        waiting = asyncio.create_task(hub.wait("info:a", timeout_s=60))
        await asyncio.to_thread(wait_until, lambda: "info:a" in hub._waiters)
        hub.wake("info:a")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async def test_any_number_of_waiters_is_one_connection(self, hub):
        before = set(subscriptions())
        waiting = [asyncio.create_task(hub.wait(f"info:{number}", timeout_s=60)) for number in range(50)]
        await asyncio.sleep(0)
        assert set(subscriptions()) <= before
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert hub._waiters == {}

    async def test_what_was_published_since_the_caller_looked_is_not_missed(self, hub):
        looked_at = time.monotonic()
        await asyncio.to_thread(publish, "info:a")
        async with asyncio.timeout(60):
            while "info:a" not in hub._recent:
                await hub.wait("info:a", timeout_s=0.01)
        assert await hub.wait("info:a", timeout_s=0, since=looked_at) is True
        assert await hub.wait("info:a", timeout_s=0.01, since=time.monotonic()) is False

    async def test_remembers_a_bounded_number_of_topics(self, hub, monkeypatch):
        monkeypatch.setattr(wake, "RECENT_TOPICS", 10)
        for number in range(50):
            hub._note(f"info:{number}")
        assert len(hub._recent) == 10

    async def test_a_cut_connection_wakes_everybody_and_listens_again(self, hub):
        waiting = asyncio.create_task(hub.wait("info:a", timeout_s=60))
        await asyncio.sleep(0)
        for client_id in await asyncio.to_thread(subscriptions):
            redis_client().client_kill_filter(_id=client_id)
        assert await waiting is True  # it may have missed something
        waiting = asyncio.create_task(hub.wait("info:a", timeout_s=60))
        async with asyncio.timeout(60):
            while not waiting.done():
                await asyncio.to_thread(publish, "info:a")
                await asyncio.wait((waiting,), timeout=0.05)
        assert waiting.result() is True

    async def test_closing_lets_everybody_go(self, hub):
        waiting = asyncio.create_task(hub.wait("info:a", timeout_s=60))
        await asyncio.sleep(0)
        await hub.aclose()
        assert await waiting is False

    @pytest.mark.parametrize("place", ["get_message", "psubscribe"])
    async def test_closing_ends_also_when_the_library_swallows_the_cancellation(self, monkeypatch, place):
        monkeypatch.setattr(wake, "QUIET_POLL_S", 0.05)
        inner = getattr(PubSub, place)
        began = asyncio.Event()

        async def swallows(self, *args, **kwargs):
            began.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return await inner(self, *args, **kwargs)

        hub = WakeHub()
        if place == "get_message":
            assert await hub.until_listening(timeout_s=60)
        monkeypatch.setattr(PubSub, place, swallows)
        await hub.start()
        await began.wait()
        async with asyncio.timeout(20):
            await hub.aclose()

    async def test_without_redis_waiters_only_time_out(self, no_redis):
        hub = WakeHub()
        assert await hub.until_listening(timeout_s=0.2) is False
        assert await hub.wait("info:a", timeout_s=0.1) is False
        await hub.aclose()

    async def test_each_event_loop_has_its_own(self):
        hub = wake_hub()
        assert wake_hub() is hub

        async def other() -> WakeHub:
            return wake_hub()

        assert await asyncio.to_thread(lambda: asyncio.run(other())) is not hub
