import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.test import Client

from apps.core.documents import AuditEntry
from apps.core.redis import redis_client
from apps.dashboard import login as login_service
from apps.dashboard.login import FREE_TRIES, MAX_KNOWN_NETWORKS, confirm_password, confirm_person, try_login
from apps.keys import services, sessions
from apps.keys.documents import Role, User
from apps.keys.services import create_user, set_password
from tests.dashboard.conftest import PASSWORD
from tests.full_redis import full_redis


def send(client: Client, username: str, password: str, **extra: str):
    return client.post("/admin/login", {"username": username, "password": password, **extra})


class TestLogin:
    def test_the_right_password_leads_to_the_overview(self, make_user):
        make_user(Role.VIEWER)
        client = Client()
        answer = send(client, "the-viewer", PASSWORD)
        assert (answer.status_code, answer["Location"]) == (302, "/admin/")
        assert client.get("/admin/").status_code == 200
        assert client.get("/admin/login")["Location"] == "/admin/"

    def test_every_wrong_way_gets_the_same_words(self, make_user):
        make_user(Role.VIEWER)
        make_user(Role.NONE)
        off = create_user(username="off", password=PASSWORD, role=Role.OWNER)
        User.objects(id=off.id).update_one(active=False)
        tries = [("the-viewer", "wrong"), ("nobody", PASSWORD), ("the-none", PASSWORD), ("off", PASSWORD), ("", "")]
        for username, password in tries:
            answer = send(Client(), username, password)
            assert answer.status_code == 401
            assert answer.context["problem"] == "The name or the password is wrong."

    def test_addresses_of_one_ipv6_customer_count_together(self):
        for number in range(FREE_TRIES["address"]):
            try_login(username=f"name-{number}", password="wrong", address=f"2001:db8:1:2::{number + 1:x}")
        assert try_login(username="another", password="wrong", address="2001:db8:1:2:ffff::1").wait_s > 0
        assert try_login(username="another", password="wrong", address="2001:db8:1:3::1").wait_s == 0

    def test_at_most_two_passwords_are_hashed_at_once(self, monkeypatch):
        """Each takes 100 MiB, and anybody may send the form."""
        lock, running, most, two = threading.Lock(), [], [], threading.Barrier(2)

        def slowly(*_args):
            with lock:
                running.append(1)
                most.append(len(running))
            two.wait(60)
            time.sleep(0.05)  # room for a third, if it were let in
            with lock:
                running.pop()

        monkeypatch.setattr(services, "make_password", slowly)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: services.check_password(f"nobody-{number}", "wrong"), range(8)))
        assert (len(most), max(most)) == (8, 2)

    def test_an_unknown_name_costs_as_much_work_as_a_known_one(self, make_user, monkeypatch):
        make_user(Role.VIEWER)
        hashed = []
        for name in ("encode", "verify"):
            original = getattr(Argon2PasswordHasher, name)
            monkeypatch.setattr(
                Argon2PasswordHasher,
                name,
                lambda *args, _original=original, **kw: hashed.append(1) or _original(*args, **kw),
            )
        for username in ("the-viewer", "nobody"):
            hashed.clear()
            try_login(username=username, password="wrong", address="10.0.0.1")
            assert len(hashed) == 1, username

    @pytest.mark.parametrize(
        ("wanted", "got"),
        [
            ("/admin/keys?q=a", "/admin/keys?q=a"),
            ("https://evil.example/", "/admin/"),
            ("//evil.example/", "/admin/"),
            ("javascript:alert(1)", "/admin/"),
            ("/\\evil.example", "/admin/"),
        ],
    )
    def test_goes_back_only_to_pages_of_this_server(self, make_user, wanted, got):
        make_user(Role.VIEWER)
        assert send(Client(), "the-viewer", PASSWORD, next=wanted)["Location"] == got

    def test_a_session_that_was_there_before_the_login_is_worth_nothing_after_it(self, make_user):
        make_user(Role.VIEWER)
        client = Client()
        client.session.save()
        session = client.session
        session["planted"] = "yes"
        session.save()
        client.cookies["ytserver_session"] = session.session_key
        send(client, "the-viewer", PASSWORD)
        assert client.cookies["ytserver_session"].value != session.session_key
        assert "planted" not in client.session

    def test_without_the_csrf_token_nothing_happens(self, make_user):
        make_user(Role.VIEWER)
        client = Client(enforce_csrf_checks=True)
        assert send(client, "the-viewer", PASSWORD).status_code == 403
        assert AuditEntry.objects.count() == 0

    def test_logout_ends_the_session_on_the_server(self, viewer):
        stolen = viewer.cookies["ytserver_session"].value
        assert viewer.get("/admin/logout").status_code == 405
        assert viewer.post("/admin/logout")["Location"] == "/admin/login"
        thief = Client()
        thief.cookies["ytserver_session"] = stolen
        assert thief.get("/admin/").status_code == 302

    def test_a_new_password_ends_the_sessions(self, viewer):
        set_password(User.objects.get(username="the-viewer"), "another long password")
        assert viewer.get("/admin/").status_code == 302

    def test_both_outcomes_are_in_the_audit_log_without_the_password(self, make_user):
        make_user(Role.VIEWER)
        send(Client(), "the-viewer", "wrong-password-text")
        send(Client(), "the-viewer", PASSWORD)
        entries = list(AuditEntry.objects.order_by("at"))
        assert [(entry.actor, entry.action, entry.address) for entry in entries] == [
            ("the-viewer", "login.failed", "127.0.0.1"),
            ("the-viewer", "login.done", "127.0.0.1"),
        ]
        assert "wrong-password-text" not in str([entry.to_mongo() for entry in entries])

    def test_says_so_when_redis_is_away(self, make_user, monkeypatch):
        def away():
            raise redis.ConnectionError("away")

        monkeypatch.setattr(login_service, "redis_client", away)
        answer = send(Client(), "the-viewer", PASSWORD)
        assert answer.status_code == 503
        assert b"Redis does not answer" in answer.content

    @pytest.mark.parametrize("password", [PASSWORD, "wrong"])
    def test_says_so_when_redis_is_full(self, make_user, password):
        make_user(Role.VIEWER)
        with full_redis():
            answer = send(Client(), "the-viewer", password)
        assert answer.status_code == 503
        assert b"<h1>Redis is full right now</h1>" in answer.content
        assert b"does not answer" not in answer.content

    def test_who_is_logged_in_sees_pages_while_redis_is_full(self, viewer, monkeypatch):
        monkeypatch.setattr(sessions, "NOTE_USE_EVERY_S", 0)  # this look would be written to the session
        with full_redis():
            assert viewer.get("/admin/keys").status_code == 200


