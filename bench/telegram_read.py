"""How fast a cold asset comes back from Telegram, beside a plain HTTP client reading the same parts in turn.

``python -m bench.telegram_read [--size-mib 190] [--rounds 5] [--json]``. The stand-in runs in a process of its own; the
plain client (aiohttp: getFile, then the link, part by part, bytes thrown away) and ours take turns in the same run, so
that only the ratios count: once with a server that sends as fast as it can (then the processors of this machine
decide), once with one that is as slow as a network (LINK_BYTES_PER_S a link). Also: processor time of this process for
a MiB (on a shared machine it says more than the clock), uploads, and what verifying costs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import closing

import aiohttp

from bench.instance import Telegram, bench_instance
from bench.report import Figure, Report

MIB = 1024 * 1024
BOTS = 4
MAX_SIZE_MIB = 2000
MAX_ROUNDS = 20
LINK_BYTES_PER_S = 50_000_000
GET_FILE_S = 0.05


def main() -> None:
    options = _read_options()
    report = Report("telegram_read")
    with bench_instance(bots=BOTS) as telegram:
        asyncio.run(_run(report, telegram, size_bytes=options.size_mib * MIB + 4321, rounds=options.rounds))
    report.show(as_json=options.json)


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.telegram_read", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=190, help="size of the asset (default: 190, ten parts)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (1 <= options.size_mib <= MAX_SIZE_MIB and 1 <= options.rounds <= MAX_ROUNDS):
        parser.error(f"sizes from 1 to {MAX_SIZE_MIB} MiB, 1 to {MAX_ROUNDS} rounds")
    return options


async def _run(report: Report, telegram: Telegram, *, size_bytes: int, rounds: int) -> None:
    from apps.telegram_cache.services import upload_asset
    from apps.telegram_cache.services.bots import add_bot, disable_bot
    from apps.telegram_cache.services.channels import add_channel
    from bench.media import make_asset, open_sparse, remove_hot, target_of

    for token in telegram.tokens:
        add_bot(token)
    add_channel(telegram.channel)
    report.note(f"An asset of {size_bytes / MIB:.0f} MiB")
    asset_id = make_asset(size_bytes)
    uploading_s = await _timed(lambda: asyncio.to_thread(upload_asset, asset_id))
    report.add(Figure("sent in parts before, MiB/s", [size_bytes / MIB / uploading_s]))
    report.add(Figure("what SHA-256 alone can do on one core, MiB/s", [_hashing_speed()]))
    target = target_of(asset_id)

    async def ours() -> None:
        from apps.telegram_cache.reader import TelegramFiller

        await asyncio.to_thread(remove_hot, asset_id)
        filler = TelegramFiller()
        try:
            with closing(open_sparse(target)) as hot_file:
                for block in range(len(target.block_hashes)):
                    if not hot_file.has_block(block):
                        await filler.fill(target, hot_file, block)
        finally:
            await filler.aclose()

    async def plain() -> None:
        await _read_plainly(telegram, asset_id)

    for name, bots, floor in ((f"{BOTS} bots", BOTS, 1.0), ("1 bot", 1, 0.8)):
        for number in range(bots, BOTS):
            disable_bot(str(1001 + number))
        telegram.slow_down(bytes_per_s=LINK_BYTES_PER_S, delay_s=GET_FILE_S)
        network = await _compare(ours, plain, rounds=rounds)
        _tell(report, f"{name}, as slow as a network", network, size_bytes / MIB, floor)
        telegram.slow_down(bytes_per_s=0, delay_s=0)
        loopback = await _compare(ours, plain, rounds=rounds)
        _tell(report, f"{name}, bare loopback", loopback, size_bytes / MIB, floor)


async def _read_plainly(telegram: Telegram, asset_id: str) -> None:
    from apps.telegram_cache.selectors import find_asset

    asset = find_asset(asset_id)
    if asset is None:
        raise RuntimeError("the asset is not on record")
    async with aiohttp.ClientSession(read_bufsize=256 * 1024) as session:
        for part in asset.parts:
            bot_id, file_id = next(iter(part.file_ids.items()))
            token = next(token for token in telegram.tokens if token.startswith(f"{bot_id}:"))
            async with session.post(f"{telegram.url}/bot{token}/getFile", data={"file_id": file_id}) as answer:
                path = (await answer.json())["result"]["file_path"]
            size = 0
            async with session.get(f"{telegram.url}/file/bot{token}/{path}") as answer:
                async for piece in answer.content.iter_any():
                    size += len(piece)
            if size != part.size:
                raise RuntimeError("the plain client got another size")


async def _compare(
    ours: Callable[[], Awaitable[None]], plain: Callable[[], Awaitable[None]], *, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """By the clock and of processor time, in seconds. Alternating, after one round of each that does not count."""
    await ours()
    await plain()
    found: dict[str, list[tuple[float, float]]] = {"plain client": [], "reader": []}
    for _ in range(rounds):
        for name, work in (("plain client", plain), ("reader", ours)):
            cpu_at = time.process_time()
            found[name].append((await _timed(work), time.process_time() - cpu_at))
    return found


def _tell(
    report: Report, name: str, found: dict[str, list[tuple[float, float]]], size_mib: float, floor: float
) -> None:
    pairs = zip(found["plain client"], found["reader"], strict=True)
    report.add(Figure(f"{name}: reader to plain client", [theirs[0] / our[0] for theirs, our in pairs], floor=floor))
    for who, times in found.items():
        report.add(Figure(f"{name}: {who}, MiB/s", [size_mib / clock_s for clock_s, _ in times]))
        report.add(
            Figure(f"{name}: {who}, processor time, ms for a MiB", [1000 * cpu_s / size_mib for _, cpu_s in times])
        )


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    started_at = time.perf_counter()
    await work()
    return time.perf_counter() - started_at


def _hashing_speed() -> float:
    block = bytes(MIB)
    started_at = time.perf_counter()
    for _ in range(100):
        hashlib.sha256(block).digest()
    return 100 / (time.perf_counter() - started_at)


if __name__ == "__main__":
    main()
