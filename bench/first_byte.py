"""How long a cached answer and a stream's first byte take, beside the same bytes from a raw ASGI app in the same run.

``python -m bench.first_byte [--repeats 300] [--json]`` starts a whole instance with stand-ins (no internet) and asks
one request at a time over loopback. A growing stream is that of a file which is still being fetched; one from Telegram
is of a file that is only there, where each call takes TELEGRAM_DELAY_S.
"""

from __future__ import annotations

import argparse
import socket
import statistics
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
from bench.options import between
from bench.report import Figure, Report
from tests.standins.demo import StandInWorld

REPEATS = 300
TELEGRAM_REPEATS = 8
TELEGRAM_DELAY_S = 0.05
GROWING_REPEATS = 8
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


def show(report: Report, name: str, taken: list[float], reference: list[float] | None = None) -> None:
    report.add(Figure(f"{name}, ms", taken))
    if reference is not None:
        report.add(Figure(f"{name}: median to raw ASGI's", [statistics.median(taken) / statistics.median(reference)]))


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
    parser = argparse.ArgumentParser(prog="python -m bench.first_byte", description=__doc__)
    parser.add_argument(
        "--repeats", type=between(int, 10, 2000), default=REPEATS, help=f"how often each is asked (default: {REPEATS})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    report = Report("first_byte")
    with tempfile.TemporaryDirectory(prefix="ytserver-bench-") as folder, StandInWorld() as outside:
        instance = Instance(outside.environment, folder=Path(folder))
        try:
            url = instance.start()["url"]
            key = instance.manage("create_key", "--name", "bench", "--limit-per-hour", "1000000", "--json")
            headers = {"X-API-Key": key.split('"key": "')[1].split('"')[0]}
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as api:
                measure(report, api, outside, HotStore(Path(folder) / "hot"), repeats=options.repeats)
        finally:
            instance.stop()
    report.show(as_json=options.json)


def measure(report: Report, api: httpx.Client, outside: StandInWorld, store: HotStore, *, repeats: int) -> None:
    answer = ready(api, "largebench1", source="hot")
    body = api.get("/api/v1/audio", params={"url": "largebench1"}).content
    with raw_asgi(body) as raw:
        reference = milliseconds(lambda: api.get(raw), repeats)
        show(report, "raw ASGI, the same answer", reference)
        asked = milliseconds(lambda: api.get("/api/v1/audio", params={"url": "largebench1"}), repeats)
        show(report, "cached /api/v1/audio", asked, reference)
    stream = answer["stream_url"]
    with raw_asgi(bytes(65536)) as raw:
        reference = milliseconds(lambda: first_byte(api, raw), repeats)
        show(report, "raw ASGI, first byte of 64 KiB", reference)
        hot = milliseconds(lambda: first_byte(api, stream, headers=RANGE), repeats)
        show(report, "hot stream, first byte", hot, reference)
    grown = [growing(api, outside, number) for number in range(GROWING_REPEATS)]
    show(report, "growing stream, first byte after the source's", grown)
    outside.delay_telegram(TELEGRAM_DELAY_S)
    taken = []
    for number in range(TELEGRAM_REPEATS):
        cold = ready(api, f"largetg{number:04}", source="telegram")
        asset_id = parse_qs(urlsplit(cold["stream_url"]).query)["asset"][0]
        store.remove(asset_id, 1)
        began_at = time.perf_counter()
        first_byte(api, cold["stream_url"], headers=RANGE)
        taken.append((time.perf_counter() - began_at) * 1000)
    show(report, f"Telegram stream, first byte ({TELEGRAM_DELAY_S * 1000:.0f} ms a call)", taken)


if __name__ == "__main__":
    main()
