"""The SaveTube provider against its stand-in: the protocol, its faults, and hostile answers."""

from __future__ import annotations

import ipaddress
import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from apps.core import outbound
from apps.core.errors import (
    ApiError,
    QualityUnavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    VideoPrivate,
    VideoUnavailable,
)
from apps.downloads.providers import savetube
from apps.downloads.providers.savetube import SaveTubeProvider
from apps.telegram_cache.documents import AssetKey
from tests.standins.savetube import TEST_KEY, SaveTubeStandIn, SaveTubeVideo, encrypt

ID = "dQw4w9WgXcQ"
MP3 = AssetKey(ID, "audio", "mp3")
SUFFIXES = ("127.0.0.1", "localhost")


@pytest.fixture
def site() -> Iterator[SaveTubeStandIn]:
    with SaveTubeStandIn() as running:
        yield running


@pytest.fixture
def make_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SaveTubeProvider]]:
    monkeypatch.setattr(savetube, "CDN_RETRY_PAUSE_S", 0.001)
    monkeypatch.setattr(savetube, "READY_PAUSE_S", 0.001)
    made: list[SaveTubeProvider] = []

    def make(site: SaveTubeStandIn, suffixes: tuple[str, ...] = SUFFIXES) -> SaveTubeProvider:
        made.append(SaveTubeProvider(base_url=site.api_url, key_hex=TEST_KEY, cdn_suffixes=suffixes))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


@pytest.fixture
def provider(site: SaveTubeStandIn, make_provider: Callable[..., SaveTubeProvider]) -> SaveTubeProvider:
    return make_provider(site)


