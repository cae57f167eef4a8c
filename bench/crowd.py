"""Ten thousand at once: slow streams with two web processes, API calls and a live dashboard meanwhile; then ten
thousand API users.

``python -m bench.crowd [--clients 10000] [--seconds 60] [--only streams|users] [--json]``. Streams take 128 kbit/s,
half of them through Range, from several files at different places. Each user has a key of its own, connects when it has
something to ask, and keeps the connection. Load generators run in processes of their own, on loopback only.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil

from apps.core.instance import raise_file_limit
from bench.dashboard import Watched, log_in, make_owner, watching
from bench.fast_lane import good
from bench.instance import bench_instance
from bench.load import MAX_SECONDS, Outcome, Plan, get, run_load
from bench.report import Figure, Report
from bench.web import web_processes

MIB = 1024 * 1024
FILES = 8
FILE_BYTES = 24 * MIB
STREAM_BYTES_PER_S = 16_000
RAMP_PER_S = 1500
GENERATORS = 4
MAX_CLIENTS = 12_000
API_PER_S = 200
USER_EVERY_S = 20
FILES_BESIDE = 200  # open files of a process beside its clients


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=["streams", "users"], help="one of the two parts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (10 <= options.clients <= MAX_CLIENTS and 5 <= options.seconds <= 120):
        parser.error(f"10 to {MAX_CLIENTS} clients, 5 to 120 seconds")
    raise_file_limit()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < options.clients + FILES_BESIDE:
        parser.error(
            f"only {soft} files may be open at once: raise the hard limit (ulimit -Hn), or ask for fewer clients"
        )
    report = Report("crowd")
    with bench_instance(bots=0):
        if options.only != "users":
            streams(report, clients=options.clients, seconds=options.seconds)
        if options.only != "streams":
            users(report, clients=options.clients, seconds=options.seconds)
    report.show(as_json=options.json)


def streams(report: Report, *, clients: int, seconds: float) -> None:
    from apps.keys.services import create_key
    from bench.media import make_audio

    names = [f"crowdfile{number:02}" for number in range(FILES)]
    assets = [make_audio(name, size_bytes=FILE_BYTES) for name in names]
    key = create_key(name="bench", limit_per_hour=1_000_000_000).key
    owner = make_owner()
    with web_processes(2) as (port, processes), watching(port, log_in(port, *owner)) as dashboard:
        before_bytes = _memory(processes)
        requests = _stream_requests(port, key, list(zip(names, assets, strict=True)), clients)
        with _slow_clients(port, requests, seconds) as running:
            time.sleep(clients / RAMP_PER_S + 5)
            api = Plan(
                port=port,
                requests=[get(f"/api/v1/audio?url={name}", port=port, **{"X-API-Key": key}) for name in names],
                connections=20,
                seconds=max(3.0, seconds - 10),
                rate_per_s=API_PER_S,
            )
            meanwhile = run_load(api)
            most_bytes = _memory(processes)
            results = [_result(process) for process in running]
    firsts = sorted(value for result in results for value in result["first_byte_ms"])
    ticks = sum(result["ticks"] for result in results)
    errors: dict[str, int] = {}
    for result in results:
        for name, count in result["errors"].items():
            errors[name] = errors.get(name, 0) + count
    report.note(f"{clients} slow streams for {seconds:.0f} s: {errors or 'no errors'}")
    report.add(Figure("streams with an error", [float(sum(errors.values()))], ceiling=0))
    report.add(Figure("late seconds, %", [100 * sum(result["late"] for result in results) / max(1, ticks)], ceiling=1))
    report.add(Figure("the generators' own late seconds, %", [100 * sum(r["behind"] for r in results) / max(1, ticks)]))
    report.add(Figure("first byte p99 during the ramp, ms", [_at(firsts, 0.99)], ceiling=1000))
    report.add(Figure("web memory in all, MB", [most_bytes / 1e6], ceiling=300))
    report.add(Figure("web memory before, MB", [before_bytes / 1e6]))
    report.add(Figure("memory for each slow stream, KB", [(most_bytes - before_bytes) / clients / 1e3], ceiling=20))
    _api_figures(report, f"API meanwhile ({API_PER_S}/s)", meanwhile, p99_ms=200)
    _dashboard_figures(report, dashboard, clients)


def users(report: Report, *, clients: int, seconds: float) -> None:
    from apps.keys.services import create_key
    from bench.media import make_audio

    make_audio("crowdusers1")
    keys = _many_keys(create_key(name="first").key, clients)
    with web_processes(2) as (port, processes):
        path = "/api/v1/audio?url=crowdusers1"
        plan = Plan(
            port=port,
            requests=[get(path, port=port, **{"X-API-Key": key}) for key in keys],
            connections=clients,
            seconds=min(seconds + USER_EVERY_S, MAX_SECONDS),  # after so long all of them are there
            rate_per_s=clients / USER_EVERY_S,
            joining=True,
        )
        good(run_load(replace(plan, connections=16, seconds=1.0, rate_per_s=0.0, joining=False)))  # warm
        before_s = _processor_s(processes)
        outcome = run_load(plan)
        us_each = 1e6 * (_processor_s(processes) - before_s) / max(1, outcome.answers)
    name = f"{clients} API users, a request every {USER_EVERY_S} s"
    _api_figures(report, name, outcome, p99_ms=100)
    report.add(Figure(f"{name}: web processor time, us for an answer", [us_each]))


def _api_figures(report: Report, name: str, outcome: Outcome, *, p99_ms: float) -> None:
    report.add(Figure(f"{name}: answers/s", [outcome.per_s]))
    report.add(Figure(f"{name}: not good", [float(sum(outcome.bad.values()))], ceiling=0))
    if outcome.bad:
        report.note(f"{name}, not good: {outcome.bad}")
    report.add(Figure(f"{name}: p50, ms", [outcome.p50_ms]))
    report.add(Figure(f"{name}: p99, ms", [outcome.p99_ms], ceiling=p99_ms))
    report.add(Figure(f"{name}: the generator's own lateness, p99, ms", [outcome.own_late_p99_ms]))


def _dashboard_figures(report: Report, watched: Watched, clients: int) -> None:
    name = "live dashboard meanwhile"
    if watched.error:
        report.note(f"{name}: {watched.error}")
    gaps_s = sorted(watched.gaps_s)
    report.add(Figure(f"{name}: moments that it was sent", [float(len(gaps_s))]))
    report.add(Figure(f"{name}: between two of them, median, s", [_at(gaps_s, 0.5)]))
    report.add(Figure(f"{name}: between two of them, at most, s", [_at(gaps_s, 1.0)]))
    report.add(Figure(f"{name}: streams that it showed, %", [100 * watched.most_streams / clients]))


def _many_keys(first: str, count: int) -> list[str]:
    """So many keys, written at once: ``first`` and its secret under other prefixes."""
    from apps.keys.documents import ApiKey

    row = ApiKey._get_collection().find_one({"prefix": first[3:11]})
    if row is None:
        raise RuntimeError("the key is not there")
    del row["_id"]
    rows = [{**row, "prefix": f"b{number:07}", "name": f"user {number}"} for number in range(count)]
    ApiKey._get_collection().insert_many(rows)
    return [f"yt_{row['prefix']}_{first[12:]}" for row in rows]


def _stream_requests(port: int, key: str, files: list[tuple[str, str]], clients: int) -> list[str]:
    from apps.streaming.links import sign_link

    chance = random.Random(1)  # noqa: S311 - test data
    requests = []
    for number in range(clients):
        name, asset_id = files[number % len(files)]
        path = sign_link(
            path=f"/stream/audio/{name}", asset_id=asset_id, key_prefix=key[3:11], expires_at=int(time.time()) + 3600,
            attachment=False,
        )  # fmt: skip
        start = chance.randrange(0, FILE_BYTES // 2)
        requests.append(get(path, port=port, **({"Range": f"bytes={start}-"} if number % 2 else {})))
    return requests


@contextmanager
def _slow_clients(port: int, requests: list[str], seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    running = []
    for number in range(GENERATORS):
        plan = {
            "port": port,
            "requests": requests[number::GENERATORS],
            "ramp_per_s": RAMP_PER_S / GENERATORS,
            "seconds": seconds,
            "bytes_per_s": STREAM_BYTES_PER_S,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.slow_clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        if process.stdin is not None:
            process.stdin.write(json.dumps(plan))
            process.stdin.close()
            process.stdin = None
    try:
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=300)
    result: dict[str, Any] = json.loads(out)
    return result


def _memory(processes: list[int]) -> float:
    """In bytes, as ``bench.start`` counts it: what they share (code and data from before the fork, libraries, mapped
    pages of files) is divided among all that have it (PSS). Here these are the nursery and the web processes; with
    ``up`` the workers too, so the share of each is smaller. Buffers of the kernel are not in it."""
    return float(sum(psutil.Process(pid).memory_full_info().pss for pid in processes))


def _processor_s(processes: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in processes)


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


if __name__ == "__main__":
    main()
