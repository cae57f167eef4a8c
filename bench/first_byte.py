"""How long a cached answer and a stream's first byte take, beside the same bytes from a raw ASGI app in the same run.

``python -m bench.first_byte`` starts a whole instance with stand-ins (no internet), asks one request at a time over
loopback, and prints milliseconds and ratios. Bounded: about 1,500 requests.
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import uvicorn

from apps.core.demo import Instance
from apps.streaming.hotstore import HotStore
from tests.standins.demo import StandInWorld

REPEATS = 300
TELEGRAM_REPEATS = 12
TELEGRAM_DELAY_S = 0.05
GROWING_REPEATS = 12
GROWING_DELAY_S = 1.0  # so that the client waits already when the first byte comes
GROWING_BYTES_PER_S = 500_000
RANGE = {"Range": "bytes=0-65535"}
READY_TIMEOUT_S = 60


def milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    """How long each of so many calls took; a tenth more go before as a warm-up."""
    taken = []
    for number in range(repeats + repeats // 10):
        began_at = time.perf_counter()
        call()
        if number >= repeats // 10:
            taken.append((time.perf_counter() - began_at) * 1000)
    return taken


def show(name: str, taken: list[float], reference: list[float] | None = None) -> None:
    ordered = sorted(taken)
    p99 = ordered[int(len(ordered) * 0.99)]
    line = f"{name:48} min {ordered[0]:7.2f}  median {statistics.median(ordered):7.2f}  p99 {p99:7.2f} ms"
    if reference is not None:
        line += f"  = {statistics.median(ordered) / statistics.median(reference):5.1f} x the raw median"
    sys.stdout.write(line + "\n")


@contextmanager
def raw_asgi(body: bytes) -> Iterator[str]:
    """The reference: uvicorn and the smallest application that sends ``body``."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def first_byte(client: httpx.Client, url: str, **options: Any) -> None:
    with client.stream("GET", url, **options) as response:
        response.raise_for_status()
        next(response.iter_raw())


def ready(api: httpx.Client, video_id: str, *, source: str) -> dict[str, Any]:
    """Ask until the audio comes from ``source`` (and, for "telegram", is in Telegram: its hot file may go)."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        answer: dict[str, Any] = api.get("/api/v1/audio", params={"url": video_id, "wait": 25}).json()
        if answer.get("cached") and (source == "hot" or answer["telegram"]):
            return answer
        time.sleep(0.1)
    raise SystemExit(f"{video_id} was not ready in {READY_TIMEOUT_S} s")


def growing(api: httpx.Client, outside: StandInWorld, number: int) -> float:
    """Milliseconds from the first byte that the source sends to the first byte at a client that waits for it."""
    video_id = f"largegrow{number:02}"
    outside.slow_down(GROWING_BYTES_PER_S, delay_s=GROWING_DELAY_S)
    stream = api.get("/api/v1/audio", params={"url": video_id}).json()["stream_url"]
    sent_at: list[float] = []

    def watch() -> None:
        while not outside.sent_bytes(video_id):
            time.sleep(0.001)
        sent_at.append(time.perf_counter())

    watching = threading.Thread(target=watch)
    watching.start()
    first_byte(api, stream)
    got_at = time.perf_counter()
    watching.join()
    return (got_at - sent_at[0]) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ytserver-bench-") as folder, StandInWorld() as outside:
        instance = Instance(outside.environment, folder=Path(folder))
        try:
            url = instance.start()["url"]
            key = instance.manage("create_key", "--name", "bench", "--limit-per-hour", "1000000", "--json")
            headers = {"X-API-Key": key.split('"key": "')[1].split('"')[0]}
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as api:
                measure(api, outside, HotStore(Path(folder) / "hot"))
        finally:
            instance.stop()


def measure(api: httpx.Client, outside: StandInWorld, store: HotStore) -> None:
    answer = ready(api, "largebench1", source="hot")
    body = api.get("/api/v1/audio", params={"url": "largebench1"}).content
    with raw_asgi(body) as raw:
        reference = milliseconds(lambda: api.get(raw), REPEATS)
        show("raw ASGI, the same answer", reference)
        asked = milliseconds(lambda: api.get("/api/v1/audio", params={"url": "largebench1"}), REPEATS)
        show("cached /api/v1/audio", asked, reference)
    stream = answer["stream_url"]
    with raw_asgi(bytes(65536)) as raw:
        reference = milliseconds(lambda: first_byte(api, raw), REPEATS)
        show("raw ASGI, first byte of 64 KiB", reference)
        show("hot stream, first byte", milliseconds(lambda: first_byte(api, stream, headers=RANGE), REPEATS), reference)
    show("growing stream, first byte after the source's", [growing(api, outside, n) for n in range(GROWING_REPEATS)])
    outside.delay_telegram(TELEGRAM_DELAY_S)
    taken = []
    for number in range(TELEGRAM_REPEATS):
        cold = ready(api, f"largetg{number:04}", source="telegram")
        asset_id = parse_qs(urlsplit(cold["stream_url"]).query)["asset"][0]
        store.remove(asset_id, 1)
        began_at = time.perf_counter()
        first_byte(api, cold["stream_url"], headers=RANGE)
        taken.append((time.perf_counter() - began_at) * 1000)
    show(f"Telegram stream, first byte ({TELEGRAM_DELAY_S * 1000:.0f} ms a call)", taken)


if __name__ == "__main__":
    main()
