"""What an instance consists of: how each of its programs is started, and in which order they stop."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from apps.core.embedded import EmbeddedServices, mongod_command, redis_command
from apps.core.forking import Nursery
from apps.core.instance import RUN_MARK
from apps.core.supervisor import Program
from ytserver.env import BASE_DIR, Env

STOP_WEB, STOP_WORKERS, STOP_REDIS, STOP_MONGO = range(4)
WORKERS = ("resolve", "fetch", "upload", "care")
"""Each works on the queue of its name, so that none fills another's threads. ``care`` has the clock too."""
WEB_GRACE_S = 8.0
WORKER_GRACE_S = 10.0
DATABASE_GRACE_S = 30.0


def mongod_program(services: EmbeddedServices, *, var_dir: Path, mark: str) -> Program:
    assert services.mongo_port is not None  # noqa: S101 - the caller asked before
    log = var_dir / "log" / "mongod.log"
    command = mongod_command(var_dir / "mongo", port=services.mongo_port, log=log, key_file=services.mongo_key_file)
    return Program(
        name="MongoDB",
        command=command,
        environ=_environ(mark),
        log=log.with_name("mongod.out.log"),
        folder=var_dir,
        stop_rank=STOP_MONGO,
        grace_s=DATABASE_GRACE_S,
        death_signal=signal.SIGTERM,  # a clean end also when we were killed
    )


def redis_program(services: EmbeddedServices, *, var_dir: Path, mark: str) -> Program:
    assert services.redis_port is not None  # noqa: S101 - the caller asked before
    log = var_dir / "log" / "redis.log"
    command = redis_command(
        var_dir / "redis", port=services.redis_port, log=log, password_file=services.redis_password_file
    )
    return Program(
        name="Redis",
        command=command,
        environ=_environ(mark),
        log=log.with_name("redis.out.log"),
        folder=var_dir,
        stop_rank=STOP_REDIS,
        grace_s=DATABASE_GRACE_S,
        death_signal=signal.SIGTERM,
    )


def nursery_program(nursery: Nursery, *, log_dir: Path, mark: str) -> Program:
    """Imports what web processes and workers need, so that they need not."""
    return Program(
        name="nursery",
        command=nursery.command,
        environ=_environ(mark),
        log=log_dir / "nursery.log",
        folder=BASE_DIR,
        stop_rank=STOP_WEB,
        grace_s=WEB_GRACE_S,
        pass_fds=(nursery.descriptor,),
    )


def web_programs(env: Env, *, listener_fd: int, mark: str = "", log: Path | None = None) -> list[Program]:
    """WEB_WORKERS processes that accept from the same listening socket."""
    return [
        Program(
            name=f"web {number}",
            command=[sys.executable, "-m", "apps.core.web_worker", str(listener_fd)],
            environ=_environ(mark),
            log=log,
            folder=BASE_DIR,
            stop_rank=STOP_WEB,
            grace_s=WEB_GRACE_S,
            pass_fds=(listener_fd,),
            forked=True,
        )
        for number in range(1, env.web_workers + 1)
    ]


def worker_programs(env: Env, *, log_dir: Path, mark: str) -> list[Program]:
    """The background workers; one of them also has the clock that wakes them."""
    celery = [sys.executable, "-m", "celery", "--skip-checks", "-A", "ytserver"]
    quiet = ["--without-mingle", "--without-gossip", "--without-heartbeat"]  # we keep our own heartbeats, in Redis
    threads = ["-P", "threads", "-c", str(env.worker_threads)]
    clock = ["--clock", "-s", str(env.var_dir / "run" / "beat-schedule")]
    return [
        Program(
            name=f"worker {name}",
            command=[*celery, "worker", "-n", f"{name}@%h", "-Q", name, *threads, *quiet, "-l", "INFO",
                     *(clock if name == "care" else ())],
            environ=_environ(mark),
            log=log_dir / f"worker-{name}.log",
            folder=BASE_DIR,
            stop_rank=STOP_WORKERS,
            grace_s=WORKER_GRACE_S,
            forked=True,
        )
        for name in WORKERS
    ]  # fmt: skip


def _environ(mark: str) -> dict[str, str]:
    own = {"PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "ytserver.settings"}
    return {**os.environ, **own, **({RUN_MARK: mark} if mark else {})}
