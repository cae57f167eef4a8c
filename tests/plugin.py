"""Pytest plugin, loaded first: gives every run its own VAR_DIR, a real mongod and a real Redis, before Django reads settings.

The controlling process starts the servers; pytest-xdist workers share them, each with its own database and folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from apps.core.embedded import free_port, prepare_mongod, start_mongod, start_redis, wait_for_redis

ROOT_VARIABLE = "YTSERVER_TEST_ROOT"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
IS_CONTROLLER = ROOT_VARIABLE not in os.environ
_processes = []

if IS_CONTROLLER:
    os.environ[ROOT_VARIABLE] = tempfile.mkdtemp(prefix="ytserver-test-")
    os.environ["YTSERVER_TEST_PORTS"] = f"{free_port()},{free_port()}"

ROOT = Path(os.environ[ROOT_VARIABLE])
MONGO_PORT, REDIS_PORT = (int(port) for port in os.environ["YTSERVER_TEST_PORTS"].split(","))
WORKER_NUMBER = int(WORKER.removeprefix("gw")) + 1 if WORKER.startswith("gw") else 0

os.environ.update(
    DJANGO_SETTINGS_MODULE="ytserver.settings",
    DEBUG="true",
    VAR_DIR=str(ROOT / WORKER),
    MONGO_URI=f"mongodb://127.0.0.1:{MONGO_PORT}/test_{WORKER}?directConnection=true",
    REDIS_URL=f"redis://127.0.0.1:{REDIS_PORT}/{WORKER_NUMBER}",
    OUTBOUND_ALLOW="127.0.0.0/8,::1/128",
    PUBLIC_URL="http://testserver",
)


def pytest_configure(config: pytest.Config) -> None:
    if IS_CONTROLLER:
        _processes.append(start_mongod(ROOT / "mongo", MONGO_PORT))
        _processes.append(start_redis(ROOT / "redis", REDIS_PORT))
        wait_for_redis(REDIS_PORT)
        prepare_mongod(MONGO_PORT)


def pytest_unconfigure(config: pytest.Config) -> None:
    if IS_CONTROLLER:
        for process in _processes:
            process.terminate()
        for process in _processes:
            process.wait(timeout=20)
        shutil.rmtree(ROOT, ignore_errors=True)
