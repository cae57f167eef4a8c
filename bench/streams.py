"""Hot streams beside nginx with sendfile: a large file, and ranges of 64 KiB. One process each.

``python -m bench.streams [--seconds 3] [--rounds 3] [--json]``. Without nginx its figures are left out.
"""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.instance import bench_instance
from bench.load import Plan, get, run_load
from bench.nginx import is_installed, nginx
from bench.options import add_seconds, bench_parser
from bench.report import Figure, Report
from bench.web import web_process

MIB = 1024 * 1024
FILE_BYTES = 1024 * MIB
RANGE_BYTES = 64 * 1024
LARGE_CONNECTIONS = 4
RANGE_CONNECTIONS = 32
RANGES = 500


def main() -> None:
    parser = bench_parser("streams", __doc__)
    add_seconds(parser)
    options = parser.parse_args()
    report = Report("streams")
    with bench_instance(bots=0), tempfile.TemporaryDirectory(prefix="ytserver-bench-") as folder:
        measure(report, Path(folder), seconds=options.seconds, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, folder: Path, *, seconds: float, rounds: int) -> None:
    from django.conf import settings

    from apps.keys.services import create_key
    from apps.streaming.hotstore.layout import HotPath
    from apps.streaming.links import sign_link
    from bench.media import make_asset

    asset_id = make_asset(FILE_BYTES)
    key = create_key(name="bench").key
    (folder / "root").mkdir()
    (folder / "root" / "file").symlink_to(HotPath.of(settings.ENV.hot_root, asset_id, 1).data)
    path = sign_link(
        path="/stream/video/bench000001", asset_id=asset_id, key_prefix=key[3:11], expires_at=int(time.time()) + 3600,
        attachment=False,
    )  # fmt: skip
    with ExitStack() as stack:
        targets = {"ours": (stack.enter_context(web_process())[0], path)}
        if is_installed():
            targets["nginx"] = (stack.enter_context(nginx(folder / "root", folder)), "/file")
        else:
            report.note("nginx is not installed: its figures are left out")
        large = {name: _large(port, at, seconds) for name, (port, at) in targets.items()}
        ranges = {name: _ranges(port, at, seconds) for name, (port, at) in targets.items()}
        for name in targets:  # warm
            run_load(replace(large[name], seconds=1.0))
        speeds: dict[str, list[float]] = {name: [] for name in targets}
        rates: dict[str, list[float]] = {name: [] for name in targets}
        for _ in range(rounds):
            for name in targets:
                done = run_load(large[name])
                speeds[name].append(done.bytes / done.seconds / MIB)
                done = run_load(ranges[name])
                if done.errors or set(done.statuses) != {"206"}:
                    raise SystemExit(f"{name}: {done.statuses} {done.errors}")
                rates[name].append(done.per_s)
    for name in targets:
        report.add(Figure(f"1 GiB file, {name}, MiB/s", speeds[name]))
        report.add(Figure(f"64 KiB ranges, {name}, answers/s", rates[name]))
    if "nginx" in targets:
        pairs = zip(speeds["ours"], speeds["nginx"], strict=True)
        report.add(Figure("1 GiB file, to nginx", [a / b for a, b in pairs], floor=0.5))
        pairs = zip(rates["ours"], rates["nginx"], strict=True)
        report.add(Figure("64 KiB ranges, to nginx", [a / b for a, b in pairs], floor=0.35))


def _large(port: int, path: str, seconds: float) -> Plan:
    return Plan(port=port, requests=[get(path, port=port)], connections=LARGE_CONNECTIONS, seconds=seconds)


def _ranges(port: int, path: str, seconds: float) -> Plan:
    chance = random.Random(1)  # noqa: S311 - test data
    starts = [chance.randrange(0, FILE_BYTES - RANGE_BYTES) for _ in range(RANGES)]
    requests = [get(path, port=port, Range=f"bytes={at}-{at + RANGE_BYTES - 1}") for at in starts]
    return Plan(port=port, requests=requests, connections=RANGE_CONNECTIONS, seconds=seconds)


if __name__ == "__main__":
    main()
