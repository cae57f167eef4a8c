"""Long streams that the lane sends by itself are those of the stream application, with all that is counted of them."""

import asyncio
import errno
import json
import os
import socket
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import Mock

import httpx
import pytest
from django.conf import settings as django_settings

from apps.analytics import events
from apps.analytics.active_users import Activity
from apps.analytics.documents import UsageEvent
from apps.core.redis import redis_client
from apps.core.web_protocol import BoundedHttpProtocol, Wire
from apps.downloads.services.media import hot_store
from apps.keys.meter import KeyMeter, count_streams
from apps.keys.services import create_key, revoke_key
from apps.streaming import sending
from apps.streaming.hotstore import HotStore
from tests.core.serving import serving
from tests.downloads.library import AUDIO, VIDEO_ID, put_hot
from tests.fast_lane.test_lane import comparable
from tests.fast_lane.test_streams import SOME, StreamServer, _lasting, link  # noqa: F401 - a fixture
from tests.waiting import wait_until
from ytserver.fast_lane import long_streams
from ytserver.fast_lane import streams as stream_lane

SIZE = 16 * 1024 * 1024 + 12_345  # more than the kernel keeps for a client that takes nothing
CONTENT = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)
LONG = f"bytes=1000-{SIZE - 5}"

pytestmark = pytest.mark.usefixtures("_lasting")


