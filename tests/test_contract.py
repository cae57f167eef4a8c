"""The HTTP contract over real sockets: web server, Celery worker, MongoDB, Redis, and stand-ins for the outside."""

import asyncio
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from apps.core.errors import ERRORS_BY_CODE
from apps.downloads.services.media import hot_store
from apps.keys.services import create_key, revoke_key
from apps.streaming.links import sign_link
from apps.telegram_cache.documents import Asset, AssetState
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.savetube import SaveTubeStandIn
from tests.standins.telegram import TelegramStandIn
from tests.waiting import wait_until
from ytserver.env import BASE_DIR

CHANNEL_ID = -1001234567890
MIB = 1024 * 1024


@dataclass
class World:
    """A running instance, a caller's key, and the outside."""

    instance: Instance
    key: str
    savetube: SaveTubeStandIn
    telegram: TelegramStandIn

    @property
    def api(self) -> httpx.Client:
        return httpx.Client(base_url=self.instance.url, headers={"X-API-Key": self.key}, timeout=60)

    def get(self, path: str, **fields: Any) -> dict[str, Any]:
        with self.api as api:
            response = api.get(f"/api/v1/{path}", params=fields)
        assert response.status_code == 200, response.text
        return response.json()

    def audio(self, video_id: str, *, wait: int = 30) -> dict[str, Any]:
        return self.get("audio", url=video_id, wait=wait)

    def original(self, video_id: str) -> bytes:
        return self.savetube.file_of(video_id, "audio")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    empty_everything()
    folder = tmp_path_factory.mktemp("contract")
    with SaveTubeStandIn() as savetube, TelegramStandIn(folder=folder) as telegram:
        bot, channel = telegram.add_bot(111111), telegram.add_channel(CHANNEL_ID)
        telegram.make_admin(bot, channel)
        instance = Instance(
            folder,
            {
                "PUBLIC_URL": "",
                "PROVIDERS": "savetube",
                **savetube.settings,
                "TELEGRAM_API_URL": telegram.url,
                "TELEGRAM_FILE_URL": f"{telegram.url}/file",
                "TELEGRAM_BOT_TOKENS": bot.token,
                "TELEGRAM_CHANNEL_ID": str(CHANNEL_ID),
            },
        )
        try:
            instance.start()
            yield World(instance, create_key(name="contract", limit_per_hour=100_000).key, savetube, telegram)
        finally:
            instance.stop()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def asset_of(answer: dict[str, Any]) -> Asset:
    return Asset.objects.get(video_id=answer["video_id"], kind=answer["file_type"], variant=answer["quality"])


def assert_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert (response.status_code, body["error"]) == (status, code), body
    assert body["status"] is False
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["retryable"] is ERRORS_BY_CODE[code].retryable
    assert body["request_id"] == response.headers["X-Request-Id"]


