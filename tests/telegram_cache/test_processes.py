"""Bots, tokens and channels change while two web servers stream and a worker uploads: nobody notices."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path

import httpx
import pytest
from django.conf import settings as django_settings

from apps.keys.services import create_key
from apps.streaming.hotstore import HotStore
from apps.streaming.links import sign_link
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.services import request_upload, sweep_uploads
from apps.telegram_cache.services.bots import add_bot, disable_bot, enable_bot, replace_token
from apps.telegram_cache.services.channels import add_channel, make_channel_default
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.faults import FOREVER
from tests.standins.telegram import FakeBot, TelegramStandIn
from tests.telegram_cache.conftest import MIB, close_bot_api, media
from tests.waiting import wait_until

FIRST, SECOND = -1001, -1002
SIZE = 2 * MIB + 4321  # three parts
STREAMED, READERS = 3, 3


@dataclass
class World:
    """A running instance under load, and Telegram."""

    instance: Instance
    telegram: TelegramStandIn
    key_prefix: str
    made: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    streams: Iterator[int] = field(default_factory=lambda: count(1))
    done: int = 0
    seeds: Iterator[int] = field(default_factory=lambda: count(1))

    def make_ready(self) -> str:
        """An asset whose bytes are only in the hot store."""
        seed = next(self.seeds)
        data = media(SIZE, seed)
        key = AssetKey(f"process{seed:04d}", MediaKind.AUDIO, "m4a")
        with HotStore(django_settings.ENV.hot_root).create(key.asset_id, 1, resume=False) as writer:
            writer.set_size(SIZE)
            writer.append(data)
            hashes = writer.finish()
        Asset(
            id=key.asset_id, video_id=key.video_id, kind=key.kind, variant=key.variant, title="A song",
            mime="audio/mp4", container="m4a", size_bytes=SIZE, sha256=hashlib.sha256(data).hexdigest(),
            block_sha256=b"".join(hashes), state=AssetState.READY,
        ).save()  # fmt: skip
        self.made[key.asset_id] = data
        return key.asset_id

    def upload(self) -> Asset:
        """Have the worker store a new asset; returns it when that is done."""
        asset_id = self.make_ready()
        request_upload(asset_id)
        wait_until(lambda: Asset.objects.get(id=asset_id).state == AssetState.CACHED, timeout_s=60)
        return Asset.objects.get(id=asset_id)

    def stream(self, asset: Asset) -> None:
        """Read it from Telegram, whole, as a player does; note what is wrong."""
        path = f"/stream/audio/{asset.video_id}"
        link = sign_link(
            path=path, asset_id=asset.id, key_prefix=self.key_prefix, expires_at=int(time.time()) + 600,
            attachment=False,
        )  # fmt: skip
        HotStore(django_settings.ENV.hot_root).remove(asset.id, 1)
        try:
            answer = httpx.get(self.instance.url + link[link.index(path) :], timeout=60)
        except httpx.HTTPError as error:
            self.problems.append(f"{asset.id}: {error!r}")
            return
        if answer.status_code != 200 or answer.content != self.made[asset.id]:
            self.problems.append(f"{asset.id}: {answer.status_code} {answer.text[:200]}")
        self.done = next(self.streams)

    def stream_some_more(self) -> None:
        """Until each reader has begun and finished at least one stream from now on."""
        wanted = self.done + 2 * READERS
        wait_until(lambda: self.done >= wanted or self.problems, timeout_s=60)
        assert self.problems == []

    def works_without(self, bot_id: int) -> bool:
        """Whether an upload and a round of streams go by in which no process asks this bot anything."""
        calls = self.telegram.calls_of[bot_id]
        self.upload()
        self.stream_some_more()
        return self.telegram.calls_of[bot_id] == calls

    def is_soon_without(self, bot_id: int) -> bool:
        """Whether there comes such a round, and the one after it is one too: who begins anew knows of the change."""
        wait_until(lambda: self.works_without(bot_id))
        return self.works_without(bot_id)


def sweep_until(ended: threading.Event) -> None:
    """What the beat has the worker do every ten seconds, more often."""
    while not ended.wait(0.5):
        sweep_uploads()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[World]:
    empty_everything()
    folder: Path = tmp_path_factory.mktemp("processes")
    own = django_settings.ENV
    with TelegramStandIn(folder=folder) as telegram:
        outside = telegram.environment()
        django_settings.ENV = own.model_copy(update={name.lower(): value for name, value in outside.items()})
        settings = {"PUBLIC_URL": "", "TELEGRAM_PART_BYTES": str(MIB), "WEB_WORKERS": "2", **outside}
        instance = Instance(folder, settings, worker_threads=4, web_processes=2)
        ended = threading.Event()
        beat = threading.Thread(target=sweep_until, args=(ended,), name="beat")
        try:
            instance.start()
            beat.start()
            yield World(instance, telegram, create_key(name="processes", limit_per_hour=100_000).document.prefix)
        finally:
            ended.set()
            instance.stop()
            django_settings.ENV = own
            forget_roster()
            close_bot_api()


@pytest.fixture
def bots(running: World) -> list[FakeBot]:
    """Two bots, both in two channels; the first channel is the default."""
    channels = [running.telegram.add_channel(chat_id) for chat_id in (FIRST, SECOND)]
    made = [running.telegram.add_bot(bot_id) for bot_id in (111111, 222222)]
    for bot in made:
        for channel in channels:
            running.telegram.make_admin(bot, channel)
        add_bot(bot.token)
    add_channel(str(SECOND))
    add_channel(str(FIRST))
    return made


@pytest.fixture
def load(running: World, bots) -> Iterator[World]:
    """Clients that stream from Telegram without pause, slowly enough that a change finds every stream half-way."""
    assets = [running.upload() for _ in range(STREAMED)]
    running.telegram.faults.add("file", bytes_per_s=4 * MIB, times=FOREVER)
    ended = threading.Event()
    turns, lock = cycle(assets), threading.Lock()

    def read_on() -> None:
        while not ended.is_set():
            with lock:
                asset = next(turns)
            running.stream(asset)

    readers = [threading.Thread(target=read_on, name="reader") for _ in range(READERS)]
    for reader in readers:
        reader.start()
    yield running
    ended.set()
    for reader in readers:
        reader.join()


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, name="uploads")
    thread.start()
    return thread


def test_changes_take_effect_everywhere_and_no_request_fails(load: World, bots: list[FakeBot]) -> None:
    telegram = load.telegram
    load.stream_some_more()

    # a bot is stopped: soon no process asks it anything any more
    uploading = in_background(lambda: [load.upload() for _ in range(2)])
    disable_bot("222222")
    uploading.join()
    assert load.is_soon_without(222222)

    # it is used again
    enable_bot("222222")
    calls = telegram.calls_of[222222]  # after those that let it back in
    wait_until(lambda: load.upload() and telegram.calls_of[222222] > calls)
    load.stream_some_more()

    # new media goes to another channel; what is in the first one stays readable
    uploading = in_background(lambda: [load.upload() for _ in range(2)])
    make_channel_default(str(SECOND))
    wait_until(lambda: {part.channel_id for part in load.upload().parts} == {str(SECOND)})
    load.stream_some_more()
    uploading.join()

    # one token is replaced while the other bot goes on, then that of the only bot, which Telegram refuses meanwhile
    fresh = telegram.reissue_token(bots[0])
    uploading = in_background(lambda: [load.upload() for _ in range(2)])
    replace_token("111111", fresh.token)
    load.stream_some_more()
    disable_bot("222222")
    assert load.is_soon_without(222222)
    fresh = telegram.reissue_token(fresh)
    refused = telegram.counts["getFile"] + telegram.counts["file"]
    wait_until(lambda: telegram.counts["getFile"] + telegram.counts["file"] > refused + 1)
    replace_token("111111", fresh.token)
    load.stream_some_more()
    load.upload()
    uploading.join()
    assert load.problems == []
    counts = [len(asset.parts) for asset in Asset.objects]
    stored = [message for message in telegram.originals() if message.caption.startswith("yt1|")]
    assert len(stored) == sum(counts)  # nothing twice
