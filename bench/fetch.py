"""Fetching a file like SaveTube's (one long answer) into the hot store, beside ``curl -o``.

``python -m bench.fetch [--size-mib 512] [--rounds 3] [--json]``. The file comes from an nginx.
Curl and a worker process take turns. The worker does what a fetch does with the bytes: receive, hash each block and the
whole, write, make durable. ``curl`` does not hash, and leaves the writing to the system: so processor time stands
beside the clock, and ``curl`` with an fsync after it, which is as durable as ours. Ours is timed three times: until
users can read every byte, until all is hashed as well, and until it is durable, which is what counts as stored. What
programs written in C make of the same job stands beside it: ``curl`` into ``tee`` and one ``sha256sum``, then an fsync.
The same over TLS, as SaveTube's files really come; the server, which packs what the other unpacks, is on this machine
too. Memory: how much more the worker had at its most than before its first file.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.core.embedded import free_port
from apps.core.supervisor import end_with_us
from bench.instance import bench_instance
from bench.nginx import is_installed as nginx_is_installed
from bench.nginx import nginx
from bench.options import bench_parser, between
from bench.report import Figure, Report

MIB = 1024 * 1024
LIMIT_S = 300
CURL, TEE, SHA256SUM = (shutil.which(name) for name in ("curl", "tee", "sha256sum"))
WORKER = """
import asyncio, json, sys, time, django; django.setup()
from django.conf import settings
from apps.downloads.fetch.outcomes import Limits
from apps.downloads.fetch.transfer import Connections, Transfer
from apps.downloads.providers.base import RemoteFile
from apps.streaming.hotstore import HotStore
store = HotStore(settings.ENV.hot_root)
async def fetch(url, writer):
    async with Connections(Limits()) as session:
        file = RemoteFile(url=url, source_id="savetube:video:1080", verify_tls=False)
        await Transfer(file, session=session, limits=Limits(), sink=writer, choose_sink=None, head_bytes=0,
                       on_size=lambda size: None, on_bytes=lambda count: None).run()
print("ready", flush=True)
for line in sys.stdin:
    number, url = line.split()
    at, cpu = time.perf_counter(), time.process_time()
    with store.create("benchfetch", int(number), resume=False) as writer:
        asyncio.run(fetch(url, writer)); readable = time.perf_counter() - at
        writer.hash_up_to(writer.frontier); hashed = time.perf_counter() - at
        writer.finish(); writer.sha256_hex
        size = writer.frontier
    print(json.dumps([time.perf_counter() - at, time.process_time() - cpu, readable, hashed, size]), flush=True)
    store.remove("benchfetch", int(number))