class TestTheMainJob:
    def test_info_comes_from_outside_once(self, world):
        for _ in range(3):
            answer = world.get("info", url="https://www.youtube.com/watch?v=info0000001")
        assert (answer["title"], answer["duration"]) == ("Video info0000001", "0:06")
        assert world.savetube.counts["info:info0000001"] == 1

    def test_cold_audio_is_streamed_while_it_is_fetched(self, world):
        video_id = "cold0000001"
        original = world.original(video_id)
        world.savetube.faults.add("file", bytes_per_s=len(original) / 3)
        answer = world.audio(video_id, wait=0)
        assert (answer["cached"], answer["source"]) == (False, "external")
        with world.api as api, httpx.stream("GET", answer["stream_url"], timeout=60) as response:
            chunks = response.iter_bytes()
            got = next(chunks)
            # progress is written to the job with its heartbeat: bytes may be here a little earlier
            wait_until(
                lambda: (
                    (job := api.get(f"/api/v1/jobs/{answer['job']['id']}").json())["stage"] == "downloading"
                    and job["state"] == "running"
                )
            )
            got += b"".join(chunks)
        assert sha256(got) == sha256(original)
        assert world.savetube.counts[f"file:{video_id}"] == 1

    def test_the_second_time_it_is_hot(self, world):
        video_id = "hot00000001"
        world.audio(video_id)
        answer = world.audio(video_id)
        assert (answer["cached"], answer["source"], answer["job"]) == (True, "hot", None)
        assert answer["file_size"] == len(world.original(video_id))
        assert httpx.get(answer["stream_url"], timeout=60).content == world.original(video_id)
        assert world.savetube.counts[f"file:{video_id}"] == 1

    def test_with_the_hot_file_gone_it_comes_from_telegram(self, world):
        video_id = "largetgram1"
        asset = asset_of(world.audio(video_id))
        wait_until(lambda: Asset.objects.get(id=asset.id).state == AssetState.CACHED, timeout_s=90)
        hot_store().remove(asset.id, asset.generation)
        answer = world.audio(video_id)
        assert (answer["cached"], answer["source"]) == (True, "telegram")
        assert answer["telegram"]["parts"] == 1
        original = world.original(video_id)
        middle = httpx.get(answer["stream_url"], headers={"Range": f"bytes={MIB - 10}-{MIB + 10}"}, timeout=60)
        assert (middle.status_code, middle.content) == (206, original[MIB - 10 : MIB + 11])
        assert sha256(httpx.get(answer["stream_url"], timeout=60).content) == sha256(original)
        assert world.savetube.counts[f"file:{video_id}"] == 1

    def test_with_everything_gone_it_is_fetched_again(self, world):
        video_id = "lost0000001"
        link = world.audio(video_id)["stream_url"]
        asset = Asset.objects.get(video_id=video_id)
        wait_until(lambda: Asset.objects.get(id=asset.id).state == AssetState.CACHED, timeout_s=90)
        Asset.objects(id=asset.id).update_one(set__parts=[])
        hot_store().remove(asset.id, asset.generation)
        response = httpx.get(link, timeout=60)
        assert sha256(response.content) == sha256(world.original(video_id))
        assert response.headers["ETag"] == f'"{asset.id}-2"'

    def test_a_stored_copy_found_damaged_is_fetched_again_before_the_first_byte(self, world):
        video_id = "damaged0001"
        link = world.audio(video_id)["stream_url"]
        asset = Asset.objects.get(video_id=video_id)
        wait_until(lambda: Asset.objects.get(id=asset.id).state == AssetState.CACHED, timeout_s=90)
        hot_store().remove(asset.id, asset.generation)
        world.telegram.spoiled.add(111111)
        try:
            response = httpx.get(link, timeout=60)
        finally:
            world.telegram.spoiled.clear()
        assert (response.status_code, response.headers["ETag"]) == (200, f'"{asset.id}-2"')
        assert sha256(response.content) == sha256(world.original(video_id))

    def test_a_video_waits_until_it_can_be_sought_in(self, world):
        answer = world.get("video", url="video000001", quality="best")
        assert (answer["file_type"], answer["container"], answer["cached"]) == ("video", "mp4", False)
        body = httpx.get(answer["stream_url"], timeout=60).content
        assert 0 < body.find(b"moov") < body.find(b"mdat")
        # the last byte is sent before the record says that the file is whole
        wait_until(lambda: world.get("video", url="video000001")["cached"])
        assert world.get("video", url="video000001")["file_size"] == len(body)

    def test_a_stream_opens_with_a_key_and_no_link(self, world):
        with world.api as api:
            response = api.get("/stream/audio/bykey000001", params={"format": "mp3"})
        assert response.content == world.original("bykey000001")
        assert int(response.headers["RateLimit-Remaining"]) < 100_000

    def test_two_hundred_at_once_make_one_download(self, world):
        video_id = "storm000001"
        original = world.original(video_id)
        world.savetube.faults.add("file", bytes_per_s=len(original))

        async def ask_and_stream(client: httpx.AsyncClient) -> str:
            answer = await client.get("/api/v1/audio", params={"url": video_id}, headers={"X-API-Key": world.key})
            assert answer.status_code == 200, answer.text
            return sha256((await client.get(answer.json()["stream_url"])).content)

        async def storm() -> list[str]:
            limits = httpx.Limits(max_connections=200)
            async with httpx.AsyncClient(base_url=world.instance.url, timeout=60, limits=limits) as client:
                return await asyncio.gather(*(ask_and_stream(client) for _ in range(200)))

        assert set(asyncio.run(storm())) == {sha256(original)}
        assert world.savetube.counts[f"info:{video_id}"] <= 2  # metadata, and the download key
        assert world.savetube.counts[f"file:{video_id}"] == 1
        assert world.savetube.counts[f"bytes:{video_id}"] == len(original)

    def test_what_the_video_itself_refuses_is_told_as_such(self, world):
        with world.api as api:
            assert_error(api.get("/api/v1/audio", params={"url": "removed0001"}), 404, "video_unavailable")
            assert_error(api.get("/api/v1/info", params={"url": "private0001"}), 403, "video_private")


