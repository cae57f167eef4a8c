"""One's own account, and the admins that an owner manages, as people use them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pyotp
import pytest
from django.test import Client

from apps.core.documents import AuditEntry
from apps.core.redis import redis_client
from apps.dashboard.login import FREE_TRIES
from apps.keys import second_factor, sessions
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
    confirm(client)
    page = client.get("/admin/account/second-factor")
    totp = pyotp.TOTP(page.context["setup"].secret)
    answer = client.post("/admin/account/second-factor", {"code": later(totp)})
    assert answer.status_code == 200, answer.content
    return totp, answer.context["codes"].split()


def confirm(client: Client, **more: str) -> None:
    answer = client.post("/admin/account/confirm?next=/admin/admins", {"password": PASSWORD, **more})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/admins")


@pytest.fixture
def sure_owner(owner) -> Client:
    """An owner who has just given the password again."""
    confirm(owner)
    return owner


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

    def test_setting_it_up_asks_for_the_password_and_shows_a_new_secret_each_time(self, viewer, later):
        page = "/admin/account/second-factor"
        for ask in (viewer.get, viewer.post):  # an open browser is not enough to learn the secret of later
            assert ask(page)["Location"].startswith("/admin/account/confirm?next=")
        stolen = Client()
        stolen.cookies["ytserver_session"] = viewer.cookies["ytserver_session"].value
        assert stolen.get("/admin/").status_code == 200
        confirm(viewer)
        assert stolen.get(page)["Location"].startswith("/admin/login")
        first, second = (viewer.get(page).context["setup"].secret for _ in range(2))
        assert first != second
        wrong = viewer.post(page, {"code": later(pyotp.TOTP(first))})
        assert (wrong.status_code, wrong.context["setup"].secret) == (422, second)  # a slip asks for no new picture
        assert second not in str(User.objects.get().to_mongo()) + str(dict(viewer.session))
        assert viewer.post(page, {"code": later(pyotp.TOTP(second))}).status_code == 200
        assert second not in str(dict(viewer.session))

    def test_a_code_that_comes_too_late_is_said_to_be_of_no_use_and_nothing_of_it_is_kept(self, viewer, monkeypatch):
        now, page = [time.time()], "/admin/account/second-factor"
        monkeypatch.setattr(sessions, "time", SimpleNamespace(time=lambda: now[0]))
        confirm(viewer)
        first = viewer.get(page).context["setup"].secret
        now[0] += sessions.CONFIRMED_FOR_S
        asked = viewer.post(page, {"code": pyotp.TOTP(first).now()})["Location"]
        text = viewer.get(asked).content.decode()
        assert ("is kept" in text, "a new picture" in text) == (False, True)
        assert not list(redis_client().scan_iter("*kept:*"))
        back = viewer.post(asked, {"password": PASSWORD})["Location"]
        assert back == page
        assert viewer.get(back).context["setup"].secret != first

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

    def test_new_recovery_codes_and_switching_off_ask_for_password_and_code(self, viewer, later):
        totp, codes = set_up(viewer, later)
        for path in ("recovery-codes", "second-factor/off"):
            asked = viewer.post(f"/admin/account/{path}")
            assert asked["Location"] == f"/admin/account/confirm?next=%2Fadmin%2Faccount%2F{path.replace('/', '%2F')}"
        for wrong in ({"password": PASSWORD}, {"password": PASSWORD, "code": "000000"},
                      {"password": "wrong", "code": codes[1]}):  # fmt: skip
            assert viewer.post("/admin/account/confirm", wrong).status_code == 422
            assert viewer.post("/admin/account/recovery-codes").status_code == 302
        confirm(viewer, code=later(totp))
        answer = viewer.post("/admin/account/recovery-codes")
        assert codes[0] not in answer.context["codes"]
        assert viewer.post("/admin/account/second-factor/off").status_code == 302
        assert log_in(Client(), "the-viewer")["Location"] == "/admin/"
        assert actions()[-6:] == [
            "code.wrong", "password.wrong", "identity.confirmed", "second_factor.new_recovery_codes",
            "second_factor.off", "login.done",
        ]  # fmt: skip

    def test_codes_cannot_be_guessed_with_the_right_password_given_elsewhere_in_between(self, viewer, later):
        set_up(viewer, later)
        form = {"password": PASSWORD, "new": PASSWORD, "again": PASSWORD}
        problems = []
        for _ in range(FREE_TRIES["pair"]):
            problems.append(viewer.post("/admin/account/confirm", {"password": PASSWORD, "code": "000000"}).content)
            viewer.post("/admin/account/password", form)
        assert b"Too many tries" in problems[-1]

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
    def test_an_owner_adds_somebody_who_logs_in(self, sure_owner):
        answer = sure_owner.post("/admin/admins/new", {"username": "vera", "role": "viewer", "contact": ""})
        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        client = Client()
        assert log_in(client, "vera", answer.context["password"]).status_code == 302
        assert client.get("/admin/keys/new").status_code == 403
        assert b"vera" in sure_owner.get("/admin/admins").content
        entry = AuditEntry.objects.get(action="user.create")
        assert (entry.actor, entry.target_id, entry.after["role"]) == ("the-owner", "vera", "viewer")

    def test_a_role_changes_at_once(self, sure_owner, make_user):
        user = make_user(Role.VIEWER)
        client = Client()
        log_in(client, "the-viewer")
        assert sure_owner.post(f"/admin/admins/{user.id}/role", {"role": "operator"}).status_code == 302
        assert client.get("/admin/").status_code == 302
        log_in(client, "the-viewer")
        assert client.get("/admin/keys/new").status_code == 200
        entry = AuditEntry.objects.get(action="user.role")
        assert (entry.before, entry.after) == ({"role": "viewer"}, {"role": "operator"})

    def test_switching_off_resetting_the_password_and_the_second_factor(self, sure_owner, make_user, later):
        user = make_user(Role.VIEWER)
        client = Client()
        log_in(client, "the-viewer")
        set_up(client, later)
        sure_owner.post(f"/admin/admins/{user.id}/second-factor")
        assert log_in(Client(), "the-viewer")["Location"] == "/admin/"
        password = sure_owner.post(f"/admin/admins/{user.id}/password").context["password"]
        assert log_in(Client(), "the-viewer").status_code == 401
        assert log_in(client, "the-viewer", password).status_code == 302
        sure_owner.post(f"/admin/admins/{user.id}/switch")
        assert client.get("/admin/").status_code == 302
        assert log_in(Client(), "the-viewer", password).status_code == 401
        sure_owner.post(f"/admin/admins/{user.id}/switch")
        assert log_in(Client(), "the-viewer", password).status_code == 302
        wanted = {"user.reset_second_factor", "user.reset_password", "user.deactivate", "user.activate"}
        assert wanted <= set(actions())
        assert password not in str([entry.to_mongo() for entry in AuditEntry.objects])

    def test_nobody_locks_themselves_out(self, sure_owner):
        own = User.objects.get(username="the-owner")
        for path, form in (("role", {"role": "viewer"}), ("switch", {}), ("second-factor", {})):
            sure_owner.post(f"/admin/admins/{own.id}/{path}", form)
        own.reload()
        assert (own.role, own.active) == ("owner", True)
        assert sure_owner.get("/admin/admins").status_code == 200

    def test_a_stolen_session_of_an_owner_cannot_replace_the_password(self, owner):
        own = User.objects.get(username="the-owner")
        answer = owner.post(f"/admin/admins/{own.id}/password")
        assert (answer.status_code, answer["Location"]) == (302, "/admin/account/password")
        assert log_in(Client(), "the-owner").status_code == 302

    def test_users_without_a_role_are_not_shown(self, sure_owner, make_user):
        user = make_user(Role.NONE)
        assert b"the-none" not in sure_owner.get("/admin/admins").content
        assert sure_owner.get(f"/admin/admins/{user.id}").status_code == 404


class TestAskingAgain:
    """What an open browser, or a stolen session, is not enough for."""

    @pytest.fixture
    def forms(self, make_user) -> dict[str, dict[str, str]]:
        user = make_user(Role.VIEWER)
        return {
            "new": {"username": "mallory", "role": "owner", "contact": ""},
            f"{user.id}/role": {"role": "owner"},
            f"{user.id}/password": {},
            f"{user.id}/second-factor": {},
            f"{user.id}/switch": {},
        }

    def test_an_owner_is_asked_before_every_change_of_an_admin_and_not_before_looking(self, owner, forms):
        before = [user.to_mongo() for user in User.objects.order_by("username")]
        for path, form in forms.items():
            for answer in (owner.get(f"/admin/admins/{path}"), owner.post(f"/admin/admins/{path}", form)):
                assert answer.status_code == 302
                assert answer["Location"].startswith("/admin/account/confirm?next=%2Fadmin%2Fadmins%2F")
        assert [user.to_mongo() for user in User.objects.order_by("username")] == before
        assert owner.get("/admin/admins").status_code == 200

    def test_a_wrong_password_opens_nothing_and_tries_are_bounded_as_logins_are(self, owner, forms):
        for _ in range(FREE_TRIES["pair"]):
            assert owner.post("/admin/account/confirm", {"password": "wrong"}).status_code == 422
        answer = owner.post("/admin/account/confirm", {"password": PASSWORD})
        assert (answer.status_code, b"Too many tries" in answer.content) == (422, True)
        assert owner.get("/admin/admins/new")["Location"].startswith("/admin/account/confirm")
        assert log_in(Client(), "the-owner").status_code == 429
        assert actions().count("password.wrong") == FREE_TRIES["pair"]

    def test_the_right_one_is_good_for_ten_minutes_in_this_browser_only(self, owner, forms, monkeypatch):
        now = [time.time()]
        monkeypatch.setattr(sessions, "time", SimpleNamespace(time=lambda: now[0]))
        old_key = owner.cookies["ytserver_session"].value
        confirm(owner)
        assert owner.cookies["ytserver_session"].value != old_key
        assert "identity.confirmed" in actions()
        other = Client()
        log_in(other, "the-owner")
        assert other.get("/admin/admins/new").status_code == 302
        now[0] += sessions.CONFIRMED_FOR_S - 1
        assert owner.get("/admin/admins/new").status_code == 200
        now[0] += 2
        assert owner.get("/admin/admins/new").status_code == 302

    def test_what_was_typed_is_kept_encrypted_where_the_ten_minutes_were_over(self, owner, forms):
        for path, form in forms.items():
            owner.post("/admin/logout")
            log_in(owner, "the-owner")
            asked = owner.post(f"/admin/admins/{path}", form)["Location"]
            assert ("typed" in asked) is bool(form)
            stored = [redis_client().get(key) for key in redis_client().scan_iter("*kept:*")]
            assert stored
            assert not any(b"mallory" in value for value in stored)
            back = owner.post(asked, {"password": PASSWORD})["Location"]
            if form:
                shown = owner.get(back).context["form"]
                assert {name: shown[name].value() for name in form} == form

    def test_a_new_login_in_the_same_browser_is_asked_again(self, owner):
        confirm(owner)
        owner.post("/admin/logout")
        log_in(owner, "the-owner")
        assert owner.get("/admin/admins/new").status_code == 302

    def test_goes_on_to_own_pages_only(self, owner):
        answer = owner.post("/admin/account/confirm?next=https://elsewhere.example/", {"password": PASSWORD})
        assert answer["Location"] == "/admin/"
