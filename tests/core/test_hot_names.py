"""Who sees another hot store than the workers is found out."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command

from apps.core import hot_names
from apps.core.doctor import check_eviction, check_hot_store
from apps.core.heartbeats import HOT_STORES, forget_beats
from apps.core.hot_names import (
    EVICTED_FILE,
    hot_store_name,
    hot_stores_of_workers,
    sees_hot_store_of_workers,
    tell_hot_store,
)
from apps.core.redis import redis_client
from ytserver.heartbeat import say_alive


@pytest.fixture(autouse=True)
def _told_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_names, "LIFE_S", 3600)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run something as a process of another folder would."""

    def run(what: Any, *arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(settings, "ENV", settings.ENV.model_copy(update={"hot_dir": tmp_path / "another"}))
            return what(*arguments)

    return run


@pytest.mark.usefixtures("redis_server", "hot_root")
class TestHotNames:
    def test_each_store_has_one_that_stays(self, elsewhere):
        with ThreadPoolExecutor(8) as threads:
            names = set(threads.map(lambda _: hot_store_name(), range(40)))
        assert names == {hot_store_name()}
        assert elsewhere(hot_store_name) not in names

    def test_workers_that_have_to_do_with_files_tell_theirs(self, elsewhere):
        elsewhere(say_alive, ["resolve"])
        assert hot_stores_of_workers() == set()
        for queue in ("fetch", "upload", "care"):
            redis_client().flushdb()
            say_alive([queue])
            assert hot_stores_of_workers() == {hot_store_name()}

    def test_who_sees_another_one_knows_it(self, elsewhere):
        assert sees_hot_store_of_workers()  # nobody says anything
        elsewhere(tell_hot_store)
        assert not sees_hot_store_of_workers()
        assert elsewhere(sees_hot_store_of_workers)
        tell_hot_store()
        assert sees_hot_store_of_workers()

    def test_a_worker_that_is_gone_counts_no_more(self, elsewhere):
        elsewhere(tell_hot_store)
        redis_client().zincrby(HOT_STORES, -hot_names.LIFE_S - 1, elsewhere(hot_store_name))
        assert sees_hot_store_of_workers()
        tell_hot_store()
        assert redis_client().zcard(HOT_STORES) == 1
        forget_beats()
        assert hot_stores_of_workers() == set()

    def test_without_redis_nobody_is_accused(self, settings):
        settings.ENV = settings.ENV.model_copy(update={"hot_dir": Path("/proc/none")})
        tell = redis_client().time()[0]
        redis_client().zadd(HOT_STORES, {"another": tell})
        assert sees_hot_store_of_workers()  # it has none at all: that is told elsewhere


@pytest.mark.usefixtures("mongo", "redis_server", "hot_root")
class TestDoctor:
    def test_one_store_for_all_is_right(self):
        assert check_hot_store().ok
        tell_hot_store()
        assert check_hot_store().ok

    def test_files_leave_a_store_that_a_worker_uses(self):
        assert check_eviction().text == "no worker runs now"
        tell_hot_store()
        assert (check_eviction().ok, check_eviction().text) == (True, "the workers see to it")

    def test_a_store_that_no_worker_uses_grows_unless_somebody_has_files_leave_it(self, elsewhere):
        elsewhere(tell_hot_store)
        result = check_eviction()
        assert (result.ok, "until the disk is full" in result.text) == (False, True)
        assert "cache evict" in result.fix
        call_command("cache", "evict", stdout=StringIO())
        assert check_eviction().ok
        two_days_ago = time.time() - 2 * 86400
        os.utime(settings.ENV.hot_root / EVICTED_FILE, (two_days_ago, two_days_ago))
        assert not check_eviction().ok

    def test_another_one_is_a_problem_also_beside_the_right_one(self, elsewhere):
        elsewhere(tell_hot_store)
        assert not check_hot_store().ok
        tell_hot_store()
        result = check_hot_store()
        assert not result.ok
        assert "HOT_DIR" in result.fix
