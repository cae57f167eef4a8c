from __future__ import annotations

import threading
from types import SimpleNamespace

import mongoengine
import pymongo
import pytest
from django.test import Client

from apps.core import health
from apps.core.heartbeats import QUEUES, beat
from apps.core.redis import redis_client
from apps.core.room import MIB, Room
from tests.full_redis import full_redis
from tests.strangers import WRONG_WORD, redis_url_of_a_stranger
from tests.waiting import wait_until

pytestmark = [pytest.mark.urls("tests.urls_for_tests"), pytest.mark.usefixtures("mongo", "redis_server")]


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(health, "_checker", health._Checker())


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


class TestReadyz:
    def test_is_ready_and_tells_which_queues_nobody_works_on(self, client):
        beat(["resolve", "fetch"])
        answer = client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json() == {"status": True, "down": {}, "idle_queues": ["upload", "care"]}
        assert set(QUEUES) == {"resolve", "fetch", "upload", "care"}

    def test_names_mongodb_when_it_is_down(self, client, monkeypatch):
        with pymongo.MongoClient(port=1, serverSelectionTimeoutMS=3_600_000) as nobody:
            monkeypatch.setattr(mongoengine, "get_db", lambda: nobody["x"])
            answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")
        assert list(answer.json()["down"]) == ["mongodb"]

    def test_names_redis_when_it_is_down(self, client, settings):
        settings.SERVICES = settings.SERVICES.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0"})
        redis_client.cache_clear()
        answer = client.get("/readyz")
        redis_client.cache_clear()
        assert answer.status_code == 503
        assert list(answer.json()["down"]) == ["redis"]
        assert b"hunter2" not in answer.content

    def test_a_full_redis_takes_nobody_away_who_has_answers_without_it(self, client):
        with full_redis():
            answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["down"]) == (200, {})

    def test_a_full_redis_is_named_where_every_key_is_refused_then(self, client, settings):
        settings.ENV = settings.ENV.model_copy(update={"limits_on_redis_loss": "deny"})
        assert client.get("/readyz").status_code == 200
        health._checker = health._Checker()
        with full_redis():
            answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["down"]) == (503, {"redis": "is full"})

    def test_a_password_that_is_refused_is_told_as_that(self, client, settings):
        settings.SERVICES = settings.SERVICES.model_copy(update={"redis_url": redis_url_of_a_stranger()})
        redis_client.cache_clear()
        answer = client.get("/readyz")
        redis_client.cache_clear()
        assert answer.json()["down"] == {"redis": "refuses our password"}
        assert WRONG_WORD.encode() not in answer.content

    def test_names_a_hot_store_that_cannot_be_written(self, client, settings, tmp_path):
        (tmp_path / "file").write_text("")
        settings.ENV = settings.ENV.model_copy(update={"hot_dir": tmp_path / "file" / "hot"})
        answer = client.get("/readyz")
        assert answer.json()["down"] == {"hot_store": "cannot be written (Not a directory)"}

    def test_names_a_disk_that_is_nearly_full(self, client, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**12, free=255 * MIB))
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["down"] == {"hot_store": "its disk is full, 255.0 MiB are free"}

    def test_a_small_disk_on_which_eviction_has_made_room_is_ready(self, client, monkeypatch):
        total = 2000 * MIB
        free = Room(total, 0).kept_free_bytes
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=total, free=free))
        assert client.get("/readyz").status_code == 200

    def test_a_part_that_hangs_is_named_after_the_time_limit(self, client, monkeypatch):
        go_on = threading.Event()
        monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.2)
        monkeypatch.setattr(health, "STRAGGLER_S", 0.1)
        monkeypatch.setitem(health.CHECKS, "hot_store", lambda: "never seen" if go_on.wait(20) else None)
        answer = client.get("/readyz")
        go_on.set()
        assert answer.json()["down"] == {"hot_store": "takes too long"}

    def test_a_part_that_goes_on_hanging_takes_one_thread_however_often_somebody_asks(self, client, monkeypatch):
        go_on, looks = threading.Event(), []
        monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.2)
        monkeypatch.setattr(health, "STRAGGLER_S", 0.1)
        monkeypatch.setattr(health, "REMEMBERED_S", 0)
        monkeypatch.setitem(health.CHECKS, "hot_store", lambda: looks.append(go_on.wait(60)))
        monkeypatch.setitem(health.CHECKS, "redis", lambda: looks.append("redis"))
        for _ in range(3):
            assert client.get("/readyz").json()["down"] == {"hot_store": "takes too long"}
        go_on.set()
        wait_until(lambda: True in looks)
        assert looks == ["redis"] * 3 + [True]
        wait_until(lambda: client.get("/readyz").status_code == 200)

    def test_many_simultaneous_questions_look_once(self, monkeypatch):
        looks: list[int] = []
        monkeypatch.setitem(health.CHECKS, "redis", lambda: looks.append(1))
        threads = [threading.Thread(target=lambda: Client().get("/readyz")) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(looks) == 1

    def test_needs_no_key_and_costs_none(self, client):
        assert client.get("/healthz").json() == {"status": True}
        assert redis_client().keys("yt:refused:*") == []