class TestExamples:
    @pytest.mark.parametrize("program", ["fetch_sync.py", "fetch_async.py"])
    def test_an_example_saves_the_bytes_of_the_original(self, world, tmp_path, program):
        video_id = "example0001"
        subprocess.run(
            [sys.executable, BASE_DIR / "examples" / program, f"https://youtu.be/{video_id}"],
            env={**os.environ, "YTSERVER_URL": world.instance.url, "YTSERVER_KEY": world.key},
            cwd=tmp_path,
            check=True,
            timeout=60,
        )
        (saved,) = tmp_path.iterdir()
        assert saved.name == f"Video {video_id}.mp3"
        assert saved.read_bytes() == world.original(video_id)


@pytest.fixture(scope="module")
def link(world):
    return world.audio("stream00001")["stream_url"]


@pytest.fixture(scope="module")
def original(world):
    return world.original("stream00001")


class TestStreams:
    def test_head_tells_what_get_would_send(self, link, original):
        head, get = httpx.head(link, timeout=60), httpx.get(link, timeout=60)
        for name in ("Content-Length", "Content-Type", "ETag", "Accept-Ranges", "Content-Disposition"):
            assert head.headers[name] == get.headers[name]
        assert head.headers["Content-Length"] == str(len(original))
        assert head.headers["Content-Type"] == "audio/mpeg"
        assert head.content == b""

    @pytest.mark.parametrize(
        ("header", "start", "stop"),
        [("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=-7", -7, None), ("bytes=5000-", 5000, None)],
    )
    def test_a_range_gives_those_bytes(self, link, original, header, start, stop):
        response = httpx.get(link, headers={"Range": header}, timeout=60)
        assert (response.status_code, response.content) == (206, original[start:stop])

    @pytest.mark.parametrize("header", ["bytes=x", "bytes=9-1", "lines=0-1", "bytes=0-1,5-6", "bytes=", "bytes=-"])
    def test_a_range_that_says_nothing_gets_everything(self, link, original, header):
        response = httpx.get(link, headers={"Range": header}, timeout=60)
        assert (response.status_code, response.content) == (200, original)

    def test_a_range_beyond_the_end_is_refused(self, link, original):
        response = httpx.get(link, headers={"Range": "bytes=99999999-"}, timeout=60)
        assert_error(response, 416, "range_not_satisfiable")
        assert response.headers["Content-Range"] == f"bytes */{len(original)}"

    def test_if_range_protects_a_resumed_download(self, link, original):
        etag = httpx.head(link, timeout=60).headers["ETag"]
        resumed = httpx.get(link, headers={"Range": "bytes=10-", "If-Range": etag}, timeout=60)
        changed = httpx.get(link, headers={"Range": "bytes=10-", "If-Range": '"other"'}, timeout=60)
        assert (resumed.status_code, changed.status_code) == (206, 200)
        assert httpx.get(link, headers={"If-None-Match": etag}, timeout=60).status_code == 304

    def test_if_match_refuses_another_file(self, link, original):
        etag = httpx.head(link, timeout=60).headers["ETag"]
        same = httpx.get(link, headers={"Range": "bytes=10-", "If-Match": etag}, timeout=60)
        assert (same.status_code, same.content) == (206, original[10:])
        other = httpx.get(link, headers={"Range": "bytes=10-", "If-Match": '"other"'}, timeout=60)
        assert_error(other, 412, "precondition_failed")
        assert httpx.head(link, headers={"If-Match": '"other"'}, timeout=60).status_code == 412

    def test_a_download_link_saves_under_the_title(self, world):
        answer = world.audio("stream00001")
        disposition = httpx.head(answer["download_url"], timeout=60).headers["Content-Disposition"]
        assert disposition.startswith("attachment")
        assert "Video stream00001.mp3" in disposition
        assert httpx.head(answer["stream_url"], timeout=60).headers["Content-Disposition"].startswith("inline")

    def test_a_revoked_key_stops_its_links(self, world):
        key = create_key(name="short-lived").key
        headers = {"X-API-Key": key}
        url = f"{world.instance.url}/api/v1/audio"
        link = httpx.get(url, params={"url": "stream00001"}, headers=headers, timeout=60).json()["stream_url"]
        assert httpx.get(link, timeout=60).status_code == 200
        revoke_key(key[3:11])
        wait_until(lambda: httpx.get(link, timeout=60).status_code == 403)
        assert_error(httpx.get(link, timeout=60), 403, "key_disabled")
        assert_error(httpx.get(url, headers=headers, timeout=60), 403, "key_disabled")

    def test_a_running_stream_ends_with_its_key(self, world):
        video_id = "longstream1"
        world.savetube.faults.add("file", bytes_per_s=5000)
        key = create_key(name="short-lived").key
        url = f"{world.instance.url}/api/v1/audio"
        answer = httpx.get(url, params={"url": video_id}, headers={"X-API-Key": key}, timeout=60).json()

        def stream_and_revoke() -> None:
            with httpx.stream("GET", answer["stream_url"], timeout=60) as response:
                for _ in response.iter_bytes():
                    revoke_key(key[3:11])

        with pytest.raises(httpx.RemoteProtocolError):
            stream_and_revoke()
        with world.api as api:
            api.delete(f"/api/v1/jobs/{answer['job']['id']}")


