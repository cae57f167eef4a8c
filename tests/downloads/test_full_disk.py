"""A hot store whose disk is really full: a file system of 24 MiB under a running server, asked over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.keys.documents import Role
from apps.keys.services import create_key, create_user
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetState
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.small_disk import MIB, filled, free_bytes, small_disk
from tests.standins.faults import FOREVER
from tests.standins.savetube import SaveTubeStandIn
from tests.standins.telegram import SENDING, TelegramStandIn
from tests.waiting import wait_until

CHANNEL_ID = -1001234567890
OWNER, PASSWORD = "the-owner", "correct horse battery"
FIT = 6  # songs of 4 MB
LEFT_BYTES = 24 * MIB // 64  # what the hot store never takes


@dataclass
class World:
    """A running instance over the small disk, and the outside."""

    instance: Instance
    disk: Path
    savetube: SaveTubeStandIn
    telegram: TelegramStandIn
    api: httpx.Client
    may_upload: threading.Event = field(default_factory=threading.Event)

    def get(self, path: str, **fields: Any) -> dict[str, Any]:
        answer = self.api.get(f"/api/v1/{path}", params=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stream(self, video_id: str, **headers: str) -> httpx.Response:
        return self.api.get(f"/stream/audio/{video_id}", headers=headers)

    def original(self, video_id: str) -> bytes:
        return self.savetube.file_of(video_id, "audio")

    def fetch(self, video_id: str) -> None:
        answer = self.get("audio", url=video_id, wait=30)
        assert (answer["cached"], answer["source"]) == (True, "hot"), answer
        assert self.stream(video_id).content == self.original(video_id)

    def begin(self, video_id: str) -> str:
        """The id of the job that fetches it."""
        job_id: str = self.get("audio", url=video_id)["job"]["id"]
        return job_id

    def store(self, video_id: str) -> Asset:
        """Fetch it and have it in Telegram alone."""
        self.fetch(video_id)
        wait_until(lambda: self.asset(video_id).state == AssetState.CACHED)
        asset = self.asset(video_id)
        assert HotStore(self.disk / "hot").remove(asset.id, asset.generation) > 0
        return asset

    def asset(self, video_id: str) -> Asset:
        return Asset.objects.get(video_id=video_id)

    def waits_for_room(self, job_id: str, *, attempts: int = 1) -> bool:
        job = self.get(f"jobs/{job_id}")
        assert job["state"] in ("queued", "running"), job
        failure = job["last_failure"]
        if failure is None or job["attempts"] < attempts:
            return False
        assert failure["code"] == "overloaded"
        assert failure["retryable"]
        assert "no room" in failure["message"]
        return True

    def not_ready(self) -> str:
        """What /readyz says of the hot store (as of the last second); empty when the server is ready."""
        answer = self.api.get("/readyz")
        if answer.status_code == 200:
            return ""
        assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")
        return str(answer.json()["down"]["hot_store"])

    @contextmanager
    def admin(self) -> Iterator[httpx.Client]:
        """The owner's browser, as far as forms go."""
        with httpx.Client(base_url=self.instance.url, timeout=60, follow_redirects=True) as browser:
            browser.get("/admin/login")
            form = {"username": OWNER, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
            assert browser.post("/admin/login", data=form).url.path == "/admin/"
            yield browser

    def evict_in_admin(self, asset: Asset) -> None:
        with self.admin() as browser:
            form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
            answer = browser.post(f"/admin/cache/{asset.id}/evict", data=form)
            assert "It is no longer on this server." in answer.text, answer.text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("full-disk")
        disk = stack.enter_context(small_disk(folder / "disk"))
        empty_everything()
        savetube = stack.enter_context(SaveTubeStandIn())
        telegram = stack.enter_context(TelegramStandIn(folder=tmp_path_factory.mktemp("telegram")))
        bot, channel = telegram.add_bot(111111), telegram.add_channel(CHANNEL_ID)
        telegram.make_admin(bot, channel)
        settings = {
            "PUBLIC_URL": "",
            "PROVIDERS": "savetube",
            "HOT_DIR": str(disk / "hot"),
            **savetube.settings,
            **telegram.environment(),
            "TELEGRAM_BOT_TOKENS": bot.token,
            "TELEGRAM_CHANNEL_ID": str(CHANNEL_ID),
        }
        instance = Instance(folder, settings, clock=True)
        stack.callback(instance.stop)
        instance.start()
        create_user(username=OWNER, password=PASSWORD, role=Role.OWNER)
        headers = {"X-API-Key": create_key(name="full", limit_per_hour=100_000).key}
        api = stack.enter_context(httpx.Client(base_url=instance.url, headers=headers, timeout=120))
        world = World(instance, disk, savetube, telegram, api)
        stack.callback(world.may_upload.set)
        yield world


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """Nothing but what earlier tests have stored in Telegram, and nothing of that on the disk."""
    running.telegram.faults.clear()
    running.savetube.faults.clear()
    running.may_upload.set()
    wait_until(lambda: not Asset.objects(state__ne=AssetState.CACHED.value))
    hot_store = HotStore(running.disk / "hot")
    for entry in hot_store.entries():
        hot_store.remove(entry.asset_id, entry.generation)
    wait_until(lambda: free_bytes(running.disk) > 23 * MIB, what="that streams let go of removed files")
    return running


def hold_uploads(world: World) -> None:
    """Telegram takes nothing until ``may_upload`` is set: what is fetched may not leave the disk."""
    world.may_upload.clear()
    for method in SENDING:
        world.telegram.faults.add(method, until=world.may_upload, times=FOREVER)


def test_a_file_that_does_not_fit_waits_until_others_may_leave(world: World) -> None:
    hold_uploads(world)
    songs = [f"largesong{number:02}" for number in range(FIT)]
    for song in songs:
        world.fetch(song)

    with world.api.stream("GET", f"/stream/audio/{songs[0]}") as playing:
        pieces = playing.iter_raw()
        heard = next(pieces)

        # one more: there is no room for it, and the disk counts as full
        job = world.begin("largesong99")
        wait_until(lambda: world.waits_for_room(job, attempts=2))
        refused = world.stream("largesong99")
        assert (refused.status_code, refused.json()["error"]) == (503, "overloaded"), refused.text
        assert refused.json()["retryable"]
        assert int(refused.headers["Retry-After"]) > 0
        assert world.savetube.counts["file:largesong99"] == 1  # and the source is not asked again and again
        answer = world.get("audio", url="largesong99")
        assert (answer["cached"], answer["source"], answer["job"]["id"]) == (False, "external", job)

        # whoever runs the server is told
        wait_until(lambda: world.not_ready().startswith("its disk is full, "))
        with world.admin() as browser:
            assert "Full: 1 MB free where the hot store is." in browser.get("/admin/").text

        # all the rest goes on
        assert world.get("info", url="neverheard1")["title"] == "Video neverheard1"
        assert world.get("audio", url=songs[1])["source"] == "hot"
        assert world.stream(songs[1], Range="bytes=-100").content == world.original(songs[1])[-100:]
        assert heard + b"".join(pieces) == world.original(songs[0])

    # Telegram takes files again: some leave the disk, and the one that waited comes
    world.may_upload.set()
    wait_until(lambda: world.get(f"jobs/{job}")["state"] == "done", timeout_s=180)
    assert world.stream("largesong99").content == world.original("largesong99")
    wait_until(lambda: not world.not_ready())
    assert len(list(HotStore(world.disk / "hot").entries())) <= FIT
    for song in songs:  # from the disk or from Telegram, which takes room too
        assert world.stream(song).content == world.original(song)
        assert world.savetube.counts[f"file:{song}"] == 1


def test_a_disk_that_fills_up_in_the_middle_of_a_fetch(world: World) -> None:
    world.savetube.faults.add("file", bytes_per_s=MIB)
    job = world.begin("largeslow01")
    with world.api.stream("GET", "/stream/audio/largeslow01") as playing:
        pieces = playing.iter_raw()
        heard = next(pieces)
        with filled(world.disk):
            wait_until(lambda: world.waits_for_room(job))
            wait_until(lambda: world.not_ready() == "its disk is full, 0.0 MiB are free")
            assert world.get("audio", url="largeslow01")["cached"] is False
            assert not world.asset("largeslow01").is_finished
            assert world.get("info", url="neverheard2")["title"] == "Video neverheard2"
        # there is room again: the fetch goes on from its bytes, and so does the stream that waited
        assert heard + b"".join(pieces) == world.original("largeslow01")
    wait_until(lambda: world.get(f"jobs/{job}")["state"] == "done")
    assert world.stream("largeslow01").content == world.original("largeslow01")
    assert world.asset("largeslow01").generation == 1
    wait_until(lambda: not world.not_ready())


def test_a_file_from_telegram_has_those_leave_that_nobody_plays(world: World) -> None:
    world.store("largecold02")
    for number in range(FIT):
        world.fetch(f"largeidle{number:02}")
    wait_until(lambda: not Asset.objects(state__ne=AssetState.CACHED.value))
    wait_until(lambda: world.stream("largecold02").status_code == 200)  # at once, unless it was in vain a moment ago
    assert world.stream("largecold02").content == world.original("largecold02")


def test_a_file_that_is_only_in_telegram_says_so_and_comes_when_there_is_room(world: World) -> None:
    world.store("largecold01")
    with filled(world.disk):
        refused = world.stream("largecold01")
        assert (refused.status_code, refused.json()["error"]) == (503, "overloaded"), refused.text
        assert "disk is full" in refused.json()["message"]
        assert int(refused.headers["Retry-After"]) > 0
    with filled(world.disk, leaving=3 * MIB):
        assert world.stream("largecold01", Range="bytes=0-99").content == world.original("largecold01")[:100]
        with pytest.raises(httpx.RemoteProtocolError):  # a part of it is never offered as the whole
            world.stream("largecold01")
        assert free_bytes(world.disk) >= LEFT_BYTES  # a MongoDB on the same disk would end
    assert world.stream("largecold01").content == world.original("largecold01")
    assert world.savetube.counts["file:largecold01"] == 1


def test_what_is_evicted_in_the_admin_makes_room(world: World) -> None:
    for song in ("largekept01", "largekept02"):
        world.fetch(song)
    wait_until(lambda: not Asset.objects(state__ne=AssetState.CACHED.value))
    with filled(world.disk, leaving=MIB):
        wait_until(world.not_ready)
        world.evict_in_admin(world.asset("largekept01"))
        wait_until(lambda: not world.not_ready())
        world.fetch("smallnew001")
        assert world.stream("largekept02").content == world.original("largekept02")
    assert world.stream("largekept01").content == world.original("largekept01")
