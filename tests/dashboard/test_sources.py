import pytest

from apps.core.documents import AuditEntry
from apps.downloads.documents import Identity
from apps.downloads.providers.arrangement import arrange_providers, forget_arrangement
from apps.downloads.providers.health import note_outcome
from apps.downloads.services.ways import PooledWays

COOKIES = ".youtube.com\tTRUE\t/\tTRUE\t1999999999\tLOGIN_INFO\tcookie-value\n"
PROXY = "http://someone:proxy-word@198.51.100.7:8080"
NAMES = ("savetube", "ytdlp")


@pytest.fixture(autouse=True)
def _fresh():
    forget_arrangement()
    yield
    forget_arrangement()


class TestProviders:
    def test_the_page_says_how_each_is_doing(self, viewer):
        note_outcome("ytdlp", error_code="bot_check", error_message="", took_s=1.5, pause_s=30)
        page = viewer.get("/admin/sources").content.decode()
        assert "Left alone by one process" in page
        assert "bot_check" in page
        assert "Switch off" not in page  # a viewer may only look
        assert viewer.post("/admin/sources/providers/ytdlp/off").status_code == 403

    def test_order_and_on_and_off_by_buttons(self, operator):
        operator.post("/admin/sources/providers/ytdlp/up")
        assert list(arrange_providers(NAMES)) == ["ytdlp", "savetube"]
        operator.post("/admin/sources/providers/ytdlp/off")
        assert list(arrange_providers(NAMES)) == ["savetube"]
        assert "switched off" in operator.get("/admin/sources").content.decode()
        operator.post("/admin/sources/providers/ytdlp/on")
        operator.post("/admin/sources/providers/ytdlp/down")
        assert list(arrange_providers(NAMES)) == list(NAMES)
        actors = {entry.actor for entry in AuditEntry.objects(target_kind="provider")}
        assert actors == {"the-operator"}
        assert (
            "PROVIDERS does not name"
            in operator.post("/admin/sources/providers/nobody/on", follow=True).content.decode()
        )


class TestIdentities:
    def test_cookies_are_added_and_never_shown(self, operator):
        page = operator.post("/admin/sources/cookies/new", {"name": "mine", "cookies": COOKIES}, follow=True)
        text = page.content.decode()
        assert "1 cookie, with a login" in text
        assert "cookie-value" not in text

    def test_what_is_wrong_is_explained_and_not_sent_back(self, operator):
        answer = operator.post("/admin/sources/cookies/new", {"name": "mine", "cookies": "cookie-value"})
        assert (answer.status_code, b"It must be a cookies.txt" in answer.content) == (422, True)
        assert b"cookie-value" not in answer.content
        answer = operator.post(
            "/admin/sources/proxies/new", {"name": "out", "proxy": PROXY.replace("http", "gopher"), "use": "both"}
        )
        assert (answer.status_code, b"proxy-word" in answer.content) == (422, False)

    def test_po_tokens_are_added_never_shown_and_deleted(self, operator):
        form = {"name": "mine", "tokens": "web.gvs+c2VjcmV0LW9uZQ\nvisitor_data=VmlzaXRvcg"}
        page = operator.post("/admin/sources/po-tokens/new", form, follow=True).content.decode()
        assert "web.gvs, of a visitor" in page
        assert "c2VjcmV0" not in page
        wrong = operator.post("/admin/sources/po-tokens/new", {**form, "tokens": "c2VjcmV0LW9uZQ"})
        assert (wrong.status_code, b"c2VjcmV0" in wrong.content) == (422, False)
        token = Identity.objects.get()
        operator.post(f"/admin/sources/po_token/{token.id}/off")
        assert PooledWays().choose().is_plain
        assert b"Delete these PO tokens?" in operator.get(f"/admin/sources/po_token/{token.id}/remove").content
        operator.post(f"/admin/sources/po_token/{token.id}/remove")
        assert Identity.objects.count() == 0

    def test_a_proxy_rests_is_used_again_switched_off_and_deleted(self, operator):
        operator.post("/admin/sources/proxies/new", {"name": "out", "proxy": PROXY, "use": "both"})
        proxy = Identity.objects.get()
        PooledWays().note_failure((proxy.id,), "bot_check")
        assert "YouTube asked whether we are a bot. Tried again" in operator.get("/admin/sources").content.decode()
        operator.post(f"/admin/sources/proxy/{proxy.id}/on")
        assert PooledWays().choose().proxy == PROXY
        operator.post(f"/admin/sources/proxy/{proxy.id}/off")
        assert PooledWays().choose().is_plain
        assert b"Delete this proxy?" in operator.get(f"/admin/sources/proxy/{proxy.id}/remove").content
        operator.post(f"/admin/sources/proxy/{proxy.id}/remove")
        assert Identity.objects.count() == 0
        actions = [entry.action for entry in AuditEntry.objects(target_kind="proxy").order_by("id")]
        assert actions == ["proxy.add", "proxy.enable", "proxy.disable", "proxy.remove"]
