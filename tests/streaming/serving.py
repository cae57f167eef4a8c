"""A real uvicorn around the stream application, and a backend with its own table of assets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from apps.core.errors import ApiError, FileTooLarge, KeyInvalid, NotFound, QuotaExceeded, TooManyStreams
from apps.core.listener import bind_listener
from apps.streaming.app import StreamApp
from apps.streaming.hotstore import HotFile, HotStore
from apps.streaming.ports import StreamRequest, StreamTarget
from apps.streaming.timing import StreamTiming
from tests.streaming.media import ASSET, block_hashes, block_of
from tests.waiting import wait_until

VIDEO_ID = "dQw4w9WgXcQ"
CURL = shutil.which("curl")
# Patient as the real one, so that no slow machine ends a stream; QUICK for the tests of what never comes.
PATIENT = StreamTiming(refresh_s=0.1, key_check_s=0.1)
QUICK = replace(PATIENT, stall_s=1.5)


@dataclass
class TableFiller:
    """Blocks "from elsewhere": a table of bytes, with faults."""

    content: dict[str, bytes] = field(default_factory=dict)
    filled: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)
    into: HotFile | None = None  # fill this file rather than the one that is asked for

    async def fill(self, target: StreamTarget, hot_file: HotFile, block: int) -> None:
        await asyncio.sleep(0)
        if block in self.stuck:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(block)
        if block in self.errors:
            raise self.errors[block]
        self.filled.append(block)
        into, self.into = self.into or hot_file, None
        into.put_block(block, block_of(self.content[target.asset_id], block), sha256=target.block_hashes[block])


@dataclass
class TableMeter:
    """Lets ``limit`` streams and ``left`` bytes through."""

    limit: int = 1
    left: int = 10**9
    largest: int = 10**9
    open_now: int = 0

    async def open(self) -> None:
        if self.open_now >= self.limit:
            raise TooManyStreams
        self.open_now += 1

    def take(self, wanted: int) -> int:
        taken = min(wanted, self.left)
        self.left -= taken
        return taken

    def check_size(self, size_bytes: int) -> None:
        if size_bytes > self.largest:
            raise FileTooLarge

    async def refill(self) -> None:
        raise QuotaExceeded

    def close(self) -> None:
        self.open_now = max(0, self.open_now - 1)


@dataclass
class TableBackend:
    """Who may have what, from tables. The key is the query field ``key``."""

    targets: dict[str, StreamTarget] = field(default_factory=dict)
    filler: TableFiller = field(default_factory=TableFiller)
    revoked: set[str] = field(default_factory=set)
    networks_gone: set[str] = field(default_factory=set)
    fetch_errors: dict[str, ApiError] = field(default_factory=dict)
    opened: StreamTarget | None = None  # what open_target gives, though the table has another one by now
    renewals: list[StreamTarget] = field(default_factory=list)  # what renew_target gives, one after the other
    meter: TableMeter | None = None
    refreshed: int = 0
    checked_at: list[float] = field(default_factory=list)

    def add(
        self, data: bytes | None, *, size: int | None = None, finished: bool = True, video_id: str = VIDEO_ID
    ) -> StreamTarget:
        target = StreamTarget(
            asset_id=ASSET,
            generation=1,
            size_bytes=len(data) if data is not None and finished else size,
            mime="video/mp4",
            file_name="Ünïcode title.mp4",
            attachment=False,
            block_hashes=block_hashes(data) if data is not None and finished else (),
            etag=f'"{ASSET}-1"',
            key_prefix="abcdefgh",
        )
        self.targets[video_id] = target
        if data is not None:
            self.filler.content[ASSET] = data
        return target

    async def open_target(self, request: StreamRequest) -> StreamTarget:
        await asyncio.sleep(0)
        key = request.query.get("key", "abcdefgh")
        if key in self.revoked:
            raise KeyInvalid
        if request.video_id not in self.targets:
            raise NotFound
        target = self.opened or self.targets[request.video_id]
        return replace(
            target,
            key_prefix=key,
            attachment=request.query.get("download") == "1",
            meter=self.meter,
            opened_from=request.query.get("from", ""),
        )

    async def refresh_target(self, target: StreamTarget) -> StreamTarget:
        self.refreshed += 1
        if target.asset_id in self.fetch_errors:
            raise self.fetch_errors[target.asset_id]
        return next(each for each in self.targets.values() if each.asset_id == target.asset_id)

    async def renew_target(self, target: StreamTarget) -> StreamTarget:
        self.filler.errors.clear()
        return self.renewals.pop(0)

    async def still_allowed(self, target: StreamTarget) -> bool:
        self.checked_at.append(asyncio.get_running_loop().time())
        return target.key_prefix not in self.revoked

    def is_let_in(self, target: StreamTarget) -> bool:
        return target.opened_from not in self.networks_gone


@dataclass
class Running:
    """A server that runs."""

    url: str
    port: int
    app: StreamApp
    backend: TableBackend
    store: HotStore
    http: httpx.Client

    @property
    def video(self) -> str:
        return f"{self.url}/stream/video/{VIDEO_ID}"

    def wait_until_idle(self) -> None:
        wait_until(lambda: len(self.app.running) == 0 and len(self.app.followers) == 0, what="the end of all streams")


def make_server(app: StreamApp) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False)
    )


@contextmanager
def serve(store: HotStore, backend: TableBackend, timing: StreamTiming = PATIENT) -> Iterator[Running]:
    listener = bind_listener("127.0.0.1", 0)
    app = StreamApp(backend, store, timing)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="uvicorn")
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)  # client and server share one interpreter here and hand over at each packet
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server's start")
        port = listener.getsockname()[1]
        with httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as http:
            yield Running(f"http://127.0.0.1:{port}", port, app, backend, store, http)
    finally:
        sys.setswitchinterval(switch_interval)
        server.should_exit = server.force_exit = True
        thread.join(timeout=60)
        listener.close()


def run_curl(*options: str | Path, check: bool = False) -> subprocess.CompletedProcess[bytes]:
    """curl with these options, to its end; skips the test where there is none."""
    if CURL is None:
        pytest.skip("curl is not installed (Debian: apt install curl)")
    return subprocess.run([CURL, *options], check=check, timeout=120, capture_output=True)


def connect_and_pause(port: int, path: str, *, receive_buffer: int = 4096) -> socket.socket:
    """A client that asks, reads the first bytes of the answer and then takes nothing more."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    assert client.recv(16).startswith(b"HTTP/1.1 200")
    return client
