"""What was answered is counted, whatever is killed in between: the whole server as processes, and real kills."""

from __future__ import annotations

import json
import signal
import threading

import httpx
import psutil
import pymongo
import pytest
import redis

from apps.analytics.events import STREAM
from tests.core.test_up import Up
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

CALLERS = 3
VICTIMS = {"redis": "redis-server", "mongod": "mongod", "worker": "celery"}


class Callers:
    """They ask all the time, and count whole answers by status."""

    def __init__(self, url: str, key: str) -> None:
        self.answers: list[int] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url, key)) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _run(self, url: str, key: str) -> None:
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=60) as client:
            while not self._stop.is_set():
                self.answers.append(client.get("/api/v1/cache/stats").status_code)
                self._stop.wait(0.02)

    def until_more(self, number: int) -> None:
        wanted = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= wanted, timeout_s=120)

    def until_good(self) -> None:
        """Until the server works again."""
        wait_until(lambda: self.answers[-5:] == [200] * 5, timeout_s=120)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def up(tmp_path):
    up = Up(tmp_path, WEB_WORKERS="2").start("--json")
    yield up
    up.stop()


def test_after_each_kill_the_events_are_as_many_as_the_answers(up, tmp_path):
    ready = up.wait_ready()
    services = json.loads((tmp_path / "run" / "services.json").read_text())
    callers = Callers(ready["url"], ready["first_start"]["api_key"])
    try:
        callers.until_more(20)
        for name in VICTIMS.values():
            victims = [process for process in up.processes() if name in " ".join(process.cmdline())]
            assert victims, name
            for victim in victims:
                kill(victim)
            callers.until_more(20)
            callers.until_good()
    finally:
        callers.stop()
    with (
        redis.Redis.from_url(services["redis_url"]) as client,
        pymongo.MongoClient(services["mongo_uri"], directConnection=True) as mongo,
    ):
        events = mongo.get_default_database("ytserver")["usage_stats"]
        mine = {"route": "/api/v1/cache"}
        wait_until(lambda: events.count_documents(mine) >= len(callers.answers), timeout_s=120)
        wait_until(lambda: not client.xlen(STREAM), timeout_s=120)
        assert events.count_documents(mine) == len(callers.answers)
        assert events.count_documents({**mine, "status": 200}) == callers.answers.count(200)


def kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
