"""Cookies and proxies by the API and by the command: in, on, off and out, and no secret anywhere."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from apps.core.documents import AuditEntry
from apps.downloads.documents import Identity
from apps.keys.documents import Scope
from apps.keys.services import create_key
from tests.downloads.conftest import Api

COOKIES = ".youtube.com\tTRUE\t/\tTRUE\t1999999999\tLOGIN_INFO\tcookie-value\n"
TOKENS = "web.gvs+c2VjcmV0LW9uZQ"
PROXY = "socks5://someone:proxy-word@198.51.100.7:1080"


@pytest.fixture
def admin(api) -> Api:
    return Api(create_key(name="admin", scopes=(Scope.ADMIN,)).key)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("identities", *arguments, stdout=out)
    return out.getvalue()


class TestApi:
    def test_needs_the_admin_scope(self, api):
        for route in ("admin/cookies", "admin/proxies", "admin/po-tokens"):
            assert api.get(route).json()["error"] == "scope_missing"
            assert api.post(route, {"name": "a"}).json()["error"] == "scope_missing"

    def test_cookies_go_in_and_never_come_out(self, admin):
        answer = admin.post("admin/cookies", {"name": "mine", "cookies": COOKIES})
        entry = answer.json()["identity"]
        assert (answer.status_code, entry["about"], entry["state"]) == (200, "1 cookie, with a login", "ready")
        listed = admin.get("admin/cookies").json()["identities"]
        assert [found["name"] for found in listed] == ["mine"]
        assert "cookie-value" not in answer.content.decode() + str(listed)

    def test_a_proxy_is_added_switched_and_removed_and_each_is_on_the_audit_log(self, admin):
        answer = admin.post("admin/proxies", {"name": "out", "proxy": PROXY, "use": "download"})
        entry = answer.json()["identity"]
        assert (entry["use"], entry["about"]) == ("download", "socks5://198.51.100.7:1080, with a password")
        assert admin.post(f"admin/proxies/{entry['id']}/disable", {}).json()["identity"]["state"] == "off"
        assert admin.post(f"admin/proxies/{entry['id']}/enable", {}).json()["identity"]["state"] == "ready"
        assert admin.delete(f"admin/proxies/{entry['id']}").json() == {"status": True, "removed": entry["id"]}
        assert admin.get("admin/proxies").json()["identities"] == []
        actions = [entry.action for entry in AuditEntry.objects.order_by("id")]
        assert actions == ["proxy.add", "proxy.disable", "proxy.enable", "proxy.remove"]
        assert "proxy-word" not in answer.content.decode() + str([entry.to_mongo() for entry in AuditEntry.objects])

    def test_po_tokens_go_in_and_never_come_out(self, admin):
        answer = admin.post("admin/po-tokens", {"name": "mine", "tokens": TOKENS})
        entry = answer.json()["identity"]
        assert (answer.status_code, entry["kind"], entry["about"]) == (200, "po_token", "web.gvs, of no visitor")
        assert admin.post(f"admin/po-tokens/{entry['id']}/disable", {}).json()["identity"]["state"] == "off"
        assert admin.post(f"admin/po-tokens/{entry['id']}/enable", {}).json()["identity"]["state"] == "ready"
        seen = answer.content.decode() + str(admin.get("admin/po-tokens").json())
        assert admin.delete(f"admin/po-tokens/{entry['id']}").json()["removed"] == entry["id"]
        actions = [entry.action for entry in AuditEntry.objects.order_by("id")]
        assert actions == ["po_token.add", "po_token.disable", "po_token.enable", "po_token.remove"]
        assert "c2VjcmV0" not in seen + str([entry.to_mongo() for entry in AuditEntry.objects])
        assert admin.post("admin/po-tokens?tokens=x", {"name": "mine"}).status_code == 400

    def test_what_is_wrong_is_said_without_the_secret(self, admin):
        answer = admin.post("admin/proxies", {"name": "out", "proxy": "gopher://someone:proxy-word@h:1"})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")
        assert "proxy-word" not in answer.content.decode()
        assert admin.post("admin/cookies", {"name": "mine", "cookies": "[]"}).status_code == 400
        assert admin.post("admin/proxies?proxy=http://h:1", {"name": "out"}).status_code == 400
        assert admin.post("admin/cookies/abc/enable", {}).status_code == 404

    def test_cookies_are_not_found_among_proxies(self, admin):
        identity = admin.post("admin/cookies", {"name": "mine", "cookies": COOKIES}).json()["identity"]["id"]
        assert admin.delete(f"admin/proxies/{identity}").status_code == 404
        assert Identity.objects.count() == 1


class TestCommand:
    def test_adds_lists_switches_and_removes(self, mongo, tmp_path, monkeypatch):
        file = tmp_path / "cookies.txt"
        file.write_text(COOKIES)
        assert "Kept cookies mine" in run("add-cookies", "mine", str(file))
        monkeypatch.setattr("sys.stdin", io.StringIO(PROXY + "\n"))
        file.write_text(TOKENS)
        assert "Kept PO tokens t" in run("add-po-tokens", "t", str(file))
        run("remove", "t")
        assert "Kept proxy out" in run("add-proxy", "out", "--use", "extract")
        shown = run("list") + run("list", "--json")
        assert "198.51.100.7:1080" in shown
        assert "proxy-word" not in shown
        assert "cookie-value" not in shown
        assert {entry["name"] for entry in json.loads(run("list", "--json"))["identities"]} == {"mine", "out"}
        run("disable", "out")
        assert not Identity.objects.get(name="out").enabled
        run("enable", "out")
        run("remove", "mine")
        assert [entry.name for entry in Identity.objects] == ["out"]

    def test_says_in_one_line_what_is_wrong(self, mongo, tmp_path):
        for arguments in (("add-cookies", "mine", str(tmp_path / "none.txt")), ("remove", "nobody")):
            with pytest.raises(CommandError) as caught:
                run(*arguments)
            assert "\n" not in str(caught.value)
        assert "There are none" in run("list")
