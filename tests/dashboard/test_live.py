"""The live dashboard: who may listen, what is sent, and that one process computes it, only while somebody looks."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apps.core.machines import FRESH_S, KEY, keep_reporting, machines, report_machine
from apps.core.redis import redis_client
from apps.dashboard import sockets
from apps.dashboard.live.moment import PIECES, moment_text
from apps.dashboard.live.publisher import LEASE_KEY, Publisher
from apps.dashboard.sockets import FORBIDDEN, LOGGED_OUT
from apps.keys.documents import Role, User
from tests.core.serving import serving
from tests.dashboard.samples import fill_server, make_bot, make_job
from tests.waiting import wait_until
from ytserver.asgi import application


@pytest.fixture(scope="module")
def url():
    with serving(application, ws="websockets-sansio") as address:
        yield address.replace("http", "ws", 1)


def look(url: str, client=None, *, origin: str | None = None) -> ClientConnection:
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items()) if client else ""
    own = url.replace("ws", "http", 1)
    return connect(f"{url}/ws/admin/live", origin=origin or own, additional_headers={"Cookie": cookies})


def closed_with(socket: ClientConnection) -> int:
    try:
        while True:
            socket.recv(timeout=15)
    except ConnectionClosed as end:
        return end.rcvd.code


class TestWhoMayListen:
    def test_a_viewer_gets_the_last_hour_at_once_and_then_the_moment(self, url, viewer):
        make_job(1)
        with look(url, viewer) as socket:
            history = json.loads(socket.recv(timeout=15))
            assert (history["type"], len(history["starts"])) == ("history", 360)
            moment = json.loads(socket.recv(timeout=15))
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
            socket.recv(timeout=15)
            viewer.post("/admin/logout")
            assert closed_with(socket) == LOGGED_OUT


class TestPublisher:
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
    def test_each_that_reports_has_a_row_and_one_that_fell_silent_has_none(self, server, monkeypatch):
        report_machine()
        assert redis_client().hlen(KEY) == 0  # nobody looks
        alone = json.loads(moment_text())["pieces"]["machine"]
        assert socket.gethostname() in alone
        monkeypatch.setattr("socket.gethostname", lambda: "node-two")
        report_machine()
        monkeypatch.undo()
        both = json.loads(moment_text())["pieces"]["machine"]
        assert "node-two" in both
        assert socket.gethostname() in both
        late = json.loads(redis_client().hget(KEY, "node-two")) | {"at": time.time() - FRESH_S - 1}
        redis_client().hset(KEY, "node-two", json.dumps(late))
        assert "node-two" not in json.loads(moment_text())["pieces"]["machine"]
        assert not redis_client().hexists(KEY, "node-two")

    async def test_a_web_process_reports_by_itself_while_somebody_looks(self, server):
        await asyncio.to_thread(machines)
        redis_client().delete(KEY)
        task = asyncio.create_task(keep_reporting())
        await until(lambda: redis_client().hlen(KEY) == 1)
        task.cancel()


def test_the_moment_holds_no_secret_and_stays_small(server):
    fill_server()
    make_bot("777", username="third")
    text = moment_text()
    assert len(text) < 100_000
    assert "secret" not in text
    assert "@second_bot" in json.loads(text)["pieces"]["bots"]
