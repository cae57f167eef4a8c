"""A Telegram stand-in with one bot and one channel, and assets whose bytes are in the hot store."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from apps.core.errors import ApiError
from apps.downloads.documents import MediaJob
from apps.downloads.services.claims import claim_asset, commit_failed, commit_ready
from apps.downloads.services.jobs import finish_job
from apps.streaming.hotstore import HotFile, HotStore
from apps.streaming.ports import StreamTarget
from apps.telegram_cache.clients import bot_api
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind
from apps.telegram_cache.reader import TelegramFiller
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.services import upload_asset
from apps.telegram_cache.services.bots import add_bot
from apps.telegram_cache.services.channels import add_channel
from apps.telegram_cache.services.upload import UploadResult
from tests.standins.telegram import FakeBot, FakeChannel, TelegramStandIn

MIB = 1024 * 1024
CHANNEL_ID = -1001234567890
SIZE = 6 * MIB + 4321
PART_BYTES = 2 * MIB  # four parts: 2, 2, 2 and the rest


@pytest.fixture
def telegram(settings, tmp_path: Path) -> Iterator[TelegramStandIn]:
    """The stand-in, running, with the settings pointing at it; no bot and no channel yet."""
    with TelegramStandIn(folder=tmp_path) as standin:
        settings.ENV = settings.ENV.model_copy(
            update={"telegram_api_url": standin.url, "telegram_file_url": f"{standin.url}/file"}
        )
        forget_roster()
        yield standin
    forget_roster()
    close_bot_api()


def close_bot_api() -> None:
    """Let go of the connections to a stand-in that has ended."""
    bot_api._http().close()
    bot_api._http.cache_clear()


@dataclass(frozen=True, kw_only=True)
class Store:
    """A bot and a channel, known on both sides."""

    telegram: TelegramStandIn
    bot: FakeBot
    channel: FakeChannel

    def add_bot(self, bot_id: int) -> FakeBot:
        bot = self.telegram.add_bot(bot_id)
        self.telegram.make_admin(bot, self.channel)
        add_bot(bot.token)
        return bot


@pytest.fixture
def store(mongo, redis_server, hot_root, telegram: TelegramStandIn) -> Store:
    bot = telegram.add_bot(111111)
    channel = telegram.add_channel(CHANNEL_ID)
    telegram.make_admin(bot, channel)
    add_bot(bot.token)
    add_channel(str(CHANNEL_ID))
    return Store(telegram=telegram, bot=bot, channel=channel)


@pytest.fixture
def part_bytes(settings) -> Callable[[int], None]:
    def set_part_bytes(size: int) -> None:
        settings.ENV = settings.ENV.model_copy(update={"telegram_part_bytes": size})

    return set_part_bytes


@dataclass(frozen=True, kw_only=True)
class Made:
    asset_id: str
    data: bytes


def media(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def make_asset(mongo, hot_root) -> Callable[..., Made]:
    """An asset that is ``ready``: on record with its hashes, and whole in the hot store."""

    def make(size: int = 3 * MIB + 12345, *, seed: int = 1, state: AssetState = AssetState.READY) -> Made:
        data = media(size, seed)
        key = AssetKey(f"video{seed:06d}", MediaKind.AUDIO, "m4a")
        writer = HotStore(django_settings.ENV.hot_root).create(key.asset_id, 1, resume=False)
        writer.set_size(size)
        writer.append(data)
        hashes = writer.finish()
        writer.close()
        Asset(
            id=key.asset_id, video_id=key.video_id, kind=key.kind, variant=key.variant, title="A song",
            mime="audio/mp4", container="m4a", size_bytes=size, sha256=hashlib.sha256(data).hexdigest(),
            block_sha256=b"".join(hashes), state=state,
        ).save()  # fmt: skip
        return Made(asset_id=key.asset_id, data=data)

    return make


def make_due(asset_id: str) -> None:
    """As if the lease had run out and the delay had passed."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    Asset._get_collection().update_one(
        {"_id": asset_id}, {"$set": {"upload_lease_until": past, "upload_retry_at": past}}
    )


def put_anew(asset_id: str, data: bytes) -> None:
    """What a fetch does with an asset that was given back to it: its next generation, whole in the hot store."""
    key = Asset.objects.get(id=asset_id).key
    claim = claim_asset(key=key, owner="test", lease_s=600)
    assert claim.won
    with HotStore(django_settings.ENV.hot_root).create(asset_id, claim.generation, resume=False) as writer:
        writer.set_size(len(data))
        writer.append(data)
        hashes = writer.finish()
    digest = hashlib.sha256(data).hexdigest()
    commit_ready(claim, size_bytes=len(data), sha256=digest, block_hashes=hashes, duration_s=1.0)


def fail_anew(asset_id: str, error: ApiError) -> None:
    """A fetch that cannot have the asset."""
    commit_failed(claim_asset(key=Asset.objects.get(id=asset_id).key, owner="test", lease_s=600), error)
    for job in MediaJob.objects(asset_id=asset_id, active=True):
        finish_job(job.id, error=error)


def stored_bytes(telegram: TelegramStandIn, asset_id: str) -> bytes:
    """What Telegram holds of an asset, joined by the record's parts."""
    asset = Asset.objects(id=asset_id).get()
    return b"".join(telegram.file_of(part.file_unique_id).read_bytes() for part in asset.parts)


@pytest.fixture
def cached(store: Store, make_asset, part_bytes) -> Made:
    """An asset that is in Telegram and no longer in the hot store."""
    part_bytes(PART_BYTES)
    made = make_asset(SIZE)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    HotStore(django_settings.ENV.hot_root).remove(made.asset_id, 1)
    store.telegram.counts.clear()
    return made


@pytest.fixture
async def filler() -> AsyncIterator[TelegramFiller]:
    made = TelegramFiller()
    yield made
    await made.aclose()


def target_of(asset_id: str) -> StreamTarget:
    asset = Asset.objects(id=asset_id).get()
    return StreamTarget(
        asset_id=asset.id, generation=asset.generation, size_bytes=asset.size_bytes, mime=asset.mime, file_name="x",
        attachment=False, block_hashes=tuple(asset.block_hashes), etag='"x"', key_prefix="p",
    )  # fmt: skip


def open_sparse(target: StreamTarget) -> HotFile:
    return HotStore(django_settings.ENV.hot_root).open_sparse(
        target.asset_id, target.generation, size_bytes=target.size_bytes, block_hashes=target.block_hashes
    )


async def read_all(filler: TelegramFiller, target: StreamTarget) -> bytes:
    with closing(open_sparse(target)) as hot_file:
        for block in range(len(target.block_hashes)):
            await filler.fill(target, hot_file, block)
        with hot_file.view(0, target.size_bytes) as view:
            return bytes(view)


@pytest.fixture(scope="module")
def crash_server():
    """Processes that die at a step, without a new Django for each."""
    command = [sys.executable, "-m", "tests.telegram_cache.crash_server"]
    environ = {**os.environ, "PYTHONWARNINGS": "default"}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        server.stdin.close()
        server.wait(timeout=60)


@pytest.fixture
def crash(crash_server, store):
    """Uploads an asset in another process until the step at which it dies."""

    def run(asset_id: str, step: str) -> None:
        known = django_settings.ENV
        names = ("telegram_api_url", "telegram_file_url", "telegram_part_bytes")
        asked = {"asset_id": asset_id, "step": step, "settings": {name: getattr(known, name) for name in names}}
        crash_server.stdin.write(json.dumps(asked) + "\n")
        crash_server.stdin.flush()
        assert crash_server.stdout.readline() == "9\n"

    return run
