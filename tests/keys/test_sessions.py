from __future__ import annotations

import pytest
import redis
from django.conf import settings
from django.core.cache import cache
from django.test import Client

from apps.core.errors import Conflict, InvalidParameter
from apps.core.redis import redis_client
from apps.keys import sessions
from apps.keys.documents import Role, User
from apps.keys.services import check_password, create_user, set_password

pytestmark = [pytest.mark.urls("tests.urls_for_tests"), pytest.mark.usefixtures("mongo", "redis_server")]
PASSWORD = "correct horse battery"


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def ada() -> User:
    return create_user(username="ada", password=PASSWORD, role=Role.OWNER)


def test_nothing_that_redis_holds_is_run_when_it_is_read():
    """Whoever can write to a shared Redis must not get into the web server with a pickle."""
    cache.set("harmless", {"a": [1, "b"]})
    assert cache.get("harmless") == {"a": [1, "b"]}
    assert redis_client().get("yt:1:harmless") == b'{"a": [1, "b"]}'


class TestUsers:
    def test_a_password_is_stored_as_argon2_and_checked(self, ada):
        assert ada.password_hash.startswith("argon2$argon2id$")
        assert check_password("ada", PASSWORD).id == ada.id
        assert check_password("ada", "wrong") is None
        assert check_password("nobody", PASSWORD) is None

    def test_a_user_who_was_switched_off_has_no_good_password(self, ada):
        User.objects(id=ada.id).update_one(active=False)
        assert check_password("ada", PASSWORD) is None

    def test_a_name_is_taken_once(self, ada):
        with pytest.raises(Conflict):
            create_user(username="ada", password=PASSWORD)

    @pytest.mark.parametrize(
        ("name", "password"), [("", PASSWORD), ("a b", PASSWORD), ("ok", "short"), ("ok", "x" * 1001)]
    )
    def test_refuses_bad_names_and_passwords(self, name, password):
        with pytest.raises(InvalidParameter):
            create_user(username=name, password=password)


class TestSessions:
    def test_nobody_is_signed_in_at_first_and_no_session_is_made(self, client):
        answer = client.get("/who")
        assert answer.content == b"nobody"
        assert not answer.cookies

    def test_signing_in_changes_the_session_key_and_signing_out_ends_it(self, client, ada):
        client.get("/sign-in", {"name": "ada"})
        first = client.cookies["ytserver_session"].value
        assert client.get("/who").content == b"ada"
        client.get("/sign-in", {"name": "ada"})
        assert client.cookies["ytserver_session"].value != first
        stolen = Client()
        stolen.cookies["ytserver_session"] = first
        assert stolen.get("/who").content == b"nobody"
        kept = Client()
        kept.cookies["ytserver_session"] = client.cookies["ytserver_session"].value
        client.get("/sign-out")
        assert client.get("/who").content == b"nobody"
        assert kept.get("/who").content == b"nobody"

    @pytest.mark.parametrize("change", [{"active": False}, {"role": "none"}, {"inc__session_version": 1}])
    def test_ends_when_the_user_is_switched_off_loses_the_role_or_is_signed_out_everywhere(self, client, ada, change):
        client.get("/sign-in", {"name": "ada"})
        User.objects(id=ada.id).update_one(**change)
        assert client.get("/who").content == b"nobody"

    def test_ends_when_the_password_changes(self, client, ada):
        client.get("/sign-in", {"name": "ada"})
        set_password(ada, "another long secret")
        assert client.get("/who").content == b"nobody"
        assert check_password("ada", "another long secret") is not None

    def test_ends_when_the_user_is_deleted(self, client, ada):
        client.get("/sign-in", {"name": "ada"})
        ada.delete()
        assert client.get("/who").content == b"nobody"


def test_a_redis_that_is_away_for_a_moment_logs_nobody_out(ada, monkeypatch):
    client = Client(raise_request_exception=False)
    client.get("/sign-in", {"name": "ada"})
    cookie = client.cookies["ytserver_session"].value
    away = redis.ConnectionPool(host="127.0.0.1", port=1, retry=None)
    with monkeypatch.context() as patched:
        patched.setattr(cache.client.get_client(), "connection_pool", away)
        answer = client.get("/who")
        assert (answer.status_code, answer.json()["error"], dict(answer.cookies)) == (503, "not_ready", {})
        with pytest.raises(redis.ConnectionError):
            sessions.user_of_session_key(cookie)
    assert client.get("/who").content == b"ada"


class TestTimes:
    @pytest.fixture
    def clock(self, monkeypatch):
        now = [1_800_000_000.0]
        monkeypatch.setattr(sessions.time, "time", lambda: now[0])
        return now

    def test_ends_after_its_longest_time_even_when_it_is_used(self, client, ada, clock):
        client.get("/sign-in", {"name": "ada"})
        for _ in range(int(settings.ENV.session_max_s // 3600)):
            assert client.get("/use").content == b"ada"
            clock[0] += 3600
        assert client.get("/use").content == b"nobody"

    def test_ends_when_nobody_uses_it_and_only_use_by_hand_counts(self, client, ada, clock):
        client.get("/sign-in", {"name": "ada"})
        clock[0] += settings.ENV.session_idle_s - 1
        assert client.get("/use").content == b"ada"
        clock[0] += settings.ENV.session_idle_s - 1
        assert client.get("/who").content == b"ada"
        clock[0] += 1
        assert client.get("/who").content == b"nobody"

    def test_a_key_alone_finds_the_same_person(self, client, ada, clock):
        client.get("/sign-in", {"name": "ada"})
        key = client.cookies["ytserver_session"].value
        assert sessions.user_of_session_key(key).id == ada.id
        clock[0] += settings.ENV.session_idle_s
        assert sessions.user_of_session_key(key) is None
        assert sessions.user_of_session_key("") is None