def attack(username: str) -> None:
    """Use up the wrong tries that an account has from anywhere."""
    redis_client().hset(login_service._bucket("account", username), "n", FREE_TRIES["account"] - 1)
    assert not try_login(username=username, password="wrong", address="10.1.1.1").wait_s
    assert try_login(username=username, password="wrong", address="10.1.1.2").wait_s


class TestLockout:
    def test_after_five_wrong_passwords_even_the_right_one_has_to_wait(self, make_user):
        make_user(Role.VIEWER)
        client = Client()
        for _ in range(FREE_TRIES["pair"]):
            assert send(client, "the-viewer", "wrong").status_code == 401
        answer = send(client, "the-viewer", PASSWORD)
        assert answer.status_code == 429
        assert answer.context["problem"] == "Too many tries. Wait 30 seconds, then try again."
        assert answer["Retry-After"] == "30"

    def test_the_wait_grows_and_has_an_end(self, make_user, monkeypatch):
        make_user(Role.VIEWER)
        script, clock = login_service._TAKE_ATTEMPT, "redis.call('TIME')"
        assert clock in script
        now, waits = 1_000_000, []
        for _ in range(25):
            monkeypatch.setattr(login_service, "_TAKE_ATTEMPT", script.replace(clock, f"{{'{now}', '0'}}"))
            result = try_login(username="the-viewer", password="wrong", address="10.0.0.1")
            if result.wait_s:
                waits.append(result.wait_s)
                now += result.wait_s
        assert waits[:6] == [30, 60, 120, 240, 480, 900]
        assert set(waits[6:]) == {900}
        now += 900
        monkeypatch.setattr(login_service, "_TAKE_ATTEMPT", script.replace(clock, f"{{'{now}', '0'}}"))
        assert try_login(username="the-viewer", password=PASSWORD, address="10.0.0.1").user is not None

    @pytest.mark.parametrize("ahead_s", [3600, -3600])
    def test_a_machine_whose_clock_is_wrong_waits_as_long_as_the_others(self, make_user, monkeypatch, ahead_s):
        make_user(Role.VIEWER)

        def wait_s(*, ahead_s):
            with monkeypatch.context() as patch:
                real = time.time
                patch.setattr(login_service.time, "time", lambda: real() + ahead_s)
                return try_login(username="the-viewer", password="wrong", address="10.0.0.1").wait_s

        assert [wait_s(ahead_s=0) for _ in range(FREE_TRIES["pair"])] == [0] * FREE_TRIES["pair"]
        assert 0 < wait_s(ahead_s=ahead_s) <= 30  # it hears of the others' wait
        redis_client().delete(*redis_client().keys("yt:login:*"))
        assert [wait_s(ahead_s=ahead_s) for _ in range(FREE_TRIES["pair"])] == [0] * FREE_TRIES["pair"]
        assert 0 < wait_s(ahead_s=0) <= 30  # the others hear of its own

    def test_one_address_cannot_try_many_names(self, make_user):
        results = [
            try_login(username=f"name-{number}", password="wrong", address="10.0.0.1")
            for number in range(FREE_TRIES["address"] + 1)
        ]
        assert [bool(result.wait_s) for result in results] == [False] * FREE_TRIES["address"] + [True]
        assert not try_login(username="name-1", password="wrong", address="10.0.0.2").wait_s

    def test_many_tries_at_once_do_not_slip_through(self, make_user):
        make_user(Role.VIEWER)
        with ThreadPoolExecutor(16) as pool:
            results = list(
                pool.map(lambda _: try_login(username="the-viewer", password="x", address="10.0.0.1"), range(16))
            )
        assert sum(not result.wait_s for result in results) == FREE_TRIES["pair"]

    def test_a_right_password_forgets_the_wrong_ones(self, make_user):
        make_user(Role.VIEWER)
        for _ in range(3):
            for _ in range(FREE_TRIES["pair"] - 1):
                assert not try_login(username="the-viewer", password="wrong", address="10.0.0.1").wait_s
            assert try_login(username="the-viewer", password=PASSWORD, address="10.0.0.1").user is not None

    def test_wrong_tries_from_elsewhere_do_not_lock_out_who_comes_from_a_known_network(self, make_user):
        user = make_user(Role.OWNER)
        assert try_login(username="the-owner", password=PASSWORD, address="2001:db8:1:2::1").user
        attack("the-owner")
        assert try_login(username="the-owner", password=PASSWORD, address="10.9.9.9").wait_s
        assert try_login(username="The-Owner", password="wrong", address="2001:db8:1:2::9").wait_s == 0
        assert try_login(username="the-owner", password=PASSWORD, address="2001:db8:1:2::7").user
        assert confirm_password(user=user, password=PASSWORD, address="10.9.9.9") == ""
        assert confirm_person(user=user, password=PASSWORD, code="", address="10.9.9.9") == ""

    def test_a_known_network_has_the_other_bounds(self, make_user):
        make_user(Role.OWNER)
        assert try_login(username="the-owner", password=PASSWORD, address="10.0.0.1").user
        for _ in range(FREE_TRIES["pair"]):
            assert not try_login(username="the-owner", password="wrong", address="10.0.0.1").wait_s
        assert try_login(username="the-owner", password=PASSWORD, address="10.0.0.1").wait_s

    def test_networks_are_known_to_one_account_for_30_days_and_the_newest_20(self, make_user, monkeypatch):
        make_user(Role.OWNER)
        now = [time.time()]
        monkeypatch.setattr(login_service.time, "time", lambda: now[0])
        for number in range(MAX_KNOWN_NETWORKS + 1):
            now[0] += 1
            login_service._remember_network("the-owner", f"10.0.0.{number}")
        assert not login_service._is_known_network("the-viewer", "10.0.0.5")
        known = [login_service._is_known_network("the-owner", f"10.0.0.{n}") for n in range(MAX_KNOWN_NETWORKS + 1)]
        assert known == [False] + [True] * MAX_KNOWN_NETWORKS
        assert 0 < redis_client().ttl(redis_client().keys("yt:login:known:*")[0]) <= 30 * 86_400
        now[0] += 30 * 86_400
        assert not login_service._is_known_network("the-owner", "10.0.0.5")

    def test_nothing_is_remembered_for_ever(self, server):
        try_login(username="nobody", password="wrong", address="10.0.0.1")
        keys = redis_client().keys("yt:login:*")
        assert len(keys) == 3
        assert all(0 < redis_client().ttl(key) <= 3600 for key in keys)
