"""Pytest plugin, loaded first: every run gets its own VAR_DIR, mongod and Redis before Django reads its settings.

The controlling process starts mongod; pytest-xdist workers share it, each with its own database and folder. Each has a
Redis of its own: some tests make it refuse to write, cut everybody's connections or forget its scripts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from pymongo import monitoring

from apps.core.embedded import mongod_command, prepare_mongod, redis_command, wait_for_redis
from apps.core.supervisor import end_with_us
from tests.scans import scans
from ytserver.env import without_settings

ROOT_VARIABLE = "YTSERVER_TEST_ROOT"
IS_CONTROLLER = ROOT_VARIABLE not in os.environ
START_TIMEOUT_S = 120  # however slow this machine is
_processes = []

if IS_CONTROLLER:
    os.environ[ROOT_VARIABLE] = tempfile.mkdtemp(prefix="ytserver-test-")

from tests.ports import free_port  # noqa: E402 - each run has its own ports, by its folder's name

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
if IS_CONTROLLER:
    os.environ["YTSERVER_TEST_MONGO_PORT"] = str(free_port())

ROOT = Path(os.environ[ROOT_VARIABLE])
MONGO_PORT, REDIS_PORT = int(os.environ["YTSERVER_TEST_MONGO_PORT"]), free_port()

for setting in set(os.environ) - set(without_settings(os.environ)):  # a developer's own settings are not the tests'
    del os.environ[setting]
os.environ.update(
    ENV_FILE="",
    DJANGO_SETTINGS_MODULE="ytserver.settings",
    DEBUG="true",
    VAR_DIR=str(ROOT / WORKER),
    MONGO_URI=f"mongodb://127.0.0.1:{MONGO_PORT}/test_{WORKER}?directConnection=true",
    REDIS_URL=f"redis://127.0.0.1:{REDIS_PORT}/0",
    OUTBOUND_ALLOW="127.0.0.0/8,::1/128",
    PUBLIC_URL="http://testserver",
)


monitoring.register(scans)  # before anything connects


def _start(command: list[str]) -> None:
    _processes.append(subprocess.Popen(end_with_us(command), stdout=subprocess.DEVNULL))


def _raise_if_ended() -> None:
    for process in _processes:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}: see the logs in {ROOT}")


def pytest_configure(config: pytest.Config) -> None:
    # A Redis connection of an event loop that ended in the middle of a call is found by the garbage collector in some
    # later test, which is not to blame. Every other connection that is left open is still an error: its socket tells.
    for message in (
        f"unclosed <socket.*{REDIS_PORT}",
        "unclosed Connection <redis",
        "unclosed transport",
        "loop is closed",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}:ResourceWarning")
    redis = ROOT / f"redis-{WORKER}"
    redis.mkdir()
    _start(redis_command(redis, port=REDIS_PORT, log=ROOT / f"redis-{WORKER}.log"))
    if IS_CONTROLLER:
        (ROOT / "mongo").mkdir()
        # Old times in tests' documents are no reason to remove them while the test runs.
        no_ttl = ["--setParameter", "ttlMonitorEnabled=false"]
        _start([*mongod_command(ROOT / "mongo", port=MONGO_PORT, log=ROOT / "mongod.log"), *no_ttl])
        prepare_mongod(MONGO_PORT, timeout_s=START_TIMEOUT_S, check=_raise_if_ended)
    wait_for_redis(REDIS_PORT, timeout_s=START_TIMEOUT_S, check=_raise_if_ended)


def pytest_unconfigure(config: pytest.Config) -> None:
    for process in _processes:
        process.terminate()
    for process in _processes:
        process.wait(timeout=60)
    if IS_CONTROLLER:
        shutil.rmtree(ROOT, ignore_errors=True)
