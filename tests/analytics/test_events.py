import threading
import time

import pytest
import redis

from apps.analytics import events, recorder
from apps.analytics.active_users import Activity, user_id
from apps.analytics.documents import UsageEvent
from apps.analytics.recorder import EventRecorder
from apps.core.redis import redis_client
from apps.core.trace import note

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")


def answering(status=200, chunks=(b"ab", b"cde")):
    async def app(scope, receive, send):
        note(scope, key_prefix="abcd1234", tier="hot", secret="never kept")
        await send({"type": "http.response.start", "status": status, "headers": []})
        for at, chunk in enumerate(chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": at + 1 < len(chunks)})

    return app


async def call(app, path="/api/v1/info", send=None):
    sent = []

    async def keep(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    recording = EventRecorder(app)
    try:
        await recording({"type": "http", "path": path, "method": "GET"}, receive, send or keep)
    finally:
        await recording.close()
    return sent


class TestEventRecorder:
    async def test_an_answer_is_one_event_with_what_was_noted_and_nothing_else(self):
        await call(answering(status=201), path="/stream/video/abcdefghijk")
        assert events.drain_events() == 1
        event = UsageEvent.objects.get()
        assert (event.route, event.method, event.status, event.bytes_sent) == ("/stream/video", "GET", 201, 5)
        assert (event.key_prefix, event.tier) == ("abcd1234", "hot")
        assert 0 <= event.first_byte_s <= event.duration_s

    async def test_an_answer_that_breaks_off_is_recorded_as_left(self):
        async def breaks(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await call(breaks)
        events.drain_events()
        assert UsageEvent.objects.get().status == 499

    @pytest.mark.parametrize(
        ("path", "route"),
        [
            ("/api/v1/jobs/some-id", "/api/v1/jobs"),
            ("/api/v1/" + "made-up" * 4000, "/api/v1/*"),
            ("/api/v1/info/x", "/api/v1/*"),
            ("/stream/audio/abcdefghijk", "/stream/audio"),
            ("/stream/made-up/abcdefghijk", "/stream/*"),
            ("/stream/", "/stream/*"),
        ],
    )
    async def test_made_up_addresses_add_up_under_one_name(self, path, route):
        await call(answering(), path=path)
        events.drain_events()
        assert UsageEvent.objects.get().route == route

    async def test_a_flood_without_a_key_leaves_few_events_and_hides_none_with_a_key(self, monkeypatch):
        monkeypatch.setattr(recorder, "KEYLESS_BURST", 3)
        monkeypatch.setattr(recorder, "KEYLESS_PER_S", 0.0)

        async def app(scope, receive, send):
            if scope["has_key"]:
                note(scope, key_prefix="abcd1234")
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def send(message):
            pass

        recording = EventRecorder(app)
        for has_key in (False, True):
            for _ in range(10):
                scope = {"type": "http", "path": "/api/v1/info", "method": "GET", "has_key": has_key}
                await recording(scope, None, send)
        await recording.close()
        events.drain_events()
        assert UsageEvent.objects(key_prefix=None).count() == 3
        assert UsageEvent.objects(key_prefix="abcd1234").count() == 10

    async def test_pages_of_the_admin_are_not_recorded(self):
        await call(answering(), path="/admin/")
        assert events.drain_events() == 0

    async def test_the_event_is_kept_before_the_last_bytes_leave(self):
        seen = []

        async def send(message):
            if message["type"] == "http.response.body" and not message["more_body"]:
                seen.append(redis_client().xlen(events.STREAM))

        await call(answering(), send=send)
        assert seen == [1]

    async def test_the_answer_goes_out_when_redis_is_away(self, monkeypatch):
        nowhere = redis.asyncio.Redis(port=1, socket_connect_timeout=0.2)
        monkeypatch.setattr("apps.analytics.recorder.make_async_redis", lambda: nowhere)
        sent = await call(answering())
        assert sent[-1]["body"] == b"cde"


class TestWebsockets:
    async def test_who_has_one_open_is_active_with_its_key(self):
        seen = []

        async def app(scope, receive, send):
            await send({"type": "websocket.accept"})
            note({**scope}, key_prefix="abcd1234")  # routers hand on copies
            await send({"type": "websocket.send", "text": "hello"})
            seen.append((recording.counters.open[Activity.WEBSOCKET], recording.counters.users.take_due(1.0)))

        async def send(message):
            pass

        recording = EventRecorder(app)
        await recording.watch_websocket(app, {"type": "websocket", "client": ("192.0.2.1", 5)}, None, send)
        await recording.close()
        assert seen == [(1, {Activity.WEBSOCKET: {user_id("abcd1234", "192.0.2.1"): 1.0}})]
        assert recording.counters.open[Activity.WEBSOCKET] == 0


class TestDrainEvents:
    async def test_two_workers_at_once_and_a_batch_written_twice_count_each_event_once(self, monkeypatch):
        now = time.time()
        for number in range(300):
            event = {"at": now, "route": "/r", "method": "GET", "status": number, "duration_s": 0.1, "bytes_sent": 0}
            redis_client().eval(events.APPEND_SCRIPT, 0, events.APPEND_WORDS, events.event_payload(event))
        monkeypatch.setattr(events, "BATCH", 50)
        real_client = redis_client()

        class DiesBeforeDeleting:
            def __getattr__(self, name):
                return getattr(real_client, name)

            def xdel(self, *args):
                raise redis.ConnectionError("killed here")

        monkeypatch.setattr(events, "redis_client", DiesBeforeDeleting)
        with pytest.raises(redis.ConnectionError):
            events.drain_events()
        assert UsageEvent.objects.count() == 50
        monkeypatch.setattr(events, "redis_client", lambda: real_client)
        workers = [threading.Thread(target=events.drain_events) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert UsageEvent.objects.count() == 300
        assert sorted(event.status for event in UsageEvent.objects) == list(range(300))
        assert real_client.xlen(events.STREAM) == 0
