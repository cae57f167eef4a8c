"""yt-dlp with cookies and proxies of the pool: two YouTubes stand for what one YouTube shows to two proxies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import psutil
import pytest

from apps.core.clock import utcnow
from apps.core.errors import BotCheck, UpstreamError
from apps.core.secrets import decrypt_secret
from apps.downloads.documents import Identity, ProxyUse
from apps.downloads.providers.failures import OwnQueueFull
from apps.downloads.providers.ytdlp import YtDlpProvider
from apps.downloads.services.identities import Actor, add_cookies, add_po_tokens, add_proxy
from apps.downloads.services.ways import PooledWays
from apps.telegram_cache.documents import AssetKey
from tests.standins.socks import SocksStandIn
from tests.standins.youtube import YouTubeStandIn
from tests.standins.youtube_videos import YouTubeVideo

ID = "dQw4w9WgXcQ"
TIMEOUT_S = 60.0
WHO = Actor(name="tester")
COOKIES = (
    ".youtube.com\tTRUE\t/\tTRUE\t1999999999\tLOGIN_INFO\tfirst-value\n.youtube.com\tTRUE\t/\tTRUE\t\tYSC\tfor-now\n"
)
TOKEN_A, TOKEN_B, VISITOR = "dG9rZW4tb25l", "dG9rZW4tdHdv", "VmlzaXRvci1vbmU%3D"
AUDIO = AssetKey(ID, "audio", "m4a")


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[YouTubeStandIn, YouTubeStandIn]]:
    with YouTubeStandIn() as first, YouTubeStandIn() as second:
        yield first, second


@pytest.fixture(scope="module")
def shared_provider(sites: tuple[YouTubeStandIn, YouTubeStandIn]) -> Iterator[YtDlpProvider]:
    provider = YtDlpProvider(options={"nocheckcertificate": True}, children=1, ways=PooledWays())
    yield provider
    provider.close()


@pytest.fixture
def provider(mongo: None, shared_provider: YtDlpProvider, sites: tuple[YouTubeStandIn, ...]) -> YtDlpProvider:
    shared_provider._remembered.clear()
    for site in sites:
        site.faults.clear()
        site.counts.clear()
        site.cookies_sent.clear()
        site.tokens_sent.clear()
        site.visitors_sent.clear()
        site.set_cookie.clear()
        site.videos.pop(ID, None)
    return shared_provider


def use(site: YouTubeStandIn, name: str, use: ProxyUse = ProxyUse.BOTH) -> str:
    address = site.url.replace("://", f"://{name}:word-of-{name}@")
    return add_proxy(name, address, use=use, actor=WHO).id


def test_a_bot_check_sends_the_question_through_another_proxy(provider, sites, caplog):
    sites[0].videos[ID] = YouTubeVideo(title="", state="bot")
    flagged, fine = use(sites[0], "a"), use(sites[1], "b")
    assert provider.resolve(ID, timeout_s=TIMEOUT_S).title == f"Video {ID}"
    stored = {entry.id: entry for entry in Identity.objects}
    assert (stored[flagged].strikes, stored[flagged].last_error) == (1, "bot_check")
    assert (stored[fine].strikes, stored[fine].answers) == (0, 1)
    provider._remembered.clear()
    before = sites[0].counts["watch"]
    plan = provider.plan(AUDIO, timeout_s=TIMEOUT_S)
    assert (plan.files[0].proxy_id, sites[0].counts["watch"]) == (fine, before)  # it rests, so nobody asks through it
    assert "word-of" not in caplog.text + repr(plan)


def test_too_many_requests_make_a_proxy_rest_and_no_other_is_left(provider, sites):
    only = use(sites[0], "a")
    sites[0].faults.add("watch", status=429, times=99)
    sites[0].faults.add("player", status=429, times=99)
    for _ in range(2):
        with pytest.raises(Exception, match="outside source") as caught:
            provider.resolve(ID, timeout_s=TIMEOUT_S)
        assert caught.value.retry_after_s > 0
    assert (Identity.objects.get(id=only).strikes, Identity.objects.get(id=only).last_error) == (1, "rate_limited")


def test_a_proxy_that_is_not_there_rests_and_the_cookies_do_not(provider, sites):
    add_cookies("mine", COOKIES, actor=WHO)
    for name in "abc":
        add_proxy(name, f"http://user:word-of-{name}@127.0.0.1:1", actor=WHO)
    with pytest.raises(Exception, match=r".") as caught:
        provider.resolve(ID, timeout_s=TIMEOUT_S)
    assert caught.value.code == "upstream_unreachable"
    assert "word-of" not in str(caught.value)
    assert [entry.strikes for entry in Identity.objects.order_by("kind", "name")] == [0, 1, 1, 1]


def test_waiting_for_a_process_of_our_own_is_no_fault_of_a_proxy(provider, sites):
    only = use(sites[0], "a")
    provider._pool._slots.acquire()  # its one process is busy
    try:
        with pytest.raises(OwnQueueFull) as caught:
            provider.resolve(ID, timeout_s=0.1)
    finally:
        provider._pool._slots.release()
    provider.note_proxies((only,), caught.value)
    assert (Identity.objects.get(id=only).strikes, Identity.objects.get(id=only).resting_until) == (0, None)


def test_cookies_are_sent_and_what_youtube_changes_is_kept(provider, sites):
    add_cookies("mine", COOKIES, actor=WHO)
    use(sites[0], "a")
    sites[0].set_cookie["LOGIN_INFO"] = "second-value"
    provider.resolve(ID, timeout_s=TIMEOUT_S)
    assert sites[0].cookies_sent[0]["LOGIN_INFO"] == "first-value"
    kept = decrypt_secret(Identity.objects.get(kind="cookies").secret_encrypted)
    assert "LOGIN_INFO\tsecond-value" in kept
    provider.resolve(ID, timeout_s=TIMEOUT_S)
    assert sites[0].cookies_sent[-1]["LOGIN_INFO"] == "second-value"
    assert sites[0].cookies_sent[-1]["YSC"] == "for-now"  # a cookie of the session lives on


def test_media_goes_through_the_proxy_for_downloads(provider, sites):
    use(sites[0], "a", ProxyUse.EXTRACT)
    download = use(sites[1], "d", ProxyUse.DOWNLOAD)
    plan = provider.plan(AUDIO, timeout_s=TIMEOUT_S)
    assert (plan.files[0].proxy_id, sites[0].counts["watch"], sites[1].counts["watch"]) == (download, 1, 0)
    assert plan.files[0].proxy.startswith("http://d:")
    provider.note_transfer(plan, BotCheck(retry_after_s=60))
    assert Identity.objects.get(id=download).last_error == "rate_limited"


def test_a_proxy_for_downloads_that_works_again_loses_its_strikes(provider, sites):
    use(sites[0], "a", ProxyUse.EXTRACT)
    download = use(sites[1], "d", ProxyUse.DOWNLOAD)
    Identity.objects(id=download).update_one(set__strikes=4, set__resting_until=utcnow() - timedelta(seconds=1))
    plan = provider.plan(AUDIO, timeout_s=TIMEOUT_S)
    assert Identity.objects.get(id=download).strikes == 4  # asking says nothing of it
    provider.note_transfer(plan, None)
    after = Identity.objects.get(id=download)
    assert (after.strikes, after.answers, after.resting_until) == (0, 1, None)


def test_resting_proxies_for_downloads_do_not_keep_anybody_from_asking(provider, sites):
    use(sites[0], "a", ProxyUse.EXTRACT)
    download = use(sites[1], "d", ProxyUse.DOWNLOAD)
    provider._ways.note_failure((download,), "upstream_unreachable")
    assert provider.resolve(ID, timeout_s=TIMEOUT_S).title == f"Video {ID}"
    with pytest.raises(UpstreamError) as caught:
        provider.plan(AUDIO, timeout_s=TIMEOUT_S)
    assert caught.value.retry_after_s > 0


def test_youtube_is_asked_through_a_socks_proxy_with_its_password(provider, sites):
    with SocksStandIn(target_port=sites[0]._tls_port, password="word-of-s") as socks:
        add_proxy("s", socks.url.replace("socks5", "socks5h"), actor=WHO)
        assert provider.resolve(ID, timeout_s=TIMEOUT_S).title == f"Video {ID}"
        assert (set(socks.asked), set(socks.users)) == ({"www.youtube.com"}, {"user"})


def test_po_tokens_go_out_to_youtube_with_their_visitor(provider, sites, caplog):
    use(sites[0], "a")
    add_po_tokens("t", f"web.player+{TOKEN_A}\nweb.gvs+{TOKEN_B}\nvisitor_data={VISITOR}", actor=WHO)
    sites[0].faults.add("watch", status=500, times=9)  # the watch page of itself holds an answer of the web client
    plan = provider.plan(AUDIO, timeout_s=TIMEOUT_S)
    assert TOKEN_A in sites[0].tokens_sent
    assert set(sites[0].visitors_sent) == {VISITOR}
    assert TOKEN_A not in caplog.text + repr(plan)
    assert Identity.objects.get(kind="po_token").answers == 1


def test_media_addresses_of_the_tokens_client_carry_the_token(provider, sites):
    use(sites[0], "a")
    add_po_tokens("t", f"web.gvs+{TOKEN_B}\nvisitor_data={VISITOR}", actor=WHO)
    sites[0].faults.add("player", status=500, times=99)  # what is left is the watch page's answer: the web client's
    assert f"&pot={TOKEN_B}" in provider.plan(AUDIO, timeout_s=TIMEOUT_S).files[0].url


def test_tokens_that_meet_a_bot_check_rest(provider, sites):
    sites[0].videos[ID] = YouTubeVideo(title="", state="bot")
    for name in "ab":
        use(sites[0], name)  # whichever comes first, YouTube is against it
    for name in ("first", "second"):
        add_po_tokens(name, f"web.player+{TOKEN_A}", actor=WHO)
    with pytest.raises(BotCheck):
        provider.resolve(ID, timeout_s=TIMEOUT_S)
    rested = Identity.objects(kind="po_token")
    assert [(entry.strikes, entry.last_error) for entry in rested] == [(1, "bot_check")] * 2


def test_no_secret_is_on_a_command_line(provider, sites):
    add_cookies("mine", COOKIES, actor=WHO)
    use(sites[0], "a")
    provider.resolve(ID, timeout_s=TIMEOUT_S)
    child = psutil.Process(provider._pool._idle[0].pid)
    seen = json.dumps([child.cmdline(), list(child.environ().items())])
    assert "word-of" not in seen
    assert "first-value" not in seen
