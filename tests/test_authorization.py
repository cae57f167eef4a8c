"""Every address, HTTP and websocket, asked by everybody: nobody, keys of each sort, viewer, operator, owner.

None of the people gave the password again lately, so pages that ask for it send them there (``Page.again``).
"""

from __future__ import annotations

import itertools
import time
from ipaddress import ip_address

import httpx
import pytest
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore
from django.test import Client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from apps.keys.authentication import forget_cached_keys
from apps.keys.documents import Scope, User
from apps.keys.services import create_key, set_key_active
from tests import authorization as who
from tests.authorization import (
    CALLERS,
    KEPT_KEY,
    PEOPLE,
    WITHOUT_GOOD_KEYS,
    Admins,
    Key,
    Policy,
    Route,
    Socket,
    http_routes,
    socket_routes,
)
from tests.authorization_table import TABLE
from tests.core.serving import serving
from ytserver.asgi import application

STREAMS = {"stream/audio/<id>": "/stream/audio/abcdefghijk", "stream/video/<id>": "/stream/video/abcdefghijk"}
ROUTES = {route.name: route for route in http_routes()}
numbers = itertools.count(1)


class Callers:
    """Everybody, ready to ask."""

    def __init__(self) -> None:
        everything = tuple(scope.value for scope in Scope if scope != Scope.ADMIN)
        self.keys = {
            who.DISABLED: create_key(name="disabled", scopes=tuple(Scope)),
            who.GOOD: create_key(name="good", scopes=everything, limit_per_hour=100_000),
            who.ADMIN_KEY: create_key(name="admin", scopes=tuple(Scope), limit_per_hour=100_000),
        }
        self.unscoped = {
            scope: create_key(name=f"not {scope}", scopes=tuple(other for other in everything if other != scope)).key
            for scope in (*Scope,)
        }
        set_key_active(self.keys[who.DISABLED].document.prefix, active=False)
        browser = Client()
        browser.post("/api/login", {"key": self.keys[who.ADMIN_KEY].key})
        self.kept = browser.cookies[settings.SESSION_COOKIE_NAME].value
        self.people = {name: User(username=f"the-{name}", role=name).save() for name in PEOPLE}

    def headers(self, caller: str, policy: object) -> dict[str, str]:
        if caller == who.UNSCOPED:
            scope = policy.scope if isinstance(policy, Key) and policy.scope else Scope.INFO
            return {"X-API-Key": self.unscoped[scope]}
        if caller in self.keys:
            return {"X-API-Key": self.keys[caller].key}
        if caller in self.people:
            return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={self.session(caller)}"}
        if caller == who.KEPT_KEY:
            return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={self.kept}", "Accept": "text/html"}
        return {}

    def session(self, caller: str) -> str:
        """A new session, whatever the requests before did to the old one."""
        user, store, now = self.people[caller], SessionStore(), int(time.time())
        user.reload()
        store.update({"_user_id": str(user.id), "_session_version": user.session_version, "_started_at": now,
                      "_used_at": now})  # fmt: skip
        store.save()
        return str(store.session_key)


@pytest.fixture
def callers(mongo, redis_server) -> Callers:
    forget_cached_keys()
    return Callers()


def verdict(answer) -> str:
    if answer.status_code == 302 and answer["Location"].startswith("/admin/login"):
        return who.LOGIN
    if answer.status_code == 302 and answer["Location"].startswith("/admin/account/confirm?"):
        return who.AGAIN
    if answer.status_code == 429 or answer.status_code == 500:
        return f"{answer.status_code} {answer.content[:200]!r}"
    return {401: who.WHO, 403: who.MAY_NOT, 405: who.METHOD}.get(answer.status_code, who.IN)


def test_every_address_has_a_row_and_every_row_an_address():
    found = {*ROUTES, *STREAMS, *socket_routes()}
    assert found - set(TABLE) == set(), "add rows to tests/authorization_table.py"
    assert set(TABLE) - found == set(), "rows of addresses that are no more"


