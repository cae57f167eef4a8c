from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest

from apps.core import asgi, bridge, suspend
from apps.core.bridge import DjangoBridge, make_environ
from apps.core.request_state import BRIDGE, CHARGED, REQUEST_ID, STARTED_AT
from apps.core.wake import WakeHub, publish, wake_hub
from tests.core.serving import serving
from tests.waiting import Clock, wait_until


class Program:
    """A WSGI application whose addresses do what the tests need; ``ready`` ends the waiting of ``/wait``."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.runs = 0
        self.environs: list[dict[str, Any]] = []
        self.hold = threading.Event()
        self.closed = threading.Event()
        self.long_bytes = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.runs += 1
        self.environs.append(environ)
        path = environ["PATH_INFO"]
        if path == "/wait" and not self.ready.is_set():
            start_response("503 Waiting", [("X-Ytserver-Suspend", "t"), ("RateLimit-Limit", "7")])
            environ[CHARGED] = environ.get(CHARGED, 0) + 1
            return [b""]
        if path == "/hold":
            self.hold.wait(100)
        if path == "/long":
            start_response("200 OK", [("Content-Type", "application/octet-stream")])
            return self.long()
        body = environ["wsgi.input"].read()
        answer = json.dumps({"body": body.decode("latin-1"), "charged": environ.get(CHARGED)}).encode()
        start_response("200 OK", [("Content-Length", str(len(answer))), ("X-Id", environ[REQUEST_ID])])
        return [answer]

    def long(self) -> Iterator[bytes]:
        try:
            for _ in range(400):
                self.long_bytes += 64 * 1024
                yield b"x" * 64 * 1024
        finally:
            self.closed.set()


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.hold.set()
    made.ready.set()


class Served:
    """A bridge with the hub of its own event loop."""

    def __init__(self, program: Program, **options: Any) -> None:
        self.bridge = DjangoBridge(program, wake_hub, **options)
        self.hub: WakeHub | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.bridge(scope, receive, send)
            return
        await receive()
        self.hub = wake_hub()
        await self.hub.until_listening(timeout_s=60)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.bridge.close()
        await self.hub.aclose()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def url(program: Program) -> Iterator[str]:
    with serving(Served(program, threads=4)) as address:
        yield address


class TestBody:
    def test_hands_the_body_over_whole(self, url):
        body = "é" * 30_000
        assert httpx.post(url, content=body, timeout=60).json()["body"].encode("latin-1").decode() == body

    def test_takes_exactly_the_limit_and_not_a_byte_more(self, url):
        assert httpx.post(url, content=b"x" * 65536, timeout=60).status_code == 200
        answer = httpx.post(url, content=b"x" * 65537, timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        assert answer.headers["connection"] == "close"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]

    def test_refuses_a_chunked_body_that_grows_beyond_the_limit(self, url, program):
        answer = httpx.post(url, content=(b"x" * 1000 for _ in range(1000)), timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        assert program.runs == 0

    def test_a_chunked_body_within_the_limit_is_read(self, url, program):
        answer = httpx.post(url, content=(b"x" * 1000 for _ in range(60)), timeout=60)
        assert len(answer.json()["body"]) == 60_000
        assert program.environs[0]["CONTENT_LENGTH"] == "60000"

    def test_a_huge_announced_body_is_refused_without_reading_it(self, url):
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413")

    def test_a_body_that_trickles_in_times_out(self, url, program, monkeypatch):
        monkeypatch.setattr(asgi, "BODY_TIMEOUT_S", 0.3)
        monkeypatch.setattr(asgi, "LINGER_S", 0.2)
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab")
            answer = client.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer
        assert program.runs == 0

    def test_a_client_that_leaves_while_sending_its_body_is_forgotten(self, url, program):
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab")
        assert httpx.get(url, timeout=60).status_code == 200
        assert program.runs == 1


class TestEnviron:
    def test_a_header_with_an_underscore_cannot_pose_as_another(self, url, program):
        httpx.get(url, headers={"X_API_KEY": "false", "X-Api-Key": "true"}, timeout=60)
        assert program.environs[0]["HTTP_X_API_KEY"] == "true"

    def test_raw_bytes_in_the_query_become_percent_signs(self):
        scope = {
            "type": "http", "method": "GET", "path": "/", "query_string": b"a=\xff\xfe&b=%20+c", "headers": [],
            "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        assert make_environ(scope, b"")["QUERY_STRING"] == "a=%FF%FE&b=%20+c"

    def test_no_header_can_set_what_is_remembered_of_a_request(self, url, program):
        httpx.get(
            url, headers={"ytserver.charged": "x", "Ytserver-Charged": "x", "ytserver.key_prefix": "x"}, timeout=60
        )
        environ = program.environs[0]
        assert CHARGED not in environ
        assert environ[BRIDGE] is True
        assert isinstance(environ[STARTED_AT], float)

    def test_a_callers_request_id_is_kept_when_it_is_harmless(self, url):
        assert httpx.get(url, headers={"X-Request-Id": "my-id-12345"}, timeout=60).headers["x-id"] == "my-id-12345"
        made = httpx.get(url, headers={"X-Request-Id": 'evil"}{ id'}, timeout=60).headers["x-id"]
        assert len(made) == 32


class TestLongAnswers:
    def test_a_long_answer_arrives_whole(self, url, program):
        assert len(httpx.get(f"{url}/long", timeout=60).content) == 400 * 64 * 1024
        assert program.closed.is_set()

    async def test_keeps_little_of_a_long_answer_for_a_slow_reader(self, program):
        answering = asyncio.Event()

        async def receive():
            if not answering.is_set():
                return {"type": "http.request"}
            return await asyncio.Future()

        async def send(message):
            answering.set()
            if message["type"] == "http.response.body":
                await asyncio.Future()  # takes nothing

        bridge = DjangoBridge(program, wake_hub)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/long",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
        }
        task = asyncio.create_task(bridge(scope, receive, send))
        async with asyncio.timeout(60):
            await answering.wait()
        task.cancel()
        await asyncio.wait([task])
        bridge.close()
        assert program.long_bytes <= 128 * 1024

    def test_slow_readers_hold_no_thread(self, url, program):
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        readers = [socket.create_connection(address, timeout=60) for _ in range(12)]
        try:
            for reader in readers:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reader.recv(1) == b"H"
            assert httpx.get(url, timeout=60).status_code == 200
        finally:
            for reader in readers:
                reader.close()

    def test_a_reader_that_leaves_ends_the_work(self, url, program):
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as reader:
            reader.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reader.recv(1) == b"H"
        wait_until(program.closed.is_set)

    def test_head_has_no_body(self, url):
        answer = httpx.head(f"{url}/", timeout=60)
        assert (answer.status_code, answer.content) == (200, b"")


class TestQueue:
    def test_more_than_the_queue_holds_are_told_to_come_back(self, program):
        served = Served(program, threads=1, max_queued=2)
        with serving(served) as url:
            held = [self.start(f"{url}/hold") for _ in range(3)]
            wait_until(lambda: served.bridge._running == 3)
            answer = httpx.get(url, timeout=60)
            assert (answer.json()["error"], answer.headers["retry-after"]) == ("overloaded", "1")
            program.hold.set()
            for thread, statuses in held:
                thread.join(timeout=60)
                assert statuses == [200]
            assert httpx.get(url, timeout=60).status_code == 200

    def test_two_run_at_once_while_the_process_computes(self, program, monkeypatch):
        monkeypatch.setattr("apps.core.adaptive_threads.BUSY_SHARE", -1)  # whatever it uses is too much
        served = Served(program)
        with serving(served) as url:
            held = [self.start(f"{url}/hold") for _ in range(5)]
            wait_until(lambda: len(served.bridge._threads._new) == 3)  # two of five have a thread
            assert served.bridge._running == 5
            program.hold.set()
            for thread, statuses in held:
                thread.join(timeout=60)
                assert statuses == [200]

    @staticmethod
    def start(url: str) -> tuple[threading.Thread, list[int]]:
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(httpx.get(url, timeout=110).status_code))
        thread.start()
        return thread, statuses


@pytest.mark.usefixtures("redis_server")
class TestSuspended:
    async def test_is_run_again_when_its_topic_is_published_and_is_charged_once(self, url, program):
        async with httpx.AsyncClient(timeout=60) as client:
            waiting = asyncio.create_task(client.post(f"{url}/wait", content=b"the body"))
            await asyncio.to_thread(wait_until, lambda: program.runs >= 1)
            program.ready.set()
            publish("t")
            answer = await waiting
        assert answer.json() == {"body": "the body", "charged": 1}
        assert "x-ytserver-suspend" not in answer.headers
        assert len({environ[REQUEST_ID] for environ in program.environs}) == 1
        assert len({environ[STARTED_AT] for environ in program.environs}) == 1

    async def test_sees_a_change_whose_message_was_lost(self, url, program):
        assert bridge.RECHECK_S <= 1
        async with httpx.AsyncClient(timeout=60) as client:
            waiting = asyncio.create_task(client.get(f"{url}/wait"))
            await asyncio.to_thread(wait_until, lambda: program.runs >= 1)
            program.ready.set()
            assert (await waiting).status_code == 200

    async def test_500_of_them_leave_the_threads_to_others_and_all_wake_up(self, url, program, monkeypatch):
        monkeypatch.setattr(bridge, "time", Clock())  # nobody's turn to look again comes
        async with self.many_clients() as client:
            waiting = [asyncio.create_task(self.status_of(client, f"{url}/wait")) for _ in range(500)]
            await asyncio.to_thread(wait_until, lambda: program.runs >= 500)
            for _ in range(20):
                assert await self.status_of(client, f"{url}/") == 200
            assert not any(task.done() for task in waiting)
            program.ready.set()
            publish("t")
            statuses = await asyncio.gather(*waiting)
        assert program.runs == 500 + 20 + 500
        assert set(statuses) == {200}

    async def test_one_that_sees_the_change_wakes_the_others(self, url, program, monkeypatch):
        monkeypatch.setattr(bridge, "RECHECKS_PER_S", 0.01)  # one each second, and no one's own turn ever comes
        async with self.many_clients() as client:
            waiting = [asyncio.create_task(self.status_of(client, f"{url}/wait")) for _ in range(500)]
            await asyncio.to_thread(wait_until, lambda: program.runs >= 500)
            program.ready.set()  # and no message at all
            statuses = await asyncio.gather(*waiting)
        assert set(statuses) == {200}

    async def test_woken_ones_in_line_leave_the_places_to_new_ones(self, program, monkeypatch):
        monkeypatch.setattr(bridge, "time", Clock())  # nobody's turn to look again comes
        served = Served(program, threads=1, most_threads=1, max_queued=1)
        with serving(served) as url:
            async with self.many_clients() as client:
                waiting = []
                for _ in range(6):
                    waiting.append(asyncio.create_task(self.status_of(client, f"{url}/wait")))
                    await asyncio.to_thread(wait_until, lambda: served.bridge._suspended == len(waiting))
                holding = asyncio.create_task(self.status_of(client, f"{url}/hold"))
                await asyncio.to_thread(wait_until, lambda: program.runs == 7)
                program.ready.set()
                publish("t")
                await asyncio.to_thread(wait_until, lambda: len(served.bridge._threads._again) == 6)
                new = asyncio.create_task(self.status_of(client, f"{url}/"))
                await asyncio.to_thread(wait_until, lambda: served.bridge._running == 2)
                program.hold.set()
                assert set(await asyncio.gather(holding, new, *waiting)) == {200}

    @staticmethod
    def many_clients() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))

    @staticmethod
    async def status_of(client: aiohttp.ClientSession, url: str) -> int:
        async with client.get(url) as answer:
            await answer.read()
            return answer.status

    def test_a_client_that_leaves_is_not_run_again(self, program):
        served = Served(program, threads=2)
        with serving(served) as url:
            with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as client:
                client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
                wait_until(lambda: served.bridge._suspended == 1)
            wait_until(lambda: served.bridge._suspended == 0)
            assert served.bridge._topics == {}
            assert served.hub is not None
            assert served.hub._waiters == {}

    def test_more_than_may_wait_are_told_to_come_back_with_their_limit(self, program):
        served = Served(program, threads=2, max_suspended=1)
        with serving(served) as url:
            thread, statuses = TestQueue.start(f"{url}/wait")
            wait_until(lambda: served.bridge._suspended == 1)
            answer = httpx.get(f"{url}/wait", timeout=60)
            assert (answer.status_code, answer.json()["error"]) == (503, "overloaded")
            assert answer.headers["ratelimit-limit"] == "7"
            program.ready.set()
            publish("t")
            thread.join(timeout=60)
            assert statuses == [200]

    def test_a_view_that_never_ends_its_wait_is_ended_after_the_longest_wait(self, url, program, monkeypatch):
        monkeypatch.setattr(bridge, "MAX_WAIT_S", 0.2)
        answer = httpx.get(f"{url}/wait", timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (504, "upstream_timeout")
        assert answer.headers["retry-after"] == "5"
        assert "x-ytserver-suspend" not in answer.headers
        assert suspend.MAX_WAIT_S == 60
