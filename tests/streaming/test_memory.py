"""What many slow clients and large files cost the web process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
import pytest

from apps.streaming.hotstore import BLOCK_BYTES, HotStore
from tests.streaming.media import ASSET, PROJECT
from tests.streaming.serving import VIDEO_ID, connect_and_pause

PATH = f"/stream/video/{VIDEO_ID}"
BLOCKS = 64
CLIENTS = 200
HUGE_BYTES = 2 * 1024**3


@dataclass
class Served:
    port: int
    memory: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = HotStore(tmp_path_factory.mktemp("hot"))
    with store.create(ASSET, 1, resume=False) as writer:
        for block in range(BLOCKS):
            writer.append(bytes([block]) * BLOCK_BYTES)
        writer.finish()
    with serving(store) as running:
        yield running


@contextmanager
def serving(store: HotStore) -> Iterator[Served]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.streaming.serve_process", str(store.root)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout
            yield Served(int(process.stdout.readline()), psutil.Process(process.pid))
        finally:
            process.kill()


class TestMemory:
    def test_a_paused_client_costs_little(self, served: Served) -> None:
        with connect_and_pause(served.port, PATH), connect_and_pause(served.port, PATH):
            before = served.memory.memory_info().rss
            clients = [connect_and_pause(served.port, PATH) for _ in range(CLIENTS)]
            grown = served.memory.memory_info().rss - before
            for client in clients:
                client.close()
        assert grown / CLIENTS < 50_000

    def test_a_large_file_leaves_no_trace(self, served: Served) -> None:
        with httpx.Client(timeout=60) as client:
            client.get(served.url, headers={"Range": "bytes=0-9"})
            before = served.memory.memory_info().rss
            received, highest = 0, before
            with client.stream("GET", served.url) as answer:
                for piece in answer.iter_raw(BLOCK_BYTES):
                    received += len(piece)
                    highest = max(highest, served.memory.memory_info().rss)
        assert received == BLOCKS * BLOCK_BYTES
        assert highest - before < 30 * 1024 * 1024

    def test_readers_all_over_a_file_of_2_gib_leave_no_trace(self, store: HotStore) -> None:
        holes = store.root / "holes"
        holes.parent.mkdir(parents=True, exist_ok=True)
        with holes.open("wb") as file:
            file.truncate(HUGE_BYTES)
        store.adopt(ASSET, 1, holes, block_hashes=[bytes(32)] * (HUGE_BYTES // BLOCK_BYTES))
        with serving(store) as served, httpx.Client(timeout=60) as client:
            client.get(served.url, headers={"Range": "bytes=0-9"})
            highest = before = served.memory.memory_info().rss
            for start in range(0, HUGE_BYTES, HUGE_BYTES // 8):
                asked = {"Range": f"bytes={start}-{start + 16 * BLOCK_BYTES - 1}"}
                assert len(client.get(served.url, headers=asked).content) == 16 * BLOCK_BYTES
                highest = max(highest, served.memory.memory_info().rss)
        assert highest - before < 50 * 1024 * 1024