class Lane:
    """A real server; ``in_app`` counts what got past the lane."""

    def __init__(self, server, url):
        self.server, self.url = server, url
        self.port = int(url.rpartition(":")[2])
        self.parts = server.entrance._running_parts()

    @property
    def in_app(self):
        return self.server.in_app

    def get(self, path, **headers):
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30, trust_env=False)

    def warm(self, path):
        assert self.get(path, **SOME).status_code == 206
        self.server.in_app = 0

    @property
    def open_streams(self):
        return self.parts.recorder.counters.open[Activity.STREAM]

    def wait_until_idle(self):
        """Until no stream is open, their events were sent, and bytes taken ahead were given back."""
        streams, meters = self.parts.streams.long, self.parts._backend._meters
        wait_until(lambda: not len(streams) and not streams._tasks and not len(streams.running) and not meters._closing)

    @contextmanager
    def paused(self, path):
        """A client that takes the first bytes, then nothing."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect(("127.0.0.1", self.port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert client.recv(12) == b"HTTP/1.1 200"
            yield client


@contextmanager
def running_lane():
    server = StreamServer()
    with serving(server.entrance, http=BoundedHttpProtocol) as url:
        yield Lane(server, url)


@pytest.fixture(autouse=True)
def _file(mongo, redis_server, hot_root):
    put_hot(AUDIO, CONTENT)


@pytest.fixture
def lane(_file):
    with running_lane() as running:
        yield running


@pytest.fixture
def key():
    return create_key(name="test").key


def recorded():
    events.drain_events()
    return [event.to_mongo().to_dict() for event in UsageEvent.objects.order_by("at")]


def read_rest(client):
    """What still comes, as a count; the connection is closed or cut after it."""
    received = 0
    try:
        while piece := client.recv(1 << 20):
            received += len(piece)
    except ConnectionResetError:
        pass
    return received


class TestLongStreams:
    @pytest.mark.parametrize("headers", [{}, {"Range": LONG}, {"Range": "bytes=5-"}, {"Range": "bytes=0-1,5-6"}])
    def test_are_those_of_the_application(self, lane, key, headers, monkeypatch):
        path = link(key)
        lane.warm(path)
        fast = lane.get(path, **headers)
        assert lane.in_app == 0
        with monkeypatch.context() as patch:
            patch.setattr(django_settings, "ENV", django_settings.ENV.model_copy(update={"fast_lane": False}))
            with running_lane() as app:
                slow = app.get(path, **headers)
                assert app.in_app == 1
        assert comparable(fast) == comparable(slow)
        for name in ("content-length", "content-range", "connection"):
            assert fast.headers.get(name) == slow.headers.get(name)
        start = {LONG: 1000, "bytes=5-": 5}.get(headers.get("Range"), 0)
        stop = SIZE - 4 if headers.get("Range") == LONG else SIZE
        assert fast.content == CONTENT[start:stop]

    def test_leave_the_application_s_events_figures_and_log_lines(self, lane, key, caplog):
        caplog.set_level("INFO", logger="ytserver.access")
        path = link(key)
        lane.warm(path)
        lane.get(path, Range=LONG)
        lane.get(path, Range=LONG, **{"If-None-Match": '"other"'})  # for the application to decide
        assert lane.in_app == 1
        lane.wait_until_idle()
        fast, slow = recorded()[1:]
        assert set(fast) == set(slow)
        for name in ("route", "method", "status", "bytes_sent", "key_prefix", "video_id", "asset_id", "tier"):
            assert fast[name] == slow[name], name
        assert fast["bytes_sent"] == SIZE - 1004
        assert 0 < fast["first_byte_s"] <= fast["duration_s"]
        assert lane.open_streams == 0
        all_bytes = SIZE - 1004
        wait_until(lambda: self.ready_lines(caplog, all_bytes) and self.lines_of_the_app(caplog, all_bytes))
        (line,), (logged,) = self.ready_lines(caplog, all_bytes), self.lines_of_the_app(caplog, all_bytes)
        for name in ("method", "path", "status", "outcome", "error", "sent_bytes", "key_prefix", "asset_id", "client"):
            assert line[name] == getattr(logged, name), name

    def ready_lines(self, caplog, sent_bytes):
        ready = [record.getMessage() for record in list(caplog.records) if hasattr(record, "are_ready")]
        lines = [json.loads(line) for message in ready for line in message.splitlines()]
        return [line for line in lines if line["sent_bytes"] == sent_bytes]

    def lines_of_the_app(self, caplog, sent_bytes):
        logged = [record for record in list(caplog.records) if record.name == "ytserver.access"]
        return [record for record in logged if getattr(record, "sent_bytes", None) == sent_bytes]

    def test_need_nothing_that_was_read_before(self, lane, key):
        answers = [lane.get(link(key)), lane.get(link(key, attachment=True), Range=LONG)]
        assert [answer.status_code for answer in answers] == [200, 206]
        assert [len(answer.content) for answer in answers] == [SIZE, SIZE - 1004]
        assert lane.in_app == 0

    def test_give_the_connection_back(self, lane, key):
        path = link(key)
        lane.warm(path)
        with httpx.Client(base_url=lane.url, timeout=30, trust_env=False) as client:
            for headers in ({}, SOME, {"Range": LONG}, {}):
                answer = client.get(path, headers=headers)
                assert len(answer.content) == int(answer.headers["content-length"])
            assert lane.in_app == 0
            assert client.get(path, headers={"Connection": "close"}).content == CONTENT

    def test_answer_requests_that_came_meanwhile(self, lane, key):
        path = link(key)
        lane.warm(path)
        asked = f"GET {path} HTTP/1.1\r\nHost: test\r\n"
        with socket.create_connection(("127.0.0.1", lane.port), timeout=60) as client:
            client.sendall(f"{asked}\r\n{asked}Range: {LONG}\r\n\r\n{asked}Connection: close\r\n\r\n".encode())
            received = bytearray()
            while piece := client.recv(1 << 20):
                received += piece
        assert [received.count(each) for each in (b"HTTP/1.1 200", b"HTTP/1.1 206", b"\r\n\r\n")] == [2, 1, 3]
        _, _, rest = received.partition(b"\r\n\r\n")
        assert rest.startswith(CONTENT + b"HTTP/1.1 206")
        assert rest.endswith(b"\r\n\r\n" + CONTENT)

    def test_leave_a_request_alone_that_has_begun_to_come(self, lane, key):
        path = link(key)
        lane.warm(path)
        with socket.create_connection(("127.0.0.1", lane.port), timeout=60) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\nGET /healthz HTTP/1.1\r\nHo".encode())
            received = bytearray(client.recv(1 << 20))
            client.sendall(b"st: test\r\nConnection: close\r\n\r\n")
            while piece := client.recv(1 << 20):
                received += piece
        _, _, rest = received.partition(b"\r\n\r\n")
        assert rest.startswith(CONTENT + b"HTTP/1.1 200 OK\r\n")
        assert b'{"status": true}' in rest[SIZE:]

    def test_wait_for_their_client(self, lane, key):
        path = link(key)
        lane.warm(path)
        with lane.paused(path) as client:
            stream = next(iter(lane.parts.streams.long._open))
            wait_until(lambda: stream.sending_since is not None)
            assert stream._at < SIZE - 1_000_000
            assert lane.open_streams == 1
            head, _, body = (b"HTTP/1.1 200" + client.recv(4096)).partition(b"\r\n\r\n")
            assert f"content-length: {SIZE}".encode() in head
            left = SIZE - len(body)
            while left:
                piece = client.recv(1 << 20)
                assert piece
                left -= len(piece)
        lane.wait_until_idle()
        assert recorded()[-1]["status"] == 200

    @pytest.mark.parametrize(("quick_s", "is_wide"), [(60.0, True), (0.0, False)])
    def test_to_a_quick_client_only_have_a_larger_buffer(self, lane, key, monkeypatch, quick_s, is_wide):
        monkeypatch.setattr(sending, "QUICK_S", quick_s)
        widened, widen = [], Wire.widen

        def widen_and_note(wire, buffer_bytes):
            widen(wire, buffer_bytes)
            widened.append(buffer_bytes)

        monkeypatch.setattr(Wire, "widen", widen_and_note)
        path = link(key)
        lane.warm(path)
        assert lane.get(path).content == CONTENT
        assert bool(widened) is is_wide

    def test_go_on_when_there_is_no_file_descriptor_left(self, lane, key, monkeypatch):
        path = link(key)
        lane.warm(path)
        monkeypatch.setattr(sending, "QUICK_S", 60.0)
        monkeypatch.setattr(os, "dup", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        assert lane.get(path).content == CONTENT
        assert os.dup.called


class TestEnds:
    def one_event(self, lane, **fields):
        lane.wait_until_idle()
        event = recorded()[-1]
        assert {name: event.get(name) for name in fields} == fields
        assert 0 < event["bytes_sent"] < SIZE
        assert lane.open_streams == 0

    def test_when_the_client_leaves(self, lane, key):
        path = link(key)
        lane.warm(path)
        with lane.paused(path):
            pass
        self.one_event(lane, status=499, error=None)

    def test_before_the_start_when_the_client_leaves_meanwhile(self, lane, monkeypatch):
        key = create_key(name="one", concurrent_streams=1).key
        path = link(key)
        lane.warm(path)
        lost, connection_lost, open_meter = [], BoundedHttpProtocol.connection_lost, KeyMeter.open

        def connection_lost_and_note(protocol, exc):
            connection_lost(protocol, exc)
            lost.append(protocol)

        async def open_late(meter):
            client.close()
            await asyncio.to_thread(wait_until, lambda: lost)
            await open_meter(meter)

        monkeypatch.setattr(BoundedHttpProtocol, "connection_lost", connection_lost_and_note)
        wait_until(lambda: count_streams(key[3:11]) == 0)
        client = socket.create_connection(("127.0.0.1", lane.port), timeout=60)
        monkeypatch.setattr(KeyMeter, "open", open_late)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_until(lambda: lane.in_app)
        wait_until(lambda: lane.open_streams == 0 and not len(lane.parts.streams.long.running))
        wait_until(lambda: count_streams(key[3:11]) == 0)

    def test_when_its_bytes_cannot_be_counted(self, lane, monkeypatch):
        key = create_key(name="some", bytes_per_day=10 * SIZE).key
        path = link(key)
        lane.warm(path)
        monkeypatch.setattr(KeyMeter, "refill", Mock(side_effect=RuntimeError("nobody expects this")))
        with socket.create_connection(("127.0.0.1", lane.port), timeout=60) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert 0 < read_rest(client) < SIZE
        self.one_event(lane, status=499, error="internal_error")

    def test_when_the_key_is_revoked(self, lane, key):
        path = link(key)
        lane.warm(path)
        with lane.paused(path) as client:
            revoke_key(key[3:11])
            lane.wait_until_idle()
            assert read_rest(client) < SIZE
        self.one_event(lane, status=499, error="key_disabled")

    def test_when_the_client_takes_nothing_for_too_long(self, lane, key):
        running = lane.parts.streams.long.running
        path = link(key)
        lane.warm(path)
        lane.wait_until_idle()
        running._timing = replace(running._timing, client_stall_s=0.2)
        with lane.paused(path) as client:
            lane.wait_until_idle()
            assert read_rest(client) < SIZE
        self.one_event(lane, status=499, error="upstream_timeout")

    def test_when_the_server_stops(self, key):
        path = link(key)
        with ExitStack() as clients:
            with running_lane() as lane:
                lane.warm(path)
                clients.enter_context(lane.paused(path))
                wait_until(lambda: len(lane.parts.streams.long) == 1)
            self.one_event(lane, status=499, error=None)


class TestLimits:
    def test_on_streams_hold_while_one_runs(self, lane):
        key = create_key(name="one", concurrent_streams=1).key
        path = link(key)
        lane.warm(path)
        wait_until(lambda: count_streams(key[3:11]) == 0)
        with lane.paused(path):
            assert lane.in_app == 0
            assert count_streams(key[3:11]) == 1
            refused = lane.get(path)
            assert (refused.status_code, refused.json()["error"]) == (429, "too_many_streams")
        wait_until(lambda: count_streams(key[3:11]) == 0)

    def test_on_bytes_end_a_stream_that_goes_past_them(self, lane):
        key = create_key(name="some", bytes_per_day=SIZE + 5_000_000).key
        path = link(key)
        lane.warm(path)
        assert lane.get(path).content == CONTENT
        lane.wait_until_idle()
        with socket.create_connection(("127.0.0.1", lane.port), timeout=60) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            received = read_rest(client)
        assert 4_000_000 < received < 5_001_000
        assert lane.in_app == 0
        lane.wait_until_idle()
        assert recorded()[-1]["error"] == "quota_exceeded"

    def test_on_bytes_count_what_was_sent_and_no_more(self, lane):
        key = create_key(name="some", bytes_per_day=10 * SIZE).key
        path = link(key)
        lane.warm(path)
        counted = f"yt:limit:{key[3:11]}:bytes"
        wait_until(lambda: int(redis_client().hget(counted, "total")) == 100)
        with lane.paused(path):
            pass
        lane.wait_until_idle()
        sent = recorded()[-1]["bytes_sent"]
        assert 0 < sent < SIZE
        wait_until(lambda: int(redis_client().hget(counted, "total")) == 100 + sent)

    def test_on_a_file_s_size_are_the_application_s_to_refuse(self, lane):
        key = create_key(name="small", largest_file_bytes=1000).key
        assert lane.get(link(key)).status_code == 403
        assert lane.get(link(key)).json()["error"] == "file_too_large"

    def test_that_come_later_hold_for_streams_that_run(self, lane, key):
        from apps.keys.documents import ApiKey

        path = link(key)
        lane.warm(path)
        with lane.paused(path) as client:
            ApiKey.objects(prefix=key[3:11]).update(set__bytes_per_day=1_000_000)
            meters = lane.parts._backend._meters
            wait_until(lambda: meters.grant_of(key[3:11]).bytes_per_day == 1_000_000)
            assert read_rest(client) < SIZE
        lane.wait_until_idle()
        assert recorded()[-1]["error"] == "quota_exceeded"


class TestTurns:
    """Many begin at the same time."""

    class Begun:
        def __init__(self, went, number, *, fails=False):
            self.went, self.number, self.fails = went, number, fails

        def can_write(self):
            self.went.append(self.number)
            if self.fails:
                raise RuntimeError("a fault of ours")

    async def went(self, monkeypatch, turn_s, **fails):
        monkeypatch.setattr(long_streams, "BEGUN_TURN_S", turn_s)
        loop, went = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda *_: None)
        streams = long_streams.LongStreams(backend=None, running=None, recorder=None, log=None)
        for number in range(3):
            streams.go_on_soon(self.Begun(went, number, **(fails if number == 1 else {})))
        assert not went
        loop.call_soon(went.append, "another")
        for _ in range(10):
            await asyncio.sleep(0)
        return went

    async def test_others_come_before_more_of_what_has_begun(self, monkeypatch):
        assert await self.went(monkeypatch, 0.0) == [0, "another", 1, 2]

    async def test_little_goes_on_at_once(self, monkeypatch):
        assert await self.went(monkeypatch, 300.0) == [0, 1, 2, "another"]

    async def test_one_that_fails_does_not_hold_the_others_up(self, monkeypatch):
        assert await self.went(monkeypatch, 300.0, fails=True) == [0, 1, "another", 2]

    def test_the_first_bytes_come_together_with_the_head(self, lane, key, monkeypatch):
        """Before anything else of the stream, which here never comes."""
        monkeypatch.setattr(long_streams.LongStreams, "go_on_soon", lambda *_: None)
        path = link(key)
        lane.warm(path)
        with lane.paused(path) as client:
            received = b"HTTP/1.1 200"
            while len(received.partition(b"\r\n\r\n")[2]) < sending.FIRST_BYTES:
                received += client.recv(1 << 20)
            assert received.partition(b"\r\n\r\n")[2] == CONTENT[: sending.FIRST_BYTES]
            (stream,) = lane.parts.streams.long._open
            assert stream._at == sending.FIRST_BYTES


def test_an_open_file_is_shared_as_long_as_its_names_stand_for_it(lane, key, monkeypatch):
    monkeypatch.setattr(stream_lane, "HOLD_S", 300)
    store, opened = lane.parts.streams._store, []
    monkeypatch.setattr(store, "open", lambda *args: opened.append(args) or HotStore.open(store, *args))
    path = link(key)
    lane.warm(path)
    for _ in range(3):
        assert lane.get(path, Range=LONG).status_code == 206
    assert (len(opened), lane.in_app) == (1, 0)
    hot_store().remove(AUDIO.asset_id, 1)
    assert lane.parts.streams._find(AUDIO.asset_id, 1, "") is None


def test_short_ranges_have_the_headers_of_the_record_that_their_bytes_are_of(lane, key, monkeypatch):
    path = link(key)
    lane.warm(path)
    etag = lane.get(path, **SOME).headers["etag"]
    append = lane.parts.recorder.append

    async def append_while_another_request_sees_a_new_record(payload):
        await append(payload)
        for known in lane.parts.streams._links.values():
            known.lines = b'etag: "another"\r\n'

    monkeypatch.setattr(lane.parts.recorder, "append", append_while_another_request_sees_a_new_record)
    assert lane.get(path, **SOME).headers["etag"] == etag
    assert lane.get(path, **SOME).headers["etag"] == '"another"'
    assert lane.in_app == 0


def test_forged_and_old_links_are_the_application_s(lane, key):
    path = link(key)
    lane.warm(path)
    for other, error in (
        (path[:-1] + ("A" if path[-1] != "A" else "B"), "link_invalid"),
        (link(key, expires_at=int(time.time()) - 60), "link_expired"),
        (link(key, bound_to="10.1.2.3"), "ip_not_allowed"),
        (link(key, path=f"/stream/video/{VIDEO_ID}"), "link_invalid"),
    ):
        assert lane.get(other).json()["error"] == error
