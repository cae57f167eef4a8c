"""Who reaches which page: nobody, viewer, operator, owner."""

from __future__ import annotations

import re

import pytest
import redis
from django.test import Client
from pymongo.errors import ServerSelectionTimeoutError

from apps.core.documents import AuditEntry
from apps.core.middleware import CONTENT_SECURITY_POLICY
from apps.dashboard import selectors
from apps.dashboard.urls import urlpatterns
from apps.downloads.warm_documents import WarmUp
from apps.keys.documents import ApiKey, Role, User
from tests.dashboard.samples import fill_server, make_bot, make_channel, make_job
from ytserver.env import BASE_DIR

OPEN_TO_ALL = {"login", "login-code", "logout", "theme"}
VIEWER_PAGES = ("", "overview/live", "overview/history", "keys", "cache", "jobs", "sources", "warm-ups", "telegram",
                "settings", "system",
                "audit", "telegram/bots/123456", "telegram/channels/-1001234567890")  # fmt: skip
OPERATOR_PAGES = ("try", "keys/new", "sources/cookies/new", "sources/proxies/new", "sources/po-tokens/new",
                  "warm-ups/new", "warm-ups/limits",
                  "telegram/bots/new", "telegram/channels/new", "telegram/bots/123456/token",
                  "telegram/bots/123456/enable", "telegram/channels/-1001234567890/enable")  # fmt: skip
WARM_UP_ID = "W4rmUp"


@pytest.fixture
def filled(server) -> ApiKey:
    WarmUp(id=WARM_UP_ID, name="Charts", kind="audio", total=0).save()
    return fill_server()


def addresses(key: ApiKey) -> dict[str, str]:
    """Every address of the admin that exists, by its name, but those that anybody may use."""
    job, values = make_job(99).id, {}
    for pattern in urlpatterns:
        route = str(pattern.pattern)
        for name, value in (("prefix", key.prefix), ("asset_id", "a" * 24), ("job_id", job), ("bot_id", "123456"),
                            ("name", "verify"), ("video_id", "jNQXAC9IVRw"),
                            ("channel_id", "-1001234567890"), ("user_id", "0" * 24)):  # fmt: skip
            route = route.replace(f"<id:{name}>", value)
        for part, value in (("<id:name>", "ytdlp"), ("<on_off_up_down:what>", "on"), ("<identity_kind:kind>", "proxy"),
                            ("<id:identity_id>", "abc123"), ("<id:warm_up_id>", WARM_UP_ID),
                            ("<username:username>", "alice")):  # fmt: skip
            route = route.replace(part, value)
        if pattern.name not in OPEN_TO_ALL:
            values[pattern.name] = f"/admin/{route}"
    assert "<" not in "".join(values.values())
    return values


class TestNobody:
    def test_is_led_from_every_page_to_the_login_and_back(self, filled):
        for name, address in addresses(filled).items():
            answer = Client().get(address)
            assert answer.status_code == 302, name
            assert answer["Location"].startswith("/admin/login?next="), name

    def test_can_change_nothing(self, filled):
        key_count = ApiKey.objects.count()
        for name, address in addresses(filled).items():
            answer = Client().post(address, {"name": "x", "token": "1:abc", "channel": "@abcde"})
            assert answer.status_code == 302, name
            assert answer["Location"] == "/admin/login", name
        assert (ApiKey.objects.count(), ApiKey.objects(active=False).count()) == (key_count, 0)
        assert AuditEntry.objects.count() == 0

    def test_a_script_gets_401_instead_of_a_login_page(self, server):
        answer = Client().get("/admin/overview/history", headers={"X-Requested-With": "fetch"})
        assert answer.status_code == 401

    def test_the_root_leads_to_the_admin(self, server):
        assert Client().get("/")["Location"] == "/admin/"


