"""Who may open a websocket of the admin, and who is cut off while it is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from apps.core.websockets import BUSY
from apps.dashboard import sockets
from apps.dashboard.sockets import AdminConsumer
from apps.keys.documents import Role, User
from tests.core.serving import closed_with, serving
from tests.waiting import wait_until


class Talker(AdminConsumer):
    required_role = Role.OPERATOR

    async def run(self) -> None:
        await self.send(text_data=f"hello {self.admin_user.username}")
        await asyncio.Event().wait()


class Short(AdminConsumer):
    async def run(self) -> None:
        await self.send(text_data="all")


async def application(scope, receive, send):
    consumer = Short if scope["path"] == "/short" else Talker
    await consumer.as_asgi()(scope, receive, send)


@pytest.fixture(scope="module")
def url():
    with serving(application, ws="websockets-sansio", lifespan="off") as address:
        yield address.replace("http", "ws", 1)


@pytest.fixture
def open_as(url, log_in) -> Callable[..., ClientConnection]:
    def enter(role: Role, path: str = "/talker") -> ClientConnection:
        session = log_in(role).cookies["ytserver_session"].value
        return connect(url + path, additional_headers={"Cookie": f"a=b; ytserver_session={session}"})

    return enter


def test_the_role_decides(open_as):
    with open_as(Role.OPERATOR) as socket:
        assert socket.recv(timeout=60) == "hello the-operator"
    with open_as(Role.VIEWER) as socket:
        assert closed_with(socket) == sockets.FORBIDDEN


@pytest.mark.parametrize("cookies", ["ytserver_session=nonsense", "ytserver_session=", "=;;[", "x=y"])
def test_nobody_is_let_in(server, url, cookies):
    with connect(f"{url}/short", additional_headers={"Cookie": cookies}) as socket:
        assert closed_with(socket) == sockets.LOGGED_OUT


def test_ends_when_there_is_no_more_to_say(open_as):
    with open_as(Role.VIEWER, "/short") as socket:
        assert socket.recv(timeout=60) == "all"
        assert closed_with(socket) == 1000


@pytest.mark.parametrize(
    ("change", "code"),
    [({"role": "viewer"}, sockets.FORBIDDEN), ({"active": False}, sockets.LOGGED_OUT),
     ({"inc__session_version": 1}, sockets.LOGGED_OUT)],
)  # fmt: skip
def test_who_loses_the_right_is_cut_off(open_as, monkeypatch, change, code):
    monkeypatch.setattr(sockets, "RECHECK_S", 0.05)
    with open_as(Role.OPERATOR) as socket:
        assert socket.recv(timeout=60)
        User.objects(username="the-operator").update_one(**change)
        assert closed_with(socket) == code


def test_there_is_a_bound(server, url, monkeypatch):
    monkeypatch.setattr(sockets, "MAX_OPEN", 0)
    with connect(f"{url}/short") as socket:
        assert closed_with(socket) == BUSY


def test_when_redis_goes_away_the_places_are_given_back(server, url, channels_away):
    for _ in range(3):
        with connect(f"{url}/talker") as socket, pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)
    wait_until(lambda: Talker.open_now == 0)
