"""The live dashboard: who may listen, what is sent, and that one process computes it, only while somebody looks."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apps.core.heartbeats import QUEUES, idle_queues
from apps.core.machines import (
    AWAY_KEPT_S,
    FRESH_S,
    KEY,
    WATCHED,
    _Processors,
    forget_machine,
    keep_reporting,
    machine,
    machines,
    report_machine,
)
from apps.core.redis import redis_client
from apps.dashboard import sockets
from apps.dashboard.live.moment import PIECES, moment_text, read_moment
from apps.dashboard.live.publisher import LEASE_KEY, Publisher
from apps.dashboard.sockets import FORBIDDEN, LOGGED_OUT
from apps.keys.documents import Role, User
from apps.telegram_cache.services.bots import disable_bot
from tests.core.serving import closed_with, serving
from tests.dashboard.samples import fill_server, make_bot, make_channel, make_job
from tests.waiting import Clock, wait_until
from ytserver.asgi import application
from ytserver.heartbeat import _try_beat


@pytest.fixture(scope="module")
def url():
    with serving(application, ws="websockets-sansio") as address:
        yield address.replace("http", "ws", 1)


def look(url: str, client=None, *, origin: str | None = None) -> ClientConnection:
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items()) if client else ""
    own = url.replace("ws", "http", 1)
    return connect(f"{url}/ws/admin/live", origin=origin or own, additional_headers={"Cookie": cookies})


class TestWhoMayListen:
    def test_a_viewer_gets_the_last_hour_at_once_and_then_the_moment(self, url, viewer):
        make_job(1)
        with look(url, viewer) as socket:
            history = json.loads(socket.recv(timeout=60))
            assert (history["type"], len(history["starts"])) == ("history", 360)
            moment = json.loads(socket.recv(timeout=60))
            assert moment["type"] == "moment"
            assert set(moment["pieces"]) == set(PIECES)
            assert "video000001" in moment["pieces"]["jobs"]
            assert "requests_per_s" in moment["figures"]

    def test_nobody_and_a_user_without_a_role_are_turned_away(self, url, viewer):
        with look(url) as socket:
            assert closed_with(socket) == LOGGED_OUT
        User.objects.update(role=Role.NONE.value)
        with look(url, viewer) as socket:
            assert closed_with(socket) == LOGGED_OUT

    def test_a_page_of_another_port_is_turned_away(self, url, viewer):
        with look(url, viewer, origin="http://127.0.0.1:1") as socket:
            assert closed_with(socket) == FORBIDDEN

    @pytest.mark.parametrize("origin", ["https://elsewhere.example", "null"])
    def test_a_page_of_elsewhere_is_not_even_let_in(self, url, viewer, origin):
        with pytest.raises(InvalidStatus, match="403"), look(url, viewer, origin=origin):
            pass

    def test_logging_out_ends_it(self, url, viewer, monkeypatch):
        monkeypatch.setattr(sockets, "RECHECK_S", 0.2)
        with look(url, viewer) as socket:
            socket.recv(timeout=60)
            viewer.post("/admin/logout")
            assert closed_with(socket) == LOGGED_OUT


class TestPublisher:
    @pytest.fixture(autouse=True)
    async def _nothing_left(self):
        yield
        if left := [task for task in asyncio.all_tasks() if task.get_name() == "live-publisher"]:
            await asyncio.wait(left)

    async def test_of_many_processes_one_reads_and_nobody_does_when_nobody_looks(self, redis_server):
        reads: Counter[str] = Counter()

        def reader(name: str):
            def read() -> str:
                reads[name] += 1
                return "{}"

            return read

        candidates = [Publisher(reader(name)) for name in "abc"]
        for candidate in candidates:
            candidate.enter()
        await until(lambda: sum(reads.values()) >= 2)
        assert len(reads) == 1
        leader = next(one for one, name in zip(candidates, "abc", strict=True) if name in reads)
        leader.leave()
        await until(lambda: len(reads) == 2)
        for candidate in candidates:
            if candidate is not leader:
                candidate.leave()
        await until(lambda: redis_client().get(LEASE_KEY) is None)
        done = reads.copy()
        await asyncio.sleep(0)
        assert reads == done

    async def test_goes_on_after_a_failure(self, redis_server):
        calls = iter([OSError("away"), None])
        done: list[int] = []

        def read() -> str:
            if (error := next(calls, None)) is not None:
                raise error
            done.append(1)
            return "{}"

        candidate = Publisher(read)
        candidate.enter()
        await until(lambda: bool(done))
        candidate.leave()


async def until(condition) -> None:
    await asyncio.to_thread(wait_until, condition)


class TestMachines:
    @pytest.fixture
    def clock(self, server, monkeypatch):
        clock = Clock()
        monkeypatch.setattr("apps.core.machines.time", clock)
        return clock

    def piece(self) -> str:
        return json.loads(moment_text())["pieces"]["machine"]

    def report(self, name: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("socket.gethostname", lambda: name)
            report_machine()

    def test_each_that_reports_has_a_row(self, clock):
        self.report("node-two")
        assert redis_client().hlen(KEY) == 0  # nobody looks
        assert socket.gethostname() in self.piece()
        self.report("node-two")
        both = self.piece()
        assert "node-two" in both
        assert socket.gethostname() in both
        assert "away" not in both

    def test_the_processors_are_measured_since_the_last_look_whichever_thread_had_it(self, server, monkeypatch):
        monkeypatch.setattr("apps.core.machines.MIN_GAP_S", 0)
        monkeypatch.setattr("apps.core.machines._processors", _Processors())
        machine()
        ended_at = os.times().user + 0.2
        while os.times().user < ended_at:
            pass
        with ThreadPoolExecutor(1) as other:
            assert other.submit(machine).result().cpu_percent > 0

    def test_one_that_falls_silent_while_somebody_looks_is_away_until_it_speaks_or_is_forgotten(self, clock):
        machines()
        self.report("node-two")
        clock.ahead_s += FRESH_S + 1
        away = self.piece()
        assert "node-two" in away
        assert ">away<" in away
        assert "silent for 0:16" in away
        self.report("node-two")
        assert ">away<" not in self.piece()
        clock.ahead_s += AWAY_KEPT_S + 1
        assert "node-two" not in self.piece()
        assert not redis_client().hexists(KEY, "node-two")

    def test_one_of_a_newer_version_that_reports_more_is_shown_all_the_same(self, clock):
        machines()
        self.report("node-two")
        report = json.loads(redis_client().hget(KEY, "node-two"))
        redis_client().hset(KEY, "node-two", json.dumps({**report, "of_a_newer_version": [1]}))
        assert [one.name for one in machines()] == [socket.gethostname(), "node-two"]
        clock.ahead_s += FRESH_S + 1
        assert machines()[1].silent_s > FRESH_S

    def test_silence_while_nobody_looked_counts_for_nothing(self, clock):
        machines()
        self.report("node-two")
        redis_client().delete(WATCHED)  # nobody looked for WATCHED_S
        clock.ahead_s += 100
        assert "node-two" not in self.piece()  # it has not had the time to report
        clock.ahead_s += FRESH_S + 1
        assert ">away<" in self.piece()

    def test_one_that_is_stopped_in_good_order_is_not_away(self, clock):
        machines()
        self.report("node-two")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("socket.gethostname", lambda: "node-two")
            forget_machine()
        clock.ahead_s += FRESH_S + 1
        assert "node-two" not in self.piece()

    def test_a_worker_says_that_it_works_also_when_its_disk_cannot_be_read(self, server, monkeypatch):
        def away(_folder):
            raise OSError(errno.EIO, "Input/output error")

        machines()  # somebody looks
        monkeypatch.setattr("shutil.disk_usage", away)
        _try_beat(QUEUES)
        assert idle_queues() == []

    async def test_a_web_process_reports_by_itself_while_somebody_looks(self, server):
        await asyncio.to_thread(machines)
        redis_client().delete(KEY)
        task = asyncio.create_task(keep_reporting())
        await until(lambda: redis_client().hlen(KEY) == 1)
        task.cancel()


def test_the_health_of_telegram_is_that_of_this_moment(server):
    make_channel()
    bots = [make_bot("123456"), make_bot("234567")]

    def said() -> str:
        return next(part.text for part in read_moment()["health"] if part.name == "Telegram")

    assert said().startswith("2 of 2 bots usable")
    for bot, words in zip(bots, ("1 of 2 bots usable", "No bot can be used."), strict=True):
        disable_bot(bot.bot_id)
        assert said().startswith(words)


def test_the_moment_holds_no_secret_and_stays_small(server):
    fill_server()
    make_bot("777", username="third")
    text = moment_text()
    assert len(text) < 100_000
    assert "secret" not in text
    assert "@second_bot" in json.loads(text)["pieces"]["bots"]
