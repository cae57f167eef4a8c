"""Very many callers at once for a file that is only in Telegram: ``python -m bench.telegram_storm [--callers 1000]``.

Also ``[--size-mib 62] [--rounds 3] [--json]``. Two web processes; the Bot API stand-in, as slow as a network, is a
process of its own and counts getFile calls and files read. Half of the callers read everything, half ask for a range of
RANGE_BYTES, each from another place; every byte is compared. Before each round the file is removed from the hot store.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.instance import Telegram, bench_instance
from bench.load import get
from bench.options import bench_parser, between
from bench.report import Figure, Report
from bench.storm import GENERATORS, call_at_once
from bench.web import wait_until_idle, web_processes

MIB = 1024 * 1024
BOTS = 2
VIDEO_ID = "tgstorm0001"
RANGE_BYTES = 2 * MIB
SECONDS = 100.0
LINK_BYTES_PER_S = 20_000_000
GET_FILE_S = 0.05
MEMORY_LOOK_S = 0.5


def main() -> None:
    parser = bench_parser("telegram_storm", __doc__)
    parser.add_argument("--callers", type=between(int, 10, 5000), default=1000, help="at once (default: 1000)")
    parser.add_argument("--size-mib", type=between(int, 4, 200), default=62, help="of the file (default: 62, 4 parts)")
    options = parser.parse_args()
    report = Report("telegram_storm")
    with bench_instance(bots=BOTS) as telegram:
        measure(
            report, telegram, size_bytes=options.size_mib * MIB + 4321, callers=options.callers, rounds=options.rounds
        )
    report.show(as_json=options.json)


def measure(report: Report, telegram: Telegram, *, size_bytes: int, callers: int, rounds: int) -> None:
    from django.conf import settings

    from apps.keys.services import create_key
    from apps.telegram_cache.selectors import find_asset
    from apps.telegram_cache.services import upload_asset
    from apps.telegram_cache.services.bots import add_bot
    from apps.telegram_cache.services.channels import add_channel
    from bench.media import make_audio, open_sparse, remove_hot, target_of

    for token in telegram.tokens:
        add_bot(token)
    add_channel(telegram.channel)
    asset_id = make_audio(VIDEO_ID, size_bytes=size_bytes)
    original = Path(settings.ENV.var_dir) / "original"
    hot_file = open_sparse(target_of(asset_id))
    original.write_bytes(hot_file.view(0, size_bytes))
    hot_file.close()
    upload_asset(asset_id)
    asset = find_asset(asset_id)
    parts = len(asset.parts) if asset else 0
    key = create_key(name="bench", limit_per_hour=1_000_000_000).key
    found: dict[str, list[float]] = {}
    with web_processes(2) as (port, processes):
        plans = _plans(port, key, original, size_bytes, callers)
        for number in range(rounds):
            remove_hot(asset_id)
            wait_until_idle(processes)
            before = telegram.slow_down(bytes_per_s=LINK_BYTES_PER_S, delay_s=GET_FILE_S)
            with _memory(processes) as seen_bytes:
                results = call_at_once(plans)
            after = telegram.slow_down(bytes_per_s=0, delay_s=0)
            firsts = sorted(value for result in results for value in result["first_byte_from_0_ms"]) or [float("inf")]
            ranges_too = [value for result in results for value in result["first_byte_ms"]]
            for name, value in {
                "getFile": float(after["getFile"] - before["getFile"]),
                "files": float(after["file"] - before["file"]),
                "errors": float(sum(sum(result["errors"].values()) for result in results)),
                "first": firsts[0],
                "last": firsts[-1],
                "last of all": max(ranges_too, default=float("inf")),
                "ratio": firsts[-1] / firsts[0],
                "memory before": seen_bytes[0] / 1e6,
                "memory": max(seen_bytes) / 1e6,
                "all": max(result["all_s"] for result in results),
            }.items():
                found.setdefault(name, []).append(value)
            for result in results:
                if result["errors"]:
                    report.note(f"round {number + 1}: {result['errors']}")
    report.note(f"{callers} callers, a file of {size_bytes / MIB:.0f} MiB that is only in Telegram, {parts} parts")
    report.add(Figure("files read from Telegram", found["files"], ceiling=parts))
    report.add(Figure("getFile calls", found["getFile"], ceiling=parts))
    report.add(Figure("errors and wrong bytes", found["errors"], ceiling=0))
    report.add(Figure("callers from 0: first byte of the first, ms", found["first"]))
    report.add(Figure("callers from 0: first byte of the last, ms", found["last"]))
    report.add(Figure("callers from 0: last to first", found["ratio"], ceiling=1.5))
    report.add(Figure("first byte of the last caller, ranges too, ms", found["last of all"]))
    report.add(Figure("own memory of the web processes before, MB", found["memory before"]))
    report.add(Figure("own memory of the web processes, most, MB", found["memory"]))
    report.add(Figure("until all callers had all bytes, s", found["all"]))


def _plans(port: int, key: str, original: Path, size_bytes: int, callers: int) -> list[dict[str, Any]]:
    """One for each generator. Every second caller of each asks for a range; these begin all over the file."""
    asked = []
    for number in range(callers):
        headers, span = {"X-API-Key": key}, (0, size_bytes)
        if number // GENERATORS % 2:
            start = (size_bytes - RANGE_BYTES) * number // callers
            span = (start, start + RANGE_BYTES)
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        asked.append((get(f"/stream/audio/{VIDEO_ID}", port=port, **headers), span))
    return [
        {
            "port": port,
            "seconds": SECONDS,
            "file": str(original),
            "requests": [request for request, _ in asked[number::GENERATORS]],
            "spans": [span for _, span in asked[number::GENERATORS]],
        }
        for number in range(GENERATORS)
    ]


@contextmanager
def _memory(processes: Sequence[int]) -> Iterator[list[int]]:
    """What the processes hold for themselves alone (USS: pages of the mapped file are not in it), looked at again and
    again."""
    running = [psutil.Process(process) for process in processes]

    def look() -> int:
        return sum(process.memory_full_info().uss for process in running)

    seen = [look()]
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(MEMORY_LOOK_S):
            seen.append(look())

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
