"""Streams of files that are still being fetched, by a writer in another process."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import psutil
import pytest

from apps.core.asgi import Message
from apps.core.errors import UpstreamUnreachable, VideoUnavailable
from apps.streaming.app import FIRST_BYTES, StreamApp
from apps.streaming.hotstore import BLOCK_BYTES, HotStore
from tests.streaming.media import ASSET, make_bytes, start_process
from tests.streaming.serving import (
    QUICK,
    VIDEO_ID,
    Running,
    TableBackend,
    TableMeter,
    connect_and_pause,
    run_curl,
    serve,
)
from tests.waiting import wait_until

PATH = f"/stream/video/{VIDEO_ID}"
SIZE = 2 * BLOCK_BYTES + 777
DATA = make_bytes(SIZE, seed=4)
WRITER = f"""
    data = media.make_bytes({SIZE}, seed=4)
    writer = store.create(ASSET, 1, resume=True)
    say("ready")
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "size":
            writer.set_size({SIZE})
        elif word == "to":
            while writer.frontier < int(number):
                writer.append(data[writer.frontier : min(writer.frontier + 65_432, int(number))])
        else:
            getattr(writer, word)()
        say(word)
"""


class Writer:
    """A fetch in another process, told step by step what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._hear("ready")

    def _hear(self, word: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == word

    def do(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        self._hear(command.split()[0])


@contextmanager
def start_writer(store: HotStore) -> Iterator[Writer]:
    with start_process(store.root, WRITER) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


@pytest.fixture
def quick_server(store: HotStore) -> Iterator[Running]:
    """It soon gives up a fetch that does not move."""
    with serve(store, TableBackend(), QUICK) as running:
        running.backend.add(DATA, finished=False)
        yield running


@pytest.fixture
def server(store: HotStore) -> Iterator[Running]:
    with serve(store, TableBackend()) as running:
        running.backend.add(DATA, finished=False)
        yield running


def take(pieces: Iterator[bytes], at_least: int) -> bytes:
    got = b""
    while len(got) < at_least:
        got += next(pieces)
    return got


class TestGrowingFile:
    def test_bytes_reach_the_client_as_they_arrive(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 1000")
            with server.http.stream("GET", server.video) as answer:
                assert answer.headers["content-length"] == str(SIZE)
                pieces = answer.iter_raw()
                got = take(pieces, 1000)
                for frontier in (1001, 70_000, BLOCK_BYTES + 5):
                    writer.do(f"to {frontier}")
                    got += take(pieces, frontier - len(got))
                    assert len(got) == frontier
                writer.do(f"to {SIZE}")
                writer.do("finish")
                got += b"".join(pieces)
        assert got == DATA
        server.wait_until_idle()

    def test_an_unknown_size_is_sent_in_chunks_without_ranges(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("to 5000")
            with server.http.stream("GET", server.video, headers={"Range": "bytes=10-20"}) as answer:
                assert answer.status_code == 200
                assert answer.headers["transfer-encoding"] == "chunked"
                assert "accept-ranges" not in answer.headers
                pieces = answer.iter_raw()
                got = take(pieces, 5000)
                writer.do("size")
                writer.do(f"to {SIZE}")
                writer.do("finish")
                got += b"".join(pieces)
            head = server.http.head(server.video)
        assert got == DATA
        assert head.headers["content-length"] == str(SIZE)

    @pytest.mark.parametrize("sized", [True, False])
    def test_if_match_of_a_file_that_is_still_coming(self, server: Running, sized: bool) -> None:
        etag = server.backend.targets[VIDEO_ID].etag
        with start_writer(server.store) as writer:
            if sized:
                writer.do("size")
            writer.do("to 5000")
            for method in ("GET", "HEAD"):
                for fits in (etag, "*"):
                    with server.http.stream(method, server.video, headers={"If-Match": fits}) as answer:
                        assert (answer.status_code, answer.headers["etag"]) == (200, etag)
                with server.http.stream(method, server.video, headers={"If-Match": '"x"'}) as answer:
                    assert answer.status_code == 412
            server.wait_until_idle()

    def test_if_match_is_looked_at_anew_when_another_file_comes_instead(self, server: Running) -> None:
        old = server.backend.targets[VIDEO_ID]
        server.backend.targets[VIDEO_ID] = renewed = replace(old, generation=2, etag=f'"{ASSET}-2"')
        server.backend.renewals = [renewed]
        server.backend.opened = old
        answer = server.http.get(server.video, headers={"If-Match": old.etag})
        assert (answer.status_code, answer.json()["error"]) == (412, "precondition_failed")
        assert server.backend.renewals == []

    def test_a_file_of_unknown_size_is_cut_where_it_becomes_too_large_for_the_key(self, server: Running) -> None:
        server.backend.meter = TableMeter(limit=9, largest=100_000)
        with start_writer(server.store) as writer:
            writer.do("to 5000")
            got: list[bytes] = []
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                got.append(take(pieces, 5000))
                writer.do(f"to {SIZE}")
                with pytest.raises(httpx.RemoteProtocolError):
                    got.extend(pieces)
            assert 5000 <= len(b"".join(got)) <= 100_000
            writer.do("size")
            late = server.http.get(server.video)
            assert (late.status_code, late.json()["error"]) == (403, "file_too_large")
            server.backend.meter = TableMeter(limit=9, largest=SIZE)
            writer.do("finish")
            assert server.http.get(server.video).content == DATA
        server.wait_until_idle()

    def test_a_range_waits_for_what_will_arrive(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 100")
            early = server.http.get(server.video, headers={"Range": "bytes=10-19"})
            assert (early.status_code, early.content) == (206, DATA[10:20])
            client = connect_and_ask(server, f"bytes={SIZE - 10}-")
            wait_until(lambda: len(server.app.followers) == 1)
            writer.do(f"to {SIZE - 50}")
            assert len(server.app.followers) == 1
            writer.do(f"to {SIZE}")
            answer = b""
            while piece := client.recv(4096):
                answer += piece
            client.close()
        assert answer.startswith(b"HTTP/1.1 206")
        assert answer.endswith(b"\r\n\r\n" + DATA[-10:])

    def test_many_clients_share_one_follower(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 10")
            clients = [connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}") for _ in range(30)]
            wait_until(lambda: len(server.app.running) == 30)
            wait_until(lambda: len(server.app.followers) == 1)
            writer.do(f"to {SIZE}")
            writer.do("finish")
            for client in clients:
                client.close()
        server.wait_until_idle()

    async def test_all_who_wait_have_a_first_byte_before_anybody_has_much(self, store: HotStore) -> None:
        backend = TableBackend()
        backend.add(DATA, finished=False)
        app = StreamApp(backend, store)
        sent: list[tuple[int, bytes]] = []

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def ask(client: int) -> None:
            async def send(message: Message) -> None:
                if message.get("body"):
                    sent.append((client, bytes(message["body"])))

            await app(
                {
                    "type": "http", "method": "GET", "path": f"/stream/video/{VIDEO_ID}", "query_string": b"",
                    "headers": [],
                },
                receive,
                send,
            )  # fmt: skip

        def waiting() -> int:
            return sum(len(follower._waiters) for follower in app.followers._by_file.values())

        with store.create(ASSET, 1, resume=False) as writer:
            writer.set_size(SIZE)
            asking = [asyncio.create_task(ask(client)) for client in range(20)]
            await asyncio.to_thread(wait_until, lambda: waiting() == 20)
            writer.append(DATA)
            writer.finish()
        await asyncio.gather(*asking)
        assert sorted(client for client, _ in sent[:20]) == list(range(20))
        assert sum(len(body) for _, body in sent[:20]) < SIZE
        for client in range(20):
            assert b"".join(body for sender, body in sent if sender == client) == DATA

    @pytest.mark.parametrize("comes_back", [False, True])
    async def test_somebody_new_has_a_first_byte_before_all_others_have_more(
        self, store: HotStore, comes_back: bool
    ) -> None:
        backend = TableBackend()
        target = backend.add(DATA, finished=comes_back)
        app = StreamApp(backend, store)
        sent = [0] * 21
        tasks: list[asyncio.Task[None]] = []
        all_begun = asyncio.Event()
        ahead: list[int] = []  # clients that had more than their first bytes when the new one had one

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def ask(client: int) -> None:
            async def send(message: Message) -> None:
                if not message.get("body"):
                    return
                sent[client] += len(message["body"])
                if client == 20 and not ahead:
                    ahead.append(sum(size > FIRST_BYTES for size in sent))
                elif client < 20 and min(sent[:20]) and len(tasks) == 20:
                    tasks.append(asyncio.create_task(ask(20)))
                    all_begun.set()

            await app(
                {
                    "type": "http", "method": "GET", "path": f"/stream/video/{VIDEO_ID}", "query_string": b"",
                    "headers": [],
                },
                receive,
                send,
            )  # fmt: skip

        if comes_back:
            store.open_sparse(ASSET, 1, size_bytes=SIZE, block_hashes=target.block_hashes).close()
        else:
            with store.create(ASSET, 1, resume=False) as writer:
                writer.set_size(SIZE)
                writer.append(DATA)
        tasks.extend(asyncio.create_task(ask(client)) for client in range(20))
        async with asyncio.timeout(60):
            await all_begun.wait()
            await asyncio.gather(*tasks)
        assert ahead[0] < 10
        assert sent == [SIZE] * 21

    def test_clients_that_leave_or_take_nothing_delay_nobody_and_leave_nothing_open(self, server: Running) -> None:
        own = psutil.Process()
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do(f"to {BLOCK_BYTES}")
            connect_and_pause(server.port, PATH).close()
            server.wait_until_idle()
            open_before = own.num_fds()
            paused = [connect_and_pause(server.port, PATH) for _ in range(20)]
            leaving = [connect_and_pause(server.port, PATH) for _ in range(20)]
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                got = take(pieces, BLOCK_BYTES)
                for client in leaving:
                    client.close()
                writer.do(f"to {SIZE}")
                writer.do("finish")
                got += b"".join(pieces)
            assert got == DATA
            assert len(server.app.running) >= len(paused)
            for client in paused:
                client.close()
            server.wait_until_idle()
            wait_until(lambda: own.num_fds() <= open_before, what="as few file descriptors as before")

    @pytest.mark.parametrize("sized", [True, False])
    def test_a_failed_fetch_cuts_the_stream_visibly(self, quick_server: Running, sized: bool) -> None:
        server = quick_server
        with start_writer(server.store) as writer:
            if sized:
                writer.do("size")
            writer.do("to 1000")
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                take(pieces, 1000)
                server.backend.fetch_errors[ASSET] = UpstreamUnreachable()
                writer.do("fail")
                with pytest.raises(httpx.RemoteProtocolError):
                    list(pieces)
            del server.backend.fetch_errors[ASSET]
            curl = run_curl("-sf", "-o", "/dev/null", server.video)
            assert curl.returncode == 18
        server.wait_until_idle()

    def test_a_failed_fetch_before_the_first_byte_is_its_error(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            server.backend.fetch_errors[ASSET] = VideoUnavailable()
            writer.do("fail")
            answer = server.http.get(server.video)
        assert (answer.status_code, answer.json()["error"]) == (404, "video_unavailable")

    def test_a_killed_writer_ends_in_a_cut_after_the_stall_limit(self, quick_server: Running) -> None:
        server = quick_server
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 1000")
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                take(pieces, 1000)
                writer.process.kill()
                with pytest.raises(httpx.RemoteProtocolError):
                    list(pieces)
        late = server.http.get(server.video, headers={"Range": "bytes=5000-"})
        assert (late.status_code, late.json()["error"]) == (504, "upstream_timeout")
        assert late.headers["retry-after"] == "5"

    def test_a_stream_goes_on_when_the_fetch_is_resumed_by_another_process(self, server: Running) -> None:
        with start_writer(server.store) as first:
            first.do("size")
            first.do("to 100000")
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                got = take(pieces, 100_000)
                first.process.kill()
                first.process.wait()
                with start_writer(server.store) as second:
                    second.do(f"to {SIZE}")
                    second.do("finish")
                    got += b"".join(pieces)
        assert hashlib.sha256(got).digest() == hashlib.sha256(DATA).digest()

    def test_an_asset_fetched_anew_ends_the_old_streams(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 1000")
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                take(pieces, 1000)
                target = server.backend.targets[VIDEO_ID]
                server.backend.targets[VIDEO_ID] = replace(target, generation=2)
                with pytest.raises(httpx.RemoteProtocolError):
                    list(pieces)

    def test_a_fetch_finished_elsewhere_goes_on_from_the_record(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 1000")
            with server.http.stream("GET", server.video) as answer:
                pieces = answer.iter_raw()
                got = take(pieces, 1000)
                writer.process.kill()
                server.backend.add(DATA)
                got += b"".join(pieces)
        assert got == DATA

    def test_waits_for_a_file_that_is_not_there_yet(self, server: Running) -> None:
        client = connect_and_ask(server, "bytes=0-4")
        wait_until(lambda: server.backend.refreshed > 0)
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 5")
            answer = client.recv(4096)
            client.close()
        assert answer.startswith(b"HTTP/1.1 206")

    def test_a_range_counts_also_when_the_size_is_told_after_the_request(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            client = connect_and_ask(server, "bytes=3-4")
            wait_until(lambda: len(server.app.followers) == 1)
            writer.do("size")
            writer.do("to 5")
            answer = client.recv(4096)
            client.close()
        assert answer.startswith(b"HTTP/1.1 206")

    def test_a_file_that_never_comes_is_a_time_out(self, quick_server: Running) -> None:
        answer = quick_server.http.get(quick_server.video)
        assert (answer.status_code, answer.json()["error"]) == (504, "upstream_timeout")
        assert answer.headers["retry-after"] == "5"

    def test_a_client_that_leaves_ends_the_following(self, server: Running) -> None:
        with start_writer(server.store) as writer:
            writer.do("size")
            writer.do("to 100")
            client = connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}")
            wait_until(lambda: len(server.app.followers) == 1)
            client.close()
            server.wait_until_idle()


def connect_and_ask(server: Running, byte_range: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = f"GET /stream/video/{VIDEO_ID} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nRange: {byte_range}"
    client.sendall(f"{head}\r\n\r\n".encode())
    return client