class TestBadInput:
    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/api/v1/audio", 400, "invalid_parameter"),
            ("GET", "/api/v1/audio?url=nonsense", 400, "invalid_url"),
            ("GET", "/api/v1/audio?url=http://169.254.169.254/latest", 400, "invalid_url"),
            ("GET", "/api/v1/audio?url=dQw4w9WgXcQ&bitrate=1", 400, "invalid_parameter"),
            ("GET", "/api/v1/audio?url=%FF%FE", 400, "invalid_url"),
            ("GET", "/api/v1/audio?" + "&".join(f"a{n}=1" for n in range(2000)), 413, "too_large"),
            ("GET", "/api/v1/video?url=dQw4w9WgXcQ&quality=9999999", 400, "invalid_parameter"),
            ("GET", "/api/v1/video?url=dQw4w9WgXcQ&wait=31", 400, "invalid_parameter"),
            ("PUT", "/api/v1/video", 405, "method_not_allowed"),
            ("TRACE", "/api/v1/video", 405, "method_not_allowed"),
            ("GET", "/api/v1/jobs/unknown", 404, "not_found"),
            ("GET", "/api/v2/info", 404, "not_found"),
            ("GET", "/api/v1/%2e%2e/%2e%2e/etc/passwd", 404, "not_found"),
            ("GET", "/nothing", 404, "not_found"),
            ("GET", "/stream/audio/short", 404, "not_found"),
            ("GET", "/stream/text/dQw4w9WgXcQ", 404, "not_found"),
            ("GET", "/stream/audio/dQw4w9WgXcQ/more", 404, "not_found"),
            ("POST", "/stream/audio/dQw4w9WgXcQ", 405, "method_not_allowed"),
            ("GET", "/stream/audio/dQw4w9WgXcQ?format=wav", 400, "invalid_parameter"),
            ("GET", "/stream/audio/dQw4w9WgXcQ?sig=x", 403, "link_invalid"),
            ("GET", f"/stream/audio/dQw4w9WgXcQ?asset=x&key_id=y&expires=1&sig={'A' * 43}", 403, "link_invalid"),
            ("GET", f"/stream/audio/dQw4w9WgXcQ?asset=%00&key_id=%00&expires=9&sig={'A' * 43}", 403, "link_invalid"),
        ],
    )
    def test_gets_the_documented_error(self, world, method, path, status, code):
        with world.api as api:
            assert_error(api.request(method, path), status, code)

    @pytest.mark.parametrize(
        ("content", "content_type", "status", "code"),
        [
            (b"{", "application/json", 400, "invalid_parameter"),
            (b"[" * 60_000, "application/json", 400, "invalid_parameter"),
            (b"x" * 70_000, "application/json", 413, "too_large"),
            (b"\x00" * 5_000_000, "application/octet-stream", 413, "too_large"),
            (b"a", "application/octet-stream", 415, "unsupported_media_type"),
            (b"&".join(b"a%d=1" % n for n in range(5000)), "application/x-www-form-urlencoded", 413, "too_large"),
        ],
    )
    def test_a_bad_body_gets_the_documented_error(self, world, content, content_type, status, code):
        with world.api as api:
            response = api.post("/api/v1/video", content=content, headers={"Content-Type": content_type})
        assert_error(response, status, code)

    @pytest.mark.parametrize("path", ["/api/v1/info?url=dQw4w9WgXcQ", "/stream/audio/dQw4w9WgXcQ"])
    def test_a_bad_key_gets_the_documented_error(self, world, path):
        url = world.instance.url + path
        assert_error(httpx.get(url, timeout=60), 401, "key_missing")
        assert_error(httpx.get(url, headers={"X-API-Key": "yt_x"}, timeout=60), 401, "key_invalid")
        assert_error(
            httpx.get(url, headers={"Authorization": f"Bearer yt_{'a' * 8}_{'b' * 43}"}, timeout=60), 401, "key_invalid"
        )

    def test_a_changed_or_old_link_gets_the_documented_error(self, world):
        link = world.audio("stream00001")["stream_url"]
        assert_error(httpx.get(link[:-3] + "AAA", timeout=60), 403, "link_invalid")
        assert_error(httpx.get(link.replace("stream00001", "stream00002"), timeout=60), 403, "link_invalid")
        path = "/stream/audio/stream00001"
        old = sign_link(path=path, asset_id="x", key_prefix=world.key[3:11], expires_at=1, attachment=False)
        assert_error(httpx.get(world.instance.url + old, timeout=60), 410, "link_expired")

    def test_an_unknown_host_is_refused(self, world):
        response = httpx.get(f"{world.instance.url}/api/v1/status", headers={"Host": "evil.example"}, timeout=60)
        assert_error(response, 400, "invalid_parameter")

    def test_the_limit_is_told_and_holds(self, world):
        key = create_key(name="small", limit_per_hour=3).key
        with httpx.Client(base_url=world.instance.url, headers={"X-API-Key": key}, timeout=60) as api:
            answers = [api.get("/api/v1/info", params={"url": "stream00001"}) for _ in range(2)]
            answers += [api.get("/stream/audio/stream00001", params={"format": "mp3"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert_error(answers[3], 429, "rate_limited")
        assert int(answers[3].headers["Retry-After"]) > 0

    def test_no_fault_of_ours_is_in_the_log(self, world):
        errors = [line for line in world.instance.log("web").splitlines() if '"level": "error"' in line]
        on_purpose = ("StreamAborted", "telegram_part_bad")  # how a stream is cut; the copy that was damaged
        assert [line for line in errors if not any(name in line for name in on_purpose)] == []
        assert world.key not in world.instance.log("web") + world.instance.log("worker")