class TestViewer:
    def test_sees_every_list_and_no_button_that_changes_something(self, filled, viewer):
        for path in (*VIEWER_PAGES, f"keys/{filled.prefix}"):
            answer = viewer.get(f"/admin/{path}")
            assert answer.status_code == 200, path
            for word in (b"Create a key", b"Switch off", b"Cancel</a>", b"Stop using", b"Add a bot"):
                assert word not in answer.content, (path, word)

    def test_may_change_nothing(self, filled, viewer):
        for name, address in addresses(filled).items():
            if not name.startswith("account"):  # everybody's own
                assert viewer.post(address).status_code in (403, 405), name
        assert ApiKey.objects(active=False).count() == 0

    @pytest.mark.parametrize("path", OPERATOR_PAGES)
    def test_is_told_why_in_plain_words(self, viewer, path):
        answer = viewer.get(f"/admin/{path}")
        assert answer.status_code == 403
        assert b"You may look, but not change this." in answer.content


class TestOperator:
    def test_reaches_every_page(self, filled, operator):
        for path in (*VIEWER_PAGES, *OPERATOR_PAGES):
            answer = operator.get(f"/admin/{path}")
            assert answer.status_code == 200, path
            assert "no-store" in answer["Cache-Control"], path

    def test_who_lost_the_role_is_out_at_once(self, operator):
        User.objects(username="the-operator").update_one(role=Role.NONE.value)
        assert operator.get("/admin/keys").status_code == 302

    def test_every_change_needs_the_csrf_token(self, filled, operator):
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = operator.cookies
        for address in addresses(filled).values():
            answer = strict.post(address)
            assert answer.status_code in (403, 405), address
        assert ApiKey.objects(active=False).count() == 0

    def test_a_wrong_method_is_refused_with_the_right_ones(self, operator):
        answer = operator.post("/admin/audit")
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")

    @pytest.mark.parametrize("path", ["keys/nokey123", "cache/nothing", "jobs/nothing/cancel", "keys/nokey123/activate",
                                      "telegram/bots/1/disable", "telegram/channels/-1/disable"])  # fmt: skip
    def test_what_is_not_there_is_said_in_words(self, operator, path):
        answer = operator.get(f"/admin/{path}")
        assert answer.status_code == 404
        assert b"There is no such" in answer.content or b"not in the cache" in answer.content


class TestUnavailable:
    @pytest.mark.parametrize(
        ("error", "name"),
        [(ServerSelectionTimeoutError("away"), b"MongoDB"), (redis.ConnectionError("away"), b"Redis")],
    )
    def test_a_page_says_which_service_is_away(self, viewer, monkeypatch, error, name):
        def fail():
            raise error

        monkeypatch.setattr(selectors, "figures", fail)
        answer = viewer.get("/admin/")
        assert answer.status_code == 503
        assert name + b" does not answer right now" in answer.content


def test_pictures_may_come_only_from_where_a_page_takes_one():
    templates = "".join(path.read_text() for path in (BASE_DIR / "templates").rglob("*.html"))
    hosts = re.findall(r"https://[^ ;]+", CONTENT_SECURITY_POLICY)
    assert hosts
    assert [host for host in hosts if f'src="{host}/' not in templates] == []


def test_no_page_has_inline_scripts_or_styles(filled, operator):
    make_bot("999", username="extra")
    make_channel("-1009", is_default=False)
    for path in (*VIEWER_PAGES, *OPERATOR_PAGES, f"keys/{filled.prefix}", f"keys/{filled.prefix}/deactivate"):
        page = operator.get(f"/admin/{path}")
        text = page.content.decode()
        assert " style=" not in text, path
        assert "<style" not in text, path
        assert " onclick" not in text, path
        assert text.count("<script") == text.count("<script src="), path
        for known in ("https://www.youtube.com", "https://t.me", "https://i.ytimg.com"):
            text = text.replace(known, "")
        assert not re.search(r"""(src|href|action|content)=["']?https?:""", text), path
        assert "default-src 'self'" in page["Content-Security-Policy"], path
        assert "unsafe" not in page["Content-Security-Policy"], path
