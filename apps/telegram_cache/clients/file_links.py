"""Downloads files by their links in threads: received into one buffer, block by block, without passing the event loop.

Receiving, hashing and writing each take one call for a block and release the interpreter's lock, so that a few threads
use every core, and bytes are copied once. (Measured: 3.5 ms of processor time for a MiB through the event loop, about
half of that here.)
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlsplit

from apps.telegram_cache.clients.errors import FileLinkGone, TelegramRefused, TelegramUncertain, TelegramUnreachable
from apps.telegram_cache.clients.link_status import check_link_status

MAX_DOWNLOADS = 256
CONNECT_LIMIT_S = 10.0
SILENCE_LIMIT_S = 20.0
FILE_LIMIT_S = 600.0
KEPT_CONNECTIONS = 16
KEPT_S = 15.0

TakeBlock = Callable[[memoryview], None]


class FileLinks:
    """Connections to the server of file links. For one event loop; close it with ``close``."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port, self._base_path = parts.hostname or "", parts.port, parts.path
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._threads = ThreadPoolExecutor(MAX_DOWNLOADS, thread_name_prefix="telegram-file")
        self._kept: deque[tuple[float, http.client.HTTPConnection]] = deque()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give up the threads and connections. Downloads must have ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            while self._kept:
                self._kept.popleft()[1].close()

    async def read(self, token: str, file_path: str, *, sizes: list[int], take: TakeBlock) -> None:
        """Download the file's blocks of these ``sizes`` and give each to ``take``, in a thread, one after the other.

        Returns once all are taken. What ``take`` raises comes out. Raises FileLinkGone, TelegramRefused,
        TelegramUncertain (cut, slow, 5xx), TelegramUnreachable. Cancelling breaks the connection off and waits until
        the thread has ended.
        """
        download = _Download(self, f"{self._base_path}/bot{token}/{quote(file_path, safe='/%:+=,@')}", sizes, take)
        running = asyncio.get_running_loop().run_in_executor(self._threads, download.run)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            download.break_off()
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # nobody wants to know any more
            raise

    def take_connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it has been used before."""
        with self._lock:
            while self._kept:
                kept_until, connection = self._kept.pop()
                if kept_until > time.monotonic():
                    return connection, True
                connection.close()
        return self.new_connection(), False

    def new_connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_LIMIT_S, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_LIMIT_S)

    def keep_connection(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._kept.append((time.monotonic() + KEPT_S, connection))
            if len(self._kept) > KEPT_CONNECTIONS:
                self._kept.popleft()[1].close()


class _Download:
    """One file on its way, in one thread."""

    def __init__(self, links: FileLinks, path: str, sizes: list[int], take: TakeBlock) -> None:
        self._links = links
        self._path = path
        self._sizes = sizes
        self._take = take
        self._broken_off = False
        self._socket: socket.socket | None = None

    def break_off(self) -> None:
        """From any thread: the download ends at once."""
        self._broken_off = True
        if (connected := self._socket) is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Raises what ``FileLinks.read`` says."""
        if self._broken_off:
            raise TelegramUncertain("the download was stopped")
        connection, is_used = self._links.take_connection()
        try:
            response = self._ask(connection, is_used=is_used)
        except _ClosedMeanwhile:
            connection = self._links.new_connection()
            response = self._ask(connection, is_used=False)
        is_whole = False
        try:
            check_link_status(response.status, {"Retry-After": response.getheader("Retry-After", "")})
            with _mapped_errors():
                self._receive(response)
            is_whole = response.isclosed() and not response.will_close
        finally:
            self._socket = None
            if is_whole and not self._broken_off:
                self._links.keep_connection(connection)
            else:
                response.close()
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection, *, is_used: bool) -> http.client.HTTPResponse:
        try:
            if connection.sock is None:
                with _mapped_errors(unreachable=True):
                    connection.connect()
            self._socket = connection.sock
            if self._broken_off:
                raise TelegramUncertain("the download was stopped")
            connection.sock.settimeout(SILENCE_LIMIT_S)
            with _mapped_errors(closed_meanwhile=is_used):
                connection.request("GET", self._path, headers={"Accept-Encoding": "identity"})
                return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _receive(self, response: http.client.HTTPResponse) -> None:
        deadline = time.monotonic() + FILE_LIMIT_S
        buffer = memoryview(bytearray(max(self._sizes)))
        read_into = self._direct_reader(response) or response.readinto
        for size in self._sizes:
            filled = 0
            while filled < size:
                count = read_into(buffer[filled:size])
                if not count:
                    raise TelegramUncertain("the file ended too early")
                filled += count
                if self._broken_off or time.monotonic() > deadline:
                    raise TelegramUncertain("the download was stopped")
            self._take(buffer[:size])

    def _direct_reader(self, response: http.client.HTTPResponse) -> Callable[[memoryview], int] | None:
        """Has the kernel fill a whole block in one call: no waking up for each packet. None where that cannot be done
        (TLS, chunks, another length than asked for).
        """
        connected, size = self._socket, sum(self._sizes)
        if connected is None or isinstance(connected, ssl.SSLSocket) or response.chunked or response.length != size:
            return None
        # With a time limit of Python's the socket does not block, and the kernel does not wait for the whole block.
        connected.settimeout(None)
        limit = struct.pack("ll", int(SILENCE_LIMIT_S), int(SILENCE_LIMIT_S % 1 * 1_000_000))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        read_ahead = len(response.fp.peek())  # came along with the head
        left = size

        def read_into(view: memoryview) -> int:
            nonlocal read_ahead, left
            if read_ahead:
                count = response.readinto(view[:read_ahead])
                read_ahead -= count
            else:
                count = connected.recv_into(view, 0, socket.MSG_WAITALL)
            left -= count
            if not left:
                response.close()  # read to its end, past its back: the connection is free for the next file
            return count

        return read_into


class _ClosedMeanwhile(Exception):
    """The server had closed a connection that was kept: ask again on a new one."""


@contextmanager
def _mapped_errors(*, unreachable: bool = False, closed_meanwhile: bool = False) -> Iterator[None]:
    """What sockets and http.client raise, as ours; their own texts may hold the address, and that holds the token."""
    try:
        yield
    except (FileLinkGone, TelegramRefused, TelegramUncertain):
        raise
    except (OSError, http.client.HTTPException) as error:
        name = type(error).__name__
        if unreachable:
            raise TelegramUnreachable("the file link cannot be reached") from None
        if closed_meanwhile and isinstance(error, (ConnectionError, http.client.RemoteDisconnected)):
            raise _ClosedMeanwhile from None
        raise TelegramUncertain(f"the file link broke off ({name})") from None
