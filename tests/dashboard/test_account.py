"""One's own account, and the admins that an owner manages, as people use them."""

from __future__ import annotations

import pyotp
import pytest
from django.test import Client

from apps.core.documents import AuditEntry
from apps.dashboard.login import FREE_TRIES
from apps.keys import second_factor
from apps.keys.documents import Role, User
from tests.dashboard.conftest import PASSWORD

NEW = "another long password"


def log_in(client: Client, name: str, password: str = PASSWORD):
    return client.post("/admin/login", {"username": name, "password": password})


def actions() -> list[str]:
    return [entry.action for entry in AuditEntry.objects.order_by("at")]


@pytest.fixture
def later(monkeypatch):
    """Codes of the app, each of a later moment than the one before."""
    now = [1_800_000_000]
    monkeypatch.setattr(second_factor, "_step_now", lambda: now[0] // 30)

    def code(totp: pyotp.TOTP) -> str:
        now[0] += 30
        return totp.at(now[0])

    return code


def set_up(client: Client, later) -> tuple[pyotp.TOTP, list[str]]:
    page = client.get("/admin/account/second-factor")
    totp = pyotp.TOTP(page.context["setup"].secret)
    answer = client.post("/admin/account/second-factor", {"code": later(totp), "password": PASSWORD})
    assert answer.status_code == 200, answer.content
    return totp, answer.context["codes"].split()


class TestPassword:
    def test_a_new_one_logs_other_browsers_out_and_keeps_this_one(self, viewer):
        other = Client()
        log_in(other, "the-viewer")
        old_key = viewer.cookies["ytserver_session"].value
        answer = viewer.post("/admin/account/password", {"password": PASSWORD, "new": NEW, "again": NEW})
        assert (answer.status_code, answer["Location"]) == (302, "/admin/account")
        assert viewer.cookies["ytserver_session"].value != old_key
        assert viewer.get("/admin/").status_code == 200
        assert other.get("/admin/").status_code == 302
        assert log_in(Client(), "the-viewer").status_code == 401
        assert log_in(Client(), "the-viewer", NEW).status_code == 302
        assert "password.change" in actions()

    @pytest.mark.parametrize(
        "form",
        [{"password": "wrong", "new": NEW, "again": NEW}, {"password": PASSWORD, "new": "short", "again": "short"},
         {"password": PASSWORD, "new": NEW, "again": NEW + "x"}, {}],
    )  # fmt: skip
    def test_is_refused_in_words(self, viewer, form):
        answer = viewer.post("/admin/account/password", form)
        assert answer.status_code in (200, 422)
        assert log_in(Client(), "the-viewer").status_code == 302

    def test_a_stolen_session_cannot_guess_the_password(self, viewer):
        form = {"password": "wrong", "new": NEW, "again": NEW}
        for _ in range(FREE_TRIES["pair"]):
            viewer.post("/admin/account/password", form)
        answer = viewer.post("/admin/account/password", {**form, "password": PASSWORD})
        assert b"Too many tries" in answer.content


class TestSecondFactor:
    def test_the_login_asks_for_a_code_and_the_password_alone_opens_nothing(self, viewer, later):
        totp, _ = set_up(viewer, later)
        client = Client()
        answer = log_in(client, "the-viewer")
        assert answer["Location"].startswith("/admin/login/code?next=")
        assert client.get("/admin/").status_code == 302
        assert client.post("/admin/login/code", {"code": "000000"}).status_code == 401
        code = later(totp)
        assert client.post("/admin/login/code", {"code": code, "next": "/admin/keys"})["Location"] == "/admin/keys"
        assert client.get("/admin/").status_code == 200
        replay = Client()
        log_in(replay, "the-viewer")
        assert replay.post("/admin/login/code", {"code": code}).status_code == 401

    def test_a_recovery_code_lets_in_once(self, viewer, later):
        _, codes = set_up(viewer, later)
        for expected in (302, 401):
            client = Client()
            log_in(client, "the-viewer")
            assert client.post("/admin/login/code", {"code": codes[0]}).status_code == expected
        assert "login.done_by_recovery_code" in actions()

    def test_codes_cannot_be_guessed_also_with_the_right_password_in_between(self, viewer, later):
        set_up(viewer, later)
        client, statuses = Client(), []
        for _ in range(FREE_TRIES["pair"]):
            statuses.append(log_in(client, "the-viewer").status_code)
            statuses.append(client.post("/admin/login/code", {"code": "000000"}).status_code)
        assert 429 in statuses
        assert statuses.count(401) < FREE_TRIES["pair"]

    def test_without_the_first_step_the_second_leads_back(self, server):
        assert Client().get("/admin/login/code")["Location"].startswith("/admin/login?next=")
        assert Client().post("/admin/login/code", {"code": "123456"})["Location"].startswith("/admin/login?next=")

    def test_new_recovery_codes_and_switching_off_ask_for_the_password(self, viewer, later):
        _, codes = set_up(viewer, later)
        for path in ("recovery-codes", "second-factor/off"):
            assert viewer.post(f"/admin/account/{path}", {"password": "wrong"}).status_code == 422
        answer = viewer.post("/admin/account/recovery-codes", {"password": PASSWORD})
        assert codes[0] not in answer.context["codes"]
        assert viewer.post("/admin/account/second-factor/off", {"password": PASSWORD}).status_code == 302
        assert log_in(Client(), "the-viewer")["Location"] == "/admin/"
        assert actions()[-5:] == [
            "second_factor.on", "password.wrong", "password.wrong", "second_factor.new_recovery_codes",
            "second_factor.off", "login.done",
        ][-5:]  # fmt: skip

    def test_no_page_shows_the_secret_once_it_is_on(self, viewer, later):
        totp, _ = set_up(viewer, later)
        for path in ("account", "account/second-factor"):
            assert totp.secret.encode() not in viewer.get(f"/admin/{path}", follow=True).content


def test_log_out_elsewhere(viewer):
    other = Client()
    log_in(other, "the-viewer")
    assert viewer.post("/admin/account/sessions/end").status_code == 302
    assert (viewer.get("/admin/").status_code, other.get("/admin/").status_code) == (200, 302)


class TestAdmins:
    def test_an_owner_adds_somebody_who_logs_in(self, owner):
        answer = owner.post("/admin/admins/new", {"username": "vera", "role": "viewer", "contact": ""})
        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        client = Client()
        assert log_in(client, "vera", answer.context["password"]).status_code == 302
        assert client.get("/admin/keys/new").status_code == 403
        assert b"vera" in owner.get("/admin/admins").content
        entry = AuditEntry.objects.get(action="user.create")
        assert (entry.actor, entry.target_id, entry.after["role"]) == ("the-owner", "vera", "viewer")

    def test_a_role_changes_at_once(self, owner, make_user):
        user = make_user(Role.VIEWER)
        client = Client()
        log_in(client, "the-viewer")
        assert owner.post(f"/admin/admins/{user.id}/role", {"role": "operator"}).status_code == 302
        assert client.get("/admin/").status_code == 302
        log_in(client, "the-viewer")
        assert client.get("/admin/keys/new").status_code == 200
        entry = AuditEntry.objects.get(action="user.role")
        assert (entry.before, entry.after) == ({"role": "viewer"}, {"role": "operator"})

    def test_switching_off_resetting_the_password_and_the_second_factor(self, owner, make_user, later):
        user = make_user(Role.VIEWER)
        client = Client()
        log_in(client, "the-viewer")
        set_up(client, later)
        owner.post(f"/admin/admins/{user.id}/second-factor")
        assert log_in(Client(), "the-viewer")["Location"] == "/admin/"
        password = owner.post(f"/admin/admins/{user.id}/password").context["password"]
        assert log_in(Client(), "the-viewer").status_code == 401
        assert log_in(client, "the-viewer", password).status_code == 302
        owner.post(f"/admin/admins/{user.id}/switch")
        assert client.get("/admin/").status_code == 302
        assert log_in(Client(), "the-viewer", password).status_code == 401
        owner.post(f"/admin/admins/{user.id}/switch")
        assert log_in(Client(), "the-viewer", password).status_code == 302
        wanted = {"user.reset_second_factor", "user.reset_password", "user.deactivate", "user.activate"}
        assert wanted <= set(actions())
        assert password not in str([entry.to_mongo() for entry in AuditEntry.objects])

    def test_nobody_locks_themselves_out(self, owner):
        own = User.objects.get(username="the-owner")
        for path, form in (("role", {"role": "viewer"}), ("switch", {}), ("second-factor", {})):
            owner.post(f"/admin/admins/{own.id}/{path}", form)
        own.reload()
        assert (own.role, own.active) == ("owner", True)
        assert owner.get("/admin/admins").status_code == 200

    def test_a_stolen_session_of_an_owner_cannot_replace_the_password(self, owner):
        own = User.objects.get(username="the-owner")
        answer = owner.post(f"/admin/admins/{own.id}/password")
        assert (answer.status_code, answer["Location"]) == (302, "/admin/account/password")
        assert log_in(Client(), "the-owner").status_code == 302

    def test_users_without_a_role_are_not_shown(self, owner, make_user):
        user = make_user(Role.NONE)
        assert b"the-none" not in owner.get("/admin/admins").content
        assert owner.get(f"/admin/admins/{user.id}").status_code == 404