"""


def main() -> None:
    parser = bench_parser("fetch", __doc__)
    parser.add_argument("--size-mib", type=between(int, 16, 4000), default=512, help="size of the file (default: 512)")
    options = parser.parse_args()
    report = Report("fetch")
    if not nginx_is_installed() or None in {CURL, TEE, SHA256SUM}:
        report.note("nginx, curl, tee or sha256sum is not installed: nothing was measured")
        report.show(as_json=options.json)
        return
    with bench_instance(bots=0), tempfile.TemporaryDirectory(prefix="ytserver-bench-") as folder:
        measure(report, Path(folder), size_mib=options.size_mib, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, folder: Path, *, size_mib: int, rounds: int) -> None:
    (folder / "served").mkdir()
    with (folder / "served" / "file.mp4").open("wb") as file:
        for number in range(size_mib):
            file.write(number.to_bytes(8, "big") * (MIB // 8))
    curl: list[list[float]] = []
    durable: list[list[float]] = []
    pipes: list[list[float]] = []
    ours: list[list[float]] = []
    tls: list[list[float]] = []
    ours_tls: list[list[float]] = []
    tls_port = free_port()
    with nginx(folder / "served", folder, tls_port=tls_port) as port:
        url, tls_url = f"http://127.0.0.1:{port}/file.mp4", f"https://127.0.0.1:{tls_port}/file.mp4"
        with _program(WORKER) as worker:
            _line(worker)
            before_kib = _kib(worker.pid, "VmRSS")
            for number in range(rounds + 1):  # the first round warms
                curl.append(_curl(url, folder / "copy"))
                durable.append(_curl(url, folder / "copy", durable=True))
                pipes.append(_curl_and_hash(url, folder / "copy"))
                ours.append(_fetch(worker, 2 * number + 1, url, size_mib))
                tls.append(_curl(tls_url, folder / "copy"))
                ours_tls.append(_fetch(worker, 2 * number + 2, tls_url, size_mib))
            grown_mib = (_kib(worker.pid, "VmHWM") - before_kib) / 1024
    for name, place in (("", 0), (", processor time", 1)):
        report.add(Figure(f"curl -o{name}, s", [each[place] for each in curl[1:]]))
        report.add(Figure(f"curl -o, then fsync{name}, s", [each[place] for each in durable[1:]]))
        report.add(Figure(f"curl, tee, sha256sum, then fsync{name}, s", [each[place] for each in pipes[1:]]))
        report.add(Figure(f"fetch into the hot store{name}, s", [each[place] for each in ours[1:]]))
        report.add(Figure(f"over TLS, curl -o{name}, s", [each[place] for each in tls[1:]]))
        report.add(Figure(f"over TLS, fetch into the hot store{name}, s", [each[place] for each in ours_tls[1:]]))
    report.add(Figure("fetch, until every byte can be read, s", [each[2] for each in ours[1:]]))
    report.add(Figure("fetch, until every byte can be read and is hashed, s", [each[3] for each in ours[1:]]))
    for name, theirs, fetched, place, floor in (
        ("fetch to curl -o, by the clock", curl, ours, 0, 0.8),
        ("fetch to curl -o, until all can be read", curl, ours, 2, None),
        ("fetch to curl -o, until all can be read and is hashed", curl, ours, 3, None),
        ("fetch to curl -o, then fsync, by the clock", durable, ours, 0, None),
        ("fetch to curl, tee, sha256sum, then fsync, by the clock", pipes, ours, 0, None),
        ("over TLS, fetch to curl -o, by the clock", tls, ours_tls, 0, None),
    ):
        ratios = [their[0] / our[place] for their, our in zip(theirs[1:], fetched[1:], strict=True)]
        report.add(Figure(name, ratios, floor=floor))
    report.add(
        Figure(f"worker's memory grown by {2 * (rounds + 1)} files of {size_mib} MiB, MiB", [grown_mib], ceiling=64)
    )


def _curl(url: str, target: Path, *, durable: bool = False) -> list[float]:
    before, began_at = _used_s(), time.perf_counter()
    subprocess.run([CURL or "", "-sSk", "-o", str(target), url], check=True, timeout=LIMIT_S)
    if durable:
        with target.open("rb") as file:
            os.fsync(file.fileno())
    took_s, used_s = time.perf_counter() - began_at, _used_s() - before
    target.unlink()
    return [took_s, used_s]


def _curl_and_hash(url: str, target: Path) -> list[float]:
    """The hash of the whole only, while it arrives: ours has that of each block besides."""
    before, began_at = _used_s(), time.perf_counter()
    with (
        subprocess.Popen([CURL or "", "-sS", url], stdout=subprocess.PIPE) as curl,
        subprocess.Popen([TEE or "", str(target)], stdin=curl.stdout, stdout=subprocess.PIPE) as tee,
    ):
        subprocess.run([SHA256SUM or ""], stdin=tee.stdout, stdout=subprocess.DEVNULL, check=True, timeout=LIMIT_S)
    if curl.returncode or tee.returncode:
        raise SystemExit("curl or tee failed")
    with target.open("rb") as file:
        os.fsync(file.fileno())
    took_s, used_s = time.perf_counter() - began_at, _used_s() - before
    target.unlink()
    return [took_s, used_s]


def _used_s() -> float:
    """Processor time of this process, and of those that have ended: curl."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _fetch(worker: subprocess.Popen[str], number: int, url: str, size_mib: int) -> list[float]:
    """Seconds until durable, of processor time, until all can be read, until that is hashed."""
    if worker.stdin is None:
        raise RuntimeError("the worker was started without a pipe")
    worker.stdin.write(f"{number} {url}\n")
    *figures, size_bytes = json.loads(_line(worker))
    if size_bytes != size_mib * MIB:
        raise SystemExit(f"{size_bytes} bytes came")
    return figures


@contextmanager
def _program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = end_with_us([sys.executable, "-c", code, *arguments])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    """The next line of text that is no log line."""
    while process.stdout is not None and (line := process.stdout.readline()):
        if not line.startswith("{"):
            return line.strip()
    raise RuntimeError("the program ended")


def _kib(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])


if __name__ == "__main__":
    main()
