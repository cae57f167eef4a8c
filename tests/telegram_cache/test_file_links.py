"""Downloads by file links over real sockets: connections are used again, and broken off when nobody wants them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from apps.telegram_cache.clients import file_links
from apps.telegram_cache.clients.errors import TelegramUncertain, TelegramUnreachable
from apps.telegram_cache.clients.file_links import FileLinks

DATA = bytes(range(256)) * 40
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Server:
    """Answers each connection from a list of byte strings, one a request; after the last one it closes."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.connections = list(connections)
        self.accepted = 0
        self.ended = threading.Event()  # the client closed or broke off a connection that had no answer left
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/file"

    def serve(self) -> None:
        with suppress(OSError):
            while self.connections:
                client, _ = self._listener.accept()
                self.accepted += 1
                with client:
                    self._answer(client, self.connections.pop(0))

    def _answer(self, client: socket.socket, answers: list[bytes]) -> None:
        for answer in answers:
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                asked += client.recv(4096)
            client.sendall(answer)
            if len(answer) < len(DATA):  # a part of one: wait until the client leaves
                client.recv(1)
                self.ended.set()

    def close(self) -> None:
        self._listener.close()


@contextmanager
def running(*connections: list[bytes]) -> Iterator[Server]:
    server = Server(*connections)
    thread = threading.Thread(target=server.serve, name="server")
    thread.start()
    yield server
    server.close()
    thread.join(timeout=20)


async def read(links: FileLinks) -> bytes:
    got: list[bytes] = []
    sizes = [4096, 4096, len(DATA) - 8192]
    await links.read("1:x", "documents/file 1.bin", sizes=sizes, take=lambda block: got.append(bytes(block)))
    return b"".join(got)


WHOLE = HEAD % len(DATA) + DATA


async def test_one_connection_serves_one_file_after_the_other():
    with running([WHOLE, WHOLE]) as server:
        links = FileLinks(server.url)
        assert [await read(links), await read(links)] == [DATA, DATA]
        assert server.accepted == 1
        links.close()


async def test_a_kept_connection_that_the_server_closed_is_replaced():
    with running([WHOLE], [WHOLE]) as server:
        links = FileLinks(server.url)
        assert [await read(links), await read(links)] == [DATA, DATA]
        assert server.accepted == 2
        links.close()


async def test_a_server_that_is_not_there_is_unreachable():
    with running() as server:
        links = FileLinks(server.url)
    with pytest.raises(TelegramUnreachable):
        await read(links)
    links.close()


async def test_an_answer_that_is_not_http_is_no_crash():
    with running([b"hello" * 5000]) as server:
        links = FileLinks(server.url)
        with pytest.raises(TelegramUncertain):
            await read(links)
        links.close()


async def test_a_server_that_says_nothing_more_is_left(monkeypatch):
    monkeypatch.setattr(file_links, "SILENCE_LIMIT_S", 0.2)
    with running([HEAD % len(DATA) + DATA[:5000]]) as server:
        links = FileLinks(server.url)
        with pytest.raises(TelegramUncertain):
            await read(links)
        assert await asyncio.to_thread(server.ended.wait, 20)
        links.close()


@pytest.mark.parametrize(
    "answer",
    [HEAD % (len(DATA) + 5) + DATA + b"extra", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + DATA,
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)],
    ids=["longer", "no length", "chunked"],
)  # fmt: skip
async def test_bodies_of_other_forms_are_read_too(answer):
    with running([answer]) as server:
        links = FileLinks(server.url)
        assert await read(links) == DATA
        links.close()


async def test_cancelling_breaks_the_connection_off():
    with running([HEAD % len(DATA) + DATA[:5000]]) as server:
        links = FileLinks(server.url)
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(
            links.read("1:x", "f", sizes=[4096, 6144], take=lambda _: loop.call_soon_threadsafe(begun.set))
        )
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await asyncio.to_thread(server.ended.wait, 20)
        links.close()
