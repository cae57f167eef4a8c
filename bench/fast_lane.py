"""Answers per second of one web process for a known file: lane, Django, and a raw ASGI application sending the same.

``python -m bench.fast_lane [--seconds 3] [--rounds 3] [--json]``. Each round measures all in turn; ratios are of
the same round. Nothing is measured while another process still works off what it was asked before. At half of the
lane's maximum the raw application is asked too, at the same rate: how late that one comes is due to the machine and the
generator. The load generator is a process of its own. Where the raw application had much less than one whole processor,
something else held it up (the generator, other work on the machine), and the ratio by rate flatters the lane.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from bench.instance import bench_instance
from bench.load import Outcome, Plan, get, run_load
from bench.options import add_seconds, bench_parser
from bench.report import Figure, Report
from bench.web import wait_until_idle, web_process

CONNECTIONS = 64
PATH = "/api/v1/audio?url=https://youtu.be/benchaudio1"


def main() -> None:
    parser = bench_parser("fast_lane", __doc__)
    add_seconds(parser)
    options = parser.parse_args()
    report = Report("fast_lane")
    with bench_instance(bots=0):
        measure(report, seconds=options.seconds, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, *, seconds: float, rounds: int) -> None:
    from apps.keys.services import create_key
    from bench.media import make_audio

    make_audio("benchaudio1")
    key = create_key(name="bench", limit_per_hour=1_000_000_000).key
    headers = {"X-API-Key": key}
    with ExitStack() as stack:
        lane = stack.enter_context(web_process(FAST_LANE="on"))
        django = stack.enter_context(web_process(FAST_LANE="off"))
        raw = stack.enter_context(_raw_copy(lane[0], headers))
        ports = {"raw": raw[0], "lane": lane[0], "django": django[0]}
        processes = {"raw": raw[1], "lane": lane[1], "django": django[1]}
        plans = {
            name: Plan(port=port, requests=[get(PATH, port=port, **headers)], connections=CONNECTIONS, seconds=seconds)
            for name, port in ports.items()
        }
        for plan in plans.values():  # warm
            run_load(replace(plan, seconds=1.0))
        shares, django_shares, rates, costs = [], [], [], []
        p99: dict[str, list[float]] = {"lane": [], "raw": []}
        for _ in range(rounds):
            wait_until_idle(processes.values())
            done = {name: costed(plan, processes[name]) for name, plan in plans.items()}
            reference, fast, slow = (done[name][0] for name in ("raw", "lane", "django"))
            costs.append([done[name][1] for name in ("raw", "lane", "django")])
            shares.append(fast.per_s / reference.per_s)
            django_shares.append(slow.per_s / reference.per_s)
            rates.append((reference.per_s, fast.per_s, slow.per_s))
            wait_until_idle(processes.values())
            for name, each in p99.items():
                each.append(good(run_load(replace(plans[name], rate_per_s=fast.per_s / 2))).p99_ms)
    for place, name in enumerate(("raw ASGI", "fast lane", "Django behind the bridge")):
        report.add(Figure(f"{name}, answers/s", [rate[place] for rate in rates]))
        report.add(Figure(f"{name}, processor time of the process, us for an answer", [cost[place] for cost in costs]))
        busy = [rate[place] * cost[place] / 1e4 for rate, cost in zip(rates, costs, strict=True)]
        report.add(Figure(f"{name}, % of one processor that the process had", busy))
    report.add(Figure("fast lane to raw ASGI", shares, floor=0.4))
    report.add(Figure("fast lane to raw ASGI, by processor time", [cost[0] / cost[1] for cost in costs]))
    report.add(Figure("Django to raw ASGI", django_shares))
    report.add(Figure("fast lane at half of its maximum, p99 in ms", p99["lane"], ceiling=15))
    report.add(Figure("raw ASGI at the same rate, p99 in ms", p99["raw"]))


def costed(plan: Plan, pid: int) -> tuple[Outcome, float]:
    """What came out, and what an answer cost the server in microseconds of processor time: the busier the machine is
    with other work, the more this says, and the less the rate does."""
    before = sum(psutil.Process(pid).cpu_times()[:2])
    outcome = good(run_load(plan))
    return outcome, (sum(psutil.Process(pid).cpu_times()[:2]) - before) / max(1, outcome.answers) * 1e6


def good(outcome: Outcome) -> Outcome:
    if outcome.errors or set(outcome.statuses) - {"200"}:
        raise SystemExit(f"not every answer was good: {outcome.statuses} {outcome.errors}")
    return outcome


@contextmanager
def _raw_copy(port: int, headers: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A raw application that sends what the lane sends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(2):  # the first one is Django's
        connection.request("GET", PATH, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    connection.close()
    lines = [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() != "date"]
    with tempfile.NamedTemporaryFile(prefix="ytserver-bench-") as file:
        Path(file.name).write_bytes("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        with web_process("bench.raw_app", file.name) as running:
            yield running


if __name__ == "__main__":
    sys.exit(main())
