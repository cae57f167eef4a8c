"""The browsable API: logging in with a key, and that only pages for people go by it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.conf import settings
from django.test import Client

from apps.downloads.documents import MediaJob
from apps.keys import sessions
from apps.keys.authentication import authenticate
from apps.keys.browser_key import SESSION_FIELD
from apps.keys.changes import update_key
from apps.keys.documents import DEFAULT_LIMIT_PER_HOUR, ApiKey, Role, Scope, User
from apps.keys.limits import usage
from apps.keys.services import create_key, create_user, set_key_active
from tests.downloads.library import VIDEO_ID, known_info

HTML = {"Accept": "text/html"}
PASSWORD = "correct horse battery"


@pytest.fixture
def key(mongo, redis_server) -> str:
    return create_key(name="my browser").key


@pytest.fixture
def client(key) -> Client:
    client = Client()
    answer = client.post("/api/login", {"key": key, "next": "/api/v1/status"})
    assert (answer.status_code, answer["Location"]) == (302, "/api/v1/status")
    return client


def test_pages_work_until_the_key_is_forgotten(client):
    page = client.get("/api/v1/cache/stats", headers=HTML)
    assert page.status_code == 200
    assert b"my browser" in page.content
    client.post("/api/logout")
    page = client.get("/api/v1/cache/stats", headers=HTML)
    assert page.status_code == 401
    assert b"Log in with a key" in page.content


def test_the_list_of_routes_knows_whether_a_browser_has_logged_in(client):
    page = client.get("/api/v1/", headers=HTML).content.decode()
    assert ">Log out<" in page
    assert "Log in with a key" not in page
    client.post("/api/logout")
    page = client.get("/api/v1/", headers=HTML).content.decode()
    assert ">Log out<" not in page
    assert "Log in with a key" in page


def test_descriptions_show_code_and_advise_no_key_in_addresses(client):
    page = client.get("/api/v1/", headers=HTML).content.decode()
    assert "header <code>X-API-Key</code>" in page
    assert "?api_key=" not in page


def test_a_kept_key_that_is_refused_may_be_replaced(client, key):
    set_key_active(key.split("_")[1], active=False)
    page = client.get("/api/v1/cache/stats", headers=HTML).content.decode()
    assert "Log in with a key" in page
    assert ">Log out<" in page


def test_programs_must_send_the_key(client):
    assert client.get("/api/v1/cache/stats").status_code == 401


@pytest.mark.parametrize(
    ("headers", "works"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),  # typed, or a bookmark
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),  # a neighbour under the same domain
        ({}, True),
        # over plain http browsers say no more than where the link was
        ({"Referer": "http://testserver/api/v1/"}, True),
        ({"Referer": "http://testserver.evil.example/"}, False),
        ({"Referer": "https://elsewhere.example/page"}, False),
    ],
)
def test_another_site_spends_nothing_of_the_key(client, key, headers, works):
    known_info()
    page = client.get("/api/v1/video", {"url": VIDEO_ID}, headers={**HTML, **headers})
    assert page.status_code == (200 if works else 403)
    assert MediaJob.objects.count() == (1 if works else 0)
    assert usage(authenticate(key))[0].remaining == DEFAULT_LIMIT_PER_HOUR - works
    if not works:
        assert b"Another site" in page.content
    # what costs nothing may be looked at from anywhere
    assert client.get("/api/v1/status", headers={**HTML, **headers}).status_code == 200


def test_a_key_that_is_switched_off_is_out_at_once(client, key):
    set_key_active(key.split("_")[1], active=False)
    assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 403


def test_a_change_needs_the_csrf_token(client):
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post("/api/v1/batch", {"urls": []}, headers=HTML).status_code == 403


@pytest.mark.parametrize("text", ["", "nonsense", f"yt_abcdefgh_{'x' * 43}"])
def test_a_wrong_key_is_said_and_opens_nothing(mongo, redis_server, text):
    client = Client()
    answer = client.post("/api/login", {"key": text})
    assert answer.status_code == 401
    assert b'role="alert"' in answer.content
    assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 401


def test_the_session_does_not_hold_the_key_in_the_clear(client, key):
    assert key not in str(dict(client.session))


def test_goes_on_to_own_pages_only(key):
    answer = Client().post("/api/login", {"key": key, "next": "https://elsewhere.example/"})
    assert answer["Location"] == "/api/v1/"


class TestTheScopeAdmin:
    @pytest.fixture
    def powerful(self, mongo, redis_server) -> str:
        return create_key(name="powerful", scopes=tuple(Scope)).key

    def test_a_cookie_alone_is_never_as_good_as_an_admin_key(self, powerful):
        client = Client()
        assert client.post("/api/login", {"key": powerful}).status_code == 302
        made = client.post("/api/v1/admin/keys", {"name": "thief", "scopes": ["admin"]}, headers=HTML)
        assert made.status_code == 403
        assert b"yt_" not in made.content
        for path in ("admin/keys", "admin/users", "admin/analytics"):
            assert client.get(f"/api/v1/{path}", headers=HTML).status_code == 403, path
        assert ApiKey.objects.count() == 1
        assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 200  # the other scopes stay

    def test_a_kept_key_that_gets_the_scope_later_neither(self, client, key):
        assert client.get("/api/v1/admin/keys", headers=HTML).status_code == 403
        update_key(key[3:11], {"scopes": ["info", "admin"]}, actor="test")
        assert Scope.ADMIN in authenticate(key).scopes
        assert client.get("/api/v1/admin/keys", headers=HTML).status_code == 403

    def test_who_is_logged_in_to_the_admin_goes_by_their_role_there(self, powerful):
        create_user(username="boss", password=PASSWORD, role=Role.OWNER)
        client = Client()
        client.post("/admin/login", {"username": "boss", "password": PASSWORD})
        client.post("/api/login", {"key": powerful})
        assert client.get("/api/v1/admin/keys", headers=HTML).status_code == 200
        made = client.post("/api/v1/admin/keys", {"name": "thief", "scopes": ["admin"]}, headers=HTML)
        assert (made.status_code, ApiKey.objects.count()) == (403, 1)  # not without the password
        User.objects(username="boss").update_one(role=Role.VIEWER.value)
        assert client.get("/api/v1/admin/keys", headers=HTML).status_code == 200
        assert client.post("/api/v1/admin/keys", {"name": "x"}, headers=HTML).status_code == 403


class TestTimes:
    @pytest.fixture
    def clock(self, monkeypatch):
        """Moves the time of sessions on, in seconds."""
        now = [sessions.time.time()]
        monkeypatch.setattr(sessions, "time", SimpleNamespace(time=lambda: now[0]))

        def later(seconds: float) -> None:
            now[0] += seconds

        return later

    def test_a_key_that_is_not_used_is_forgotten(self, clock, client):
        clock(settings.ENV.session_idle_s - 60)
        assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 200
        clock(settings.ENV.session_idle_s - 60)
        assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 200
        clock(settings.ENV.session_idle_s)
        assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 401
        assert SESSION_FIELD not in client.session

    def test_a_key_that_is_used_is_forgotten_in_the_end(self, clock, client):
        step = settings.ENV.session_idle_s - 60
        for _ in range((settings.ENV.session_max_s - 1) // step):
            clock(step)
            assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 200
        clock(step)
        assert client.get("/api/v1/cache/stats", headers=HTML).status_code == 401