def read(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:  # noqa: S310 - the stand-in's own address
        data: bytes = response.read()
        return data


def answer_info_with(site: SaveTubeStandIn, **fields: Any) -> None:
    payload = {"key": "k", "title": "A title", "durationLabel": "0:06", "thumbnail": "", **fields}
    data = encrypt(json.dumps(payload).encode())
    site.faults.add("info", status=200, body={"status": True, "data": data})


class TestResolve:
    def test_gives_what_savetube_says(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        info = provider.resolve(ID, timeout_s=10)
        assert (info.video_id, info.provider, info.title) == (ID, "savetube", f"Video {ID}")
        assert (info.video_heights, info.audio_formats, info.duration_s) == ((360, 240, 144), ("mp3",), 6.0)
        assert info.thumbnail.startswith("https://i.ytimg.com/")
        assert {entry.container for entry in info.formats} == {"mp4", "mp3"}

    def test_needs_only_the_fields_that_are_always_there(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        drop = frozenset({"id", "duration", "titleSlug", "video_formats", "audio_formats", "fromCache"})
        site.videos[ID] = SaveTubeVideo(title="Bare", drop=drop)
        info = provider.resolve(ID, timeout_s=10)
        assert (info.title, info.duration_s, info.audio_formats) == ("Bare", 6.0, ("mp3",))
        assert info.video_heights == (360, 240, 144)  # found by asking: 1080, 720, 480, 360
        assert site.counts["download"] == 4
        assert read(provider.plan(MP3, timeout_s=10).files[0].url) == site.file_of(ID, "audio")

    @pytest.mark.parametrize(("video_id", "error"), [("private0001", VideoPrivate), ("removed0001", VideoUnavailable)])
    def test_what_the_video_refuses_is_that_error(
        self, provider: SaveTubeProvider, video_id: str, error: type[ApiError]
    ) -> None:
        with pytest.raises(error):
            provider.resolve(video_id, timeout_s=10)

    def test_many_threads_share_one_client(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        with ThreadPoolExecutor(16) as pool:
            ids = [f"thread{number:05}" for number in range(64)]
            titles = list(pool.map(lambda video_id: provider.resolve(video_id, timeout_s=20).title, ids))
        assert titles == [f"Video {video_id}" for video_id in ids]


class TestPlan:
    def test_video_is_the_file_of_that_height(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        plan = provider.plan(AssetKey(ID, "video", "240p"), timeout_s=10)
        assert (plan.finish, plan.container, plan.mime) == ("remux", "mp4", "video/mp4")
        assert plan.files[0].source_id == "savetube:video:240"
        assert "Mozilla" in plan.files[0].headers["User-Agent"]
        assert read(plan.files[0].url) == site.file_of(ID, "video", 240)

    def test_a_refused_height_becomes_the_next_lower_one_when_nothing_was_said_of_heights(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        site.videos[ID] = SaveTubeVideo(title="Bare", drop=frozenset({"video_formats"}))
        key = AssetKey(ID, "video", "720p")
        plan = provider.plan(key, timeout_s=10)
        assert plan.files[0].source_id == "savetube:video:360"
        assert read(plan.files[0].url) == site.file_of(ID, "video", 360)
        asked = site.counts["download"]
        assert asked == 3
        provider.plan(key, timeout_s=10)
        assert site.counts["download"] == asked + 1  # what was refused is not asked for again

    def test_the_link_that_showed_the_best_height_is_used(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        site.videos[ID] = SaveTubeVideo(title="Bare", drop=frozenset({"video_formats"}))
        provider.resolve(ID, timeout_s=10)
        asked = site.counts["download"]
        assert provider.plan(AssetKey(ID, "video", "360p"), timeout_s=10).files[0].source_id == "savetube:video:360"
        assert site.counts["download"] == asked

    def test_when_every_height_is_refused_the_next_source_is_asked(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        site.videos[ID] = SaveTubeVideo(title="Bare", drop=frozenset({"video_formats"}))
        site.faults.add("download", status=200, body={"status": False, "message": "No."}, times=99)
        with pytest.raises(QualityUnavailable):
            provider.plan(AssetKey(ID, "video", "1080p"), timeout_s=10)
        assert site.counts["download"] == 6

    def test_trouble_is_not_taken_for_a_refusal(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        site.videos[ID] = SaveTubeVideo(title="Bare", drop=frozenset({"video_formats"}))
        site.faults.add("download", status=500, times=99)
        with pytest.raises(UpstreamError):
            provider.plan(AssetKey(ID, "video", "1080p"), timeout_s=10)
        assert site.counts["download"] == 1

    @pytest.mark.parametrize("message", ["Too many requests, try again later", "Rate limit exceeded"])
    def test_being_asked_too_often_is_not_taken_for_a_refusal(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider, message: str
    ) -> None:
        site.videos[ID] = SaveTubeVideo(title="Bare", drop=frozenset({"video_formats"}))
        for ask in (
            lambda: provider.plan(AssetKey(ID, "video", "720p"), timeout_s=10),
            lambda: provider.resolve(ID, timeout_s=10),
        ):
            site.faults.add("download", status=200, body={"status": False, "message": message})
            before = site.counts["download"]
            with pytest.raises(UpstreamError) as caught:
                ask()
            assert (site.counts["download"] - before, caught.value.retry_after_s) == (1, 60)
        assert provider.resolve(ID, timeout_s=10).video_heights == (360, 240, 144)

    def test_audio_is_the_best_mp3(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        plan = provider.plan(MP3, timeout_s=10)
        assert (plan.finish, plan.container, plan.mime) == ("direct", "mp3", "audio/mpeg")
        assert plan.files[0].source_id == "savetube:audio:320"
        assert (plan.title, plan.duration_s) == (f"Video {ID}", 6.0)
        assert read(plan.files[0].url) == site.file_of(ID, "audio")

    @pytest.mark.parametrize(
        ("kind", "variant"), [("audio", "m4a"), ("audio", "opus"), ("video", "1080p"), ("video", "x")]
    )
    def test_says_when_it_does_not_have_a_variant(self, provider: SaveTubeProvider, kind: Any, variant: str) -> None:
        with pytest.raises(QualityUnavailable):
            provider.plan(AssetKey(ID, kind, variant), timeout_s=10)

    def test_does_not_ask_for_the_info_again_right_after_resolve(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        provider.resolve(ID, timeout_s=10)
        provider.plan(MP3, timeout_s=10)
        assert site.counts["info"] == 1
        provider.plan(MP3, timeout_s=10, fresh=True)
        assert site.counts["info"] == 2

    @pytest.mark.usefixtures("redis_server")
    def test_nor_when_another_process_has_asked_for_it(
        self, site: SaveTubeStandIn, make_provider: Callable[..., SaveTubeProvider]
    ) -> None:
        resolving, fetching = make_provider(site), make_provider(site)  # one a process
        resolving.resolve(ID, timeout_s=10)
        assert fetching.plan(MP3, timeout_s=10) == resolving.plan(MP3, timeout_s=10)
        assert site.counts["info"] == 1
        fetching.plan(MP3, timeout_s=10, fresh=True)
        assert site.counts["info"] == 2

    def test_gets_a_new_key_when_the_old_one_is_refused(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        provider.resolve(ID, timeout_s=10)
        site._keys[ID] = "rotated"
        assert provider.plan(MP3, timeout_s=10).files
        assert site.counts["info"] == 2

    def test_asks_again_while_the_file_is_not_ready(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        site.faults.add("download", status=200, body={"status": False, "message": "File is being processed"}, times=3)
        assert provider.plan(MP3, timeout_s=10).files
        assert site.counts["download"] == 4

    @pytest.mark.parametrize(
        "url",
        [
            None, 5, "", "file:///etc/passwd", "http://8.8.8.8/x", "https://10.0.0.1/x", "https://169.254.169.254/",
            "https://user:pw@example.com/x", "https://[::ffff:10.0.0.1]/", "https://exa mple.com/", "//example.com/x",
            "https://example.com/\r\nHost: evil", "https://example.com/" + "a" * 9000, ["https://example.com/"],
        ],
    )  # fmt: skip
    def test_refuses_a_download_address(self, site: SaveTubeStandIn, provider: SaveTubeProvider, url: object) -> None:
        site.faults.add("download", status=200, body={"status": True, "data": {"downloadUrl": url}}, times=2)
        with pytest.raises(UpstreamError):
            provider.plan(MP3, timeout_s=10)

    @pytest.mark.parametrize("data", [None, [], "x", {}, {"downloadurl": "https://example.com/"}])
    def test_refuses_an_answer_without_one(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider, data: object
    ) -> None:
        site.faults.add("download", status=200, body={"status": True, "data": data}, times=2)
        with pytest.raises(UpstreamError):
            provider.plan(MP3, timeout_s=10)


class TestCdn:
    def test_asks_up_to_five_times(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        site.faults.add("random-cdn", status=500, times=4)
        assert provider.resolve(ID, timeout_s=10).title
        site.counts.clear()
        site.faults.add("random-cdn", status=503, times=50)
        with pytest.raises(UpstreamError):
            provider.resolve(ID, timeout_s=10)
        assert site.counts["random-cdn"] == 5

    def test_takes_another_cdn_when_one_fails(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        site.cdn_hosts = [f"127.0.0.1:{site.port}", "127.0.0.1:1"]
        assert provider.resolve(ID, timeout_s=10).title

    @pytest.mark.parametrize(
        "cdn",
        [
            None, 7, "", "evil.com", "127.0.0.1.evil.com", "evil127.0.0.1", "a/../b.127.0.0.1", "user@127.0.0.1",
            "127.0.0.1:0", "127.0.0.1:99999999", "127.0.0.1/x", "127.0.0.1#", "127.0.0.1\n", " 127.0.0.1", "[::1]",
            "cdn.127.0.0.1:443", "x" * 300 + ".127.0.0.1", {"host": "127.0.0.1"},
        ],
    )  # fmt: skip
    def test_refuses_a_cdn_name(self, site: SaveTubeStandIn, provider: SaveTubeProvider, cdn: object) -> None:
        site.faults.add("random-cdn", status=200, body={"cdn": cdn}, times=5)
        with pytest.raises(ApiError) as caught:
            provider.resolve(ID, timeout_s=10)
        assert caught.value.code in {"upstream_error", "upstream_unreachable"}
        assert site.counts["info"] == 0

    def test_refuses_a_port_on_an_address_that_is_not_allowed(
        self, site: SaveTubeStandIn, make_provider: Callable[..., SaveTubeProvider], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        networks = (ipaddress.ip_network("127.0.0.1/32"),)
        env = outbound.settings.ENV.model_copy(update={"outbound_allow": networks})
        monkeypatch.setattr(outbound.settings, "ENV", env)
        site.cdn_hosts = [f"127.0.0.2:{site.port}"]
        with pytest.raises(UpstreamError):
            make_provider(site, ("127.0.0.2",)).resolve(ID, timeout_s=10)
        assert site.counts["info"] == 0

    @pytest.mark.parametrize("cdn_tls", [True, False])
    def test_a_local_cdn_may_speak_http_or_https(
        self,
        site: SaveTubeStandIn,
        make_provider: Callable[..., SaveTubeProvider],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        cdn_tls: bool,
    ) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with SaveTubeStandIn(tls=authority if cdn_tls else None) as cdn:
            site.cdn_hosts = [f"localhost:{cdn.port}"]
            provider = make_provider(site)
            assert provider.resolve(ID, timeout_s=10).title
            assert provider.plan(MP3, timeout_s=10).files[0].url.startswith(cdn.url)

    def test_over_tls_throughout(
        self, make_provider: Callable[..., SaveTubeProvider], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        with SaveTubeStandIn(tls=authority) as site:
            with pytest.raises(UpstreamUnreachable):
                make_provider(site).resolve(ID, timeout_s=10)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            assert make_provider(site).resolve(ID, timeout_s=10).title


class TestHostileAnswers:
    @pytest.mark.parametrize(
        "fault",
        [
            {"name": "bad_ciphertext"},
            {"status": 200, "body": "<html>Just a moment...</html>"},
            {"status": 200, "body": b"[1, 2]"},
            {"status": 200, "body": b"\xff\xfe"},
            {"status": 200, "body": b"[" * 100_000},
            {"status": 200, "body": {"status": True}},
            {"status": 200, "body": {"status": "true", "data": encrypt(b"{}")}},
            {"status": 200, "body": {"status": True, "data": encrypt(b'{"title": "no key"}')}},
            {"status": 200, "body": {"status": True, "data": encrypt(b'{"key": "k", "title": ""}')}},
            {"status": 200, "body": {"status": True, "data": encrypt(b'{"key": 5, "title": "t"}')}},
            {"status": 200, "body": {"status": True, "data": encrypt(b'{"key": "k", "title": "t"}', "ee" * 16)}},
            {"status": 200, "body": b" " * (5 * 1024 * 1024)},
            {"status": 204, "body": b""},
            {"status": 302, "body": b"", "headers": {"Location": "https://10.0.0.1/"}},
            {"status": 403, "body": "<html>Forbidden</html>"},
            {"status": 500, "body": {"status": False}},
        ],
    )
    def test_are_one_clear_error(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider, fault: dict[str, Any]
    ) -> None:
        site.faults.add("info", **fault, times=5)
        with pytest.raises(UpstreamError):
            provider.resolve(ID, timeout_s=10)

    def test_an_answer_for_another_video_is_refused(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        answer_info_with(site, id="otherVideo0")
        with pytest.raises(UpstreamError):
            provider.resolve(ID, timeout_s=10)

    def test_retry_after_is_passed_on(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        site.faults.add("random-cdn", status=429, retry_after_s=17, times=5)
        with pytest.raises(UpstreamError) as caught:
            provider.resolve(ID, timeout_s=10)
        assert caught.value.retry_after_s == 17

    def test_a_silent_server_costs_no_more_than_the_time_given(
        self, site: SaveTubeStandIn, provider: SaveTubeProvider
    ) -> None:
        site.faults.add("info", delay_s=30, times=5)
        with pytest.raises(UpstreamTimeout):
            provider.resolve(ID, timeout_s=0.3)

    def test_nobody_listening_is_unreachable(self, make_provider: Callable[..., SaveTubeProvider]) -> None:
        site = SaveTubeStandIn()
        site.port = 1
        with pytest.raises(UpstreamUnreachable):
            make_provider(site).resolve(ID, timeout_s=10)

    def test_errors_name_neither_key_nor_address(self, site: SaveTubeStandIn, provider: SaveTubeProvider) -> None:
        site.faults.add("info", status=500, times=5)
        with pytest.raises(UpstreamError) as caught:
            provider.resolve(ID, timeout_s=10)
        assert TEST_KEY not in repr(caught.value)
        assert "127.0.0.1" not in caught.value.message
