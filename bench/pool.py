"""Django in its bounded thread pool, beside the same view through Django's own ASGI handler; and the admin under load.

``python -m bench.pool [--seconds 3] [--rounds 3] [--json]``. The view is ``/api/v1/status`` with a key (Django REST
framework, one count in Redis). Both sit behind the same server, one process each, in turn. The admin's p95 is that of
its login page, its overview and its list of keys (of KEYS keys; both as an owner who has logged in), while the API is
asked as fast as it answers.
"""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from dataclasses import replace

from bench.dashboard import LOGIN, log_in, make_owner
from bench.fast_lane import costed, good
from bench.instance import bench_instance
from bench.load import Outcome, Plan, get, run_load
from bench.options import add_seconds, bench_parser
from bench.report import Figure, Report
from bench.web import web_process

CONNECTIONS = 32
PATH = "/api/v1/status"
ADMIN_PAGES = {"login page": LOGIN, "overview": "/admin/", "list of keys": "/admin/keys"}
ADMIN_PER_S = 10.0
KEYS = 300


def main() -> None:
    parser = bench_parser("pool", __doc__)
    add_seconds(parser)
    options = parser.parse_args()
    report = Report("pool")
    with bench_instance(bots=0):
        measure(report, seconds=options.seconds, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, *, seconds: float, rounds: int) -> None:
    from apps.keys.services import create_key

    name, password = make_owner()
    for number in range(KEYS):
        create_key(name=f"key {number}", owner=name)
    headers = {"X-API-Key": create_key(name="bench", limit_per_hour=1_000_000_000).key}
    with ExitStack() as stack:
        ours = stack.enter_context(web_process())
        handler = stack.enter_context(web_process("bench.django_asgi"))
        processes = {"pool": ours, "handler": handler}
        plans = {
            name: Plan(port=port, requests=[get(PATH, port=port, **headers)], connections=CONNECTIONS, seconds=seconds)
            for name, (port, _) in processes.items()
        }
        for plan in plans.values():  # warm
            good(run_load(replace(plan, seconds=1.0)))
        done = [{name: costed(plan, processes[name][1]) for name, plan in plans.items()} for _ in range(rounds)]
        cookies = log_in(ours[0], name, password)
        waits = {
            page: [_admin_p95_ms(plans["pool"], path, "" if path == LOGIN else cookies) for _ in range(rounds)]
            for page, path in ADMIN_PAGES.items()
        }
    for name, words in (("pool", "in the thread pool"), ("handler", "through Django's ASGI handler")):
        report.add(Figure(f"{words}, answers/s", [each[name][0].per_s for each in done]))
        report.add(Figure(f"{words}, processor time, us for an answer", [each[name][1] for each in done]))
    ratios = [each["pool"][0].per_s / each["handler"][0].per_s for each in done]
    report.add(Figure("thread pool to Django's ASGI handler", ratios, floor=2))
    costs = [each["handler"][1] / each["pool"][1] for each in done]
    report.add(Figure("the same by processor time", costs))
    for name, each_ms in waits.items():
        report.add(Figure(f"admin's {name} under load, p95, ms", each_ms, ceiling=500))


def _admin_p95_ms(load: Plan, path: str, cookies: str) -> float:
    """At a steady rate, while the API is asked without a pause."""
    headers = {"Cookie": cookies} if cookies else {}
    plan = Plan(
        port=load.port,
        requests=[get(path, port=load.port, **headers)],
        connections=4,
        seconds=load.seconds,
        rate_per_s=ADMIN_PER_S,
    )
    outcomes: list[Outcome] = []
    other = threading.Thread(target=lambda: outcomes.append(run_load(replace(load, seconds=load.seconds + 2))))
    other.start()
    outcome = good(run_load(plan))
    other.join()
    return outcome.p95_ms


if __name__ == "__main__":
    sys.exit(main())
