"""How fast, and with how much memory, a large asset goes to Telegram, also when the worker is killed on the way.

``python -m bench.telegram_upload [--size-mib 2000] [--json]``. The stand-in and the worker run in processes of their
own. The first worker is killed (like by kill -9) once half of the parts are stored; a second one finishes. Memory: how
much more each worker had at its most than before it began.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from apps.core.supervisor import end_with_us
from bench.instance import Telegram, bench_instance
from bench.report import Figure, Report

MIB = 1024 * 1024
BOTS = 4
MAX_SIZE_MIB = 4000
LIMIT_S = 600
WORKER = """
import sys, django; django.setup()
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services import upload_asset
from apps.telegram_cache.services.upload_records import free_dead_uploads
from apps.telegram_cache.services.pool import free_dead_slots
find_asset(sys.argv[1]); free_dead_uploads(); free_dead_slots()
print("ready", flush=True)
sys.stdin.readline()
print(upload_asset(sys.argv[1]).value, flush=True)
sys.stdin.readline()
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.telegram_upload", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=2000, help="size of the asset (default: 2000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not 100 <= options.size_mib <= MAX_SIZE_MIB:
        parser.error(f"sizes from 100 to {MAX_SIZE_MIB} MiB")
    report = Report("telegram_upload")
    with bench_instance(bots=BOTS) as telegram:
        _run(report, telegram, size_bytes=options.size_mib * MIB)
    report.show(as_json=options.json)


def _run(report: Report, telegram: Telegram, *, size_bytes: int) -> None:
    from apps.telegram_cache.selectors import find_asset
    from apps.telegram_cache.services.bots import add_bot
    from apps.telegram_cache.services.channels import add_channel
    from apps.telegram_cache.services.planning import plan_parts
    from bench.media import make_asset
    from ytserver.env import Env

    for token in telegram.tokens:
        add_bot(token)
    add_channel(telegram.channel)
    asset_id = make_asset(size_bytes)
    parts = len(plan_parts(size_bytes, Env.model_fields["telegram_part_bytes"].default))
    first = _Worker(asset_id)
    first.begin()
    while telegram.stored_messages() < parts // 2:
        time.sleep(0.05)
    first_grown, stored_before = first.grown_mib(), telegram.stored_messages()
    first.kill()
    second = _Worker(asset_id)
    began_at = time.perf_counter()
    second.begin()
    outcome = second.result()
    took_s = time.perf_counter() - began_at
    second_grown = second.grown_mib()
    second.kill()
    asset = find_asset(asset_id)
    report.note(f"{size_bytes // MIB:,} MiB in {parts} parts: {outcome}, {asset.state if asset else 'gone'}")
    report.add(Figure("parts stored when the first worker was killed", [stored_before]))
    report.add(Figure("parts sent again after that", [telegram.stored_messages() - parts], ceiling=0))
    rest_mib = (parts - stored_before) * size_bytes / parts / MIB
    report.add(Figure("the second worker, MiB/s", [rest_mib / took_s]))
    report.add(Figure("memory grown, of each worker, MiB", [first_grown, second_grown]))


class _Worker:
    """A process that uploads one asset, and how much memory it took."""

    def __init__(self, asset_id: str) -> None:
        command = [sys.executable, "-c", WORKER, asset_id]
        self._process = subprocess.Popen(
            end_with_us(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._read("ready")
        self._before_kib = self._kib("VmRSS")

    def begin(self) -> None:
        self._say()

    def result(self) -> str:
        return self._read()

    def grown_mib(self) -> float:
        return round((self._kib("VmHWM") - self._before_kib) / 1024, 1)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=LIMIT_S)

    def _say(self) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the worker was started without a pipe")
        self._process.stdin.write("go\n")

    def _read(self, wanted: str = "") -> str:
        if self._process.stdout is None:
            raise RuntimeError("the worker was started without a pipe")
        while line := self._process.stdout.readline():
            word = line.strip()
            if word == wanted or (not wanted and word.isalpha()):
                return word
        raise RuntimeError("the worker ended")

    def _kib(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])


if __name__ == "__main__":
    main()