@pytest.mark.usefixtures("dialects_on")
@pytest.mark.parametrize("group", ["admin/", "api/v1/admin", "api/v1/", "other"])
def test_each_caller_reaches_what_the_table_says_and_nothing_else(callers, group):
    wrong = []
    for route in ROUTES.values():
        if _group(route) == group:
            for caller in _callers(TABLE[route.name]):
                wrong += _wrong(callers, route, caller)
    assert not wrong, "\n".join(wrong)


def _callers(policy: Policy) -> tuple[str, ...]:
    if isinstance(policy, Admins):
        return (*CALLERS, KEPT_KEY)
    return CALLERS if isinstance(policy, Key) else WITHOUT_GOOD_KEYS


def _group(route: Route) -> str:
    return next((start for start in ("admin/", "api/v1/admin", "api/v1/") if route.name.startswith(start)), "other")


def _wrong(callers: Callers, route: Route, caller: str) -> list[str]:
    policy, verdicts = TABLE[route.name], {}
    for method in route.methods:
        address = str(ip_address("10.0.0.0") + next(numbers))  # strangers are limited by address
        client = Client(raise_request_exception=False, REMOTE_ADDR=address)
        answer = client.generic(method, route.path, headers=callers.headers(caller, policy))
        verdicts[method] = verdict(answer)
    wrong = [
        f"{caller}: {method} {route.path}: {said}, not {sorted(policy.expected(caller, method))}"
        for method, said in verdicts.items()
        if said not in policy.expected(caller, method)
    ]
    if not wrong and set(verdicts.values()) == {who.METHOD} and who.IN in policy.expected(caller, "GET"):
        wrong.append(f"{caller}: {route.path} answers no method")
    return wrong


@pytest.fixture(scope="module")
def url():
    with serving(application, ws="websockets-sansio") as address:
        yield address


@pytest.mark.parametrize("name", list(STREAMS))
def test_streams(callers, url, name):
    policy = TABLE[name]
    for caller in CALLERS:
        answer = httpx.get(url + STREAMS[name], params={"quality": "nonsense", "format": "nonsense"},
                           headers=callers.headers(caller, policy), timeout=60)  # fmt: skip
        said = {401: who.WHO, 403: who.MAY_NOT}.get(answer.status_code, who.IN)
        assert said in policy.expected(caller, "GET"), (caller, answer.status_code, answer.text)


def socket_code(url: str, path: str, headers: dict[str, str], **options) -> int:
    """The close code, or 0 when something was said first."""
    address = url.replace("http", "ws", 1) + path
    with connect(address, additional_headers=headers, **options) as socket:
        try:
            socket.recv(timeout=60)
        except ConnectionClosed as end:
            return end.rcvd.code
        return 0


@pytest.mark.parametrize("name", [name for name, by_cookie in socket_routes().items() if by_cookie])
def test_websockets_of_the_admin(callers, url, name):
    policy = TABLE[name]
    assert isinstance(policy, Socket)
    assert policy.role is not None, "a websocket that goes by cookies names a role"
    for caller in CALLERS:
        code = socket_code(url, f"/{name}", callers.headers(caller, policy), origin=url)
        allowed = caller in PEOPLE and who.reaches(caller, policy.role)
        assert (code == 0) == allowed, (caller, code)
        assert allowed or code in (4401, 4403)


def test_websockets_of_jobs_refuse_wrong_keys_and_unknown_ids(callers, url):
    policy = TABLE["ws/jobs/(?P<job_id>[A-Za-z0-9_-]{1,64})"]
    codes = {caller: socket_code(url, "/ws/jobs/unknown", callers.headers(caller, policy)) for caller in CALLERS}
    assert codes.pop(who.DISABLED) == 4401
    assert set(codes.values()) == {4404}
