"""MongoDB, Redis and the Bot API stand-in for one run, each a process of its own, in a folder that goes with it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from apps.core.embedded import free_port, mongod_command, prepare_mongod, redis_command, wait_for_redis
from apps.core.supervisor import end_with_us
from ytserver.env import without_settings


@dataclass(frozen=True, kw_only=True)
class Telegram:
    """The stand-in and what it knows."""

    url: str
    tokens: tuple[str, ...]
    channel: str
    process: subprocess.Popen[bytes]

    def slow_down(self, *, bytes_per_s: float, delay_s: float) -> dict[str, int]:
        """Make each file link that slow and getFile that late from now on; 0: as fast as it can. Returns its counts:
        messages stored, getFile calls and files read."""
        return self._tell({"bytes_per_s": bytes_per_s, "delay_s": delay_s})

    def stored_messages(self) -> int:
        """How many files were stored. Links are as fast as they can be from now on."""
        return self._tell({"bytes_per_s": 0, "delay_s": 0})["stored"]

    def _tell(self, fields: dict[str, float]) -> dict[str, int]:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the stand-in was started without pipes")
        self.process.stdin.write(json.dumps(fields).encode() + b"\n")
        self.process.stdin.flush()
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def bench_instance(*, bots: int, keep: Path | None = None) -> Iterator[Telegram]:
    """Everything is running and Django is set up when the block begins; everything has ended after it.

    ``keep``: a folder that stays, with all that is stored. Indexes are only made when it is new.
    """
    with ExitStack() as stack:
        is_new = keep is None or not (keep / "mongo").exists()
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ytserver-bench-")))
        for name in ("mongo", "redis", "telegram"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        mongo_port, redis_port = free_port(), free_port()
        for command in (
            mongod_command(folder / "mongo", port=mongo_port, log=folder / "mongod.log"),
            redis_command(folder / "redis", port=redis_port, log=folder / "redis.log"),
        ):
            process = subprocess.Popen(end_with_us(command), stdout=subprocess.DEVNULL)
            stack.callback(end_process, process)
        wait_for_redis(redis_port)
        prepare_mongod(mongo_port)
        telegram = _start_telegram(stack, folder / "telegram", bots)
        set_up_django(folder, mongo_port, redis_port, telegram)
        if is_new:
            from apps.core.indexes import ensure_indexes

            ensure_indexes()
        yield telegram


def _start_telegram(stack: ExitStack, folder: Path, bots: int) -> Telegram:
    command = [sys.executable, "-m", "bench.telegram_server", str(folder), str(bots)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(end_process, process)
    said = json.loads(process.stdout.readline() if process.stdout else b"")
    return Telegram(url=said["url"], tokens=tuple(said["tokens"]), channel=said["channel"], process=process)


def set_up_django(folder: Path, mongo_port: int, redis_port: int, telegram: Telegram) -> None:
    """Settings of this run, none of the developer's; only errors are logged, so that only figures are printed."""
    for setting in set(os.environ) - set(without_settings(os.environ)):  # a developer's own settings do not count
        del os.environ[setting]
    os.environ.update(
        ENV_FILE="",
        DJANGO_SETTINGS_MODULE="ytserver.settings",
        DEBUG="true",
        VAR_DIR=str(folder / "var"),
        MONGO_URI=f"mongodb://127.0.0.1:{mongo_port}/bench?directConnection=true",
        REDIS_URL=f"redis://127.0.0.1:{redis_port}/0",
        OUTBOUND_ALLOW="127.0.0.0/8",
        TELEGRAM_API_URL=telegram.url,
        TELEGRAM_FILE_URL=f"{telegram.url}/file",
    )
    import django

    django.setup()
    logging.getLogger().setLevel(logging.ERROR)


def end_process(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    process.wait(timeout=20)
    if process.stdout is not None:
        process.stdout.close()
