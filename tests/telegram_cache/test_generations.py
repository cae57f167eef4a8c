"""A stored asset that is fetched anew: until the new bytes are stored nothing goes; if they fail, it is what it was."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from django.conf import settings as django_settings

from apps.core.errors import UpstreamError, VideoUnavailable
from apps.core.shared_looks import SharedLooks
from apps.core.wake import wake_hub
from apps.downloads.documents import MediaJob
from apps.downloads.services.jobs import cancel_job, refetch_asset
from apps.downloads.services.refetching import refetch_lost
from apps.downloads.stream_backend import MediaStreamBackend, make_backend
from apps.keys.services import create_key
from apps.streaming.app import StreamApp
from apps.streaming.hotstore import HotStore
from apps.streaming.links import sign_link
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.documents import Asset, AssetState, PartState
from apps.telegram_cache.services import evict_hot, sweep_uploads, upload_asset
from apps.telegram_cache.services.care_records import make_due as repair
from apps.telegram_cache.services.care_records import mark_part_bad
from apps.telegram_cache.services.orphans import remove_orphans
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import (
    CHANNEL_ID,
    MIB,
    PART_BYTES,
    SIZE,
    fail_anew,
    make_due,
    media,
    open_sparse,
    put_anew,
    read_all,
    stored_bytes,
    target_of,
)
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    monkeypatch.setattr("apps.downloads.services.jobs.send_fetch", lambda _job_id: None)


@pytest.fixture
def damaged(cached, store):
    """The first of its parts is bad, and its bytes are nowhere."""
    spoil(store, cached.asset_id)
    assert upload_asset(cached.asset_id) is UploadResult.LATER
    assert refetch_lost() == 1
    return cached


def spoil(store, asset_id: str, *, index: int = 0) -> None:
    """Telegram gives other bytes than were stored, and somebody has found out."""
    part = reload(asset_id).parts[index]
    store.telegram.file_of(part.file_unique_id).write_bytes(b"y" * part.size)
    assert mark_part_bad(asset_id, generation=1, part=part, reason="wrong bytes")


def reload(asset_id: str) -> Asset:
    return Asset.objects.get(id=asset_id)


def as_it_was(asset_id: str) -> tuple:
    asset = reload(asset_id)
    parts = [(part.state, part.message_id, dict(part.file_ids), part.sha256) for part in asset.parts]
    return asset.state, asset.generation, asset.size_bytes, asset.sha256, asset.block_hashes, asset.mime, parts


class TestWhenTheFetchFails:
    async def test_the_good_parts_stay_readable_and_nothing_is_deleted(self, cached, store, filler):
        spoil(store, cached.asset_id)
        await asyncio.to_thread(upload_asset, cached.asset_id)
        before, messages = as_it_was(cached.asset_id), set(store.telegram.messages)
        assert refetch_lost() == 1
        assert reload(cached.asset_id).state == AssetState.QUEUED
        fail_anew(cached.asset_id, VideoUnavailable())
        after = as_it_was(cached.asset_id)
        assert after[1:] == before[1:]
        assert after[0] == AssetState.READY
        sweep_uploads()
        remove_orphans(reload(cached.asset_id))
        assert set(store.telegram.messages) == messages
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            for block in range(PART_BYTES // MIB, -(-SIZE // MIB)):
                await filler.fill(target, hot_file, block)
            with hot_file.view(PART_BYTES, SIZE) as view:
                assert bytes(view) == cached.data[PART_BYTES:]
            with pytest.raises(UpstreamError, match="damaged"):
                await filler.fill(target, hot_file, 0)

    def test_a_video_that_is_gone_is_not_asked_for_again_and_an_alert_says_so(self, damaged):
        fail_anew(damaged.asset_id, VideoUnavailable())
        asset = reload(damaged.asset_id)
        assert (asset.error_code, asset.retry_at > datetime.now(UTC)) == ("video_unavailable", True)
        assert [alert.id for alert in alerts()] == [damaged.asset_id]
        assert "cannot be fetched anew" in asset.alert
        make_due(damaged.asset_id)
        assert upload_asset(damaged.asset_id) is UploadResult.NOT_OURS
        assert refetch_lost() == 0
        assert repair(damaged.asset_id)  # `cache repair` does
        assert upload_asset(damaged.asset_id) is UploadResult.LATER

    def test_a_passing_failure_is_tried_again_later_under_a_number_that_was_never_used(self, damaged):
        fail_anew(damaged.asset_id, UpstreamError())
        asset = reload(damaged.asset_id)
        assert (asset.generation, asset.upload_gave_up_at, asset.upload_retry_at) == (1, None, asset.retry_at)
        make_due(damaged.asset_id)
        upload_asset(damaged.asset_id)
        assert refetch_lost() == 0  # its time has not come
        Asset.objects.update(set__retry_at=datetime.now(UTC) - timedelta(seconds=1))
        assert refetch_lost() == 1
        assert reload(damaged.asset_id).generation == 3

    def test_so_it_is_when_the_fetch_is_cancelled(self, damaged):
        cancel_job(MediaJob.objects.get(asset_id=damaged.asset_id, active=True).id)
        asset = reload(damaged.asset_id)
        assert (asset.state, asset.generation, len(asset.parts)) == (AssetState.READY, 1, 4)
        assert asset.upload_gave_up_at is not None

    def test_a_whole_one_that_was_to_be_fetched_again_is_cached_as_before(self, cached):
        before = as_it_was(cached.asset_id)
        refetch_asset(cached.asset_id)
        fail_anew(cached.asset_id, VideoUnavailable())
        assert as_it_was(cached.asset_id) == before
        assert reload(cached.asset_id).is_in_telegram
        assert alerts() == []

    def test_what_has_nothing_stored_is_failed_as_ever(self, store, make_asset, hot_root):
        made = make_asset()
        HotStore(hot_root).remove(made.asset_id, 1)
        refetch_asset(made.asset_id)
        assert reload(made.asset_id).previous is None
        fail_anew(made.asset_id, VideoUnavailable())
        assert reload(made.asset_id).state == AssetState.FAILED

    def test_a_file_that_was_only_in_the_hot_store_is_kept_too(self, store, make_asset, hot_root):
        made = make_asset()
        refetch_asset(made.asset_id)
        evict_hot(now=datetime.now(UTC).timestamp() + 7200)
        assert HotStore(hot_root).is_complete(made.asset_id, 1)
        fail_anew(made.asset_id, VideoUnavailable())
        assert (reload(made.asset_id).state, reload(made.asset_id).generation) == (AssetState.READY, 1)


class TestUntilTheNewOneIsStored:
    async def test_the_old_messages_stay_and_running_streams_go_on(self, cached, store, filler):
        target = target_of(cached.asset_id)
        refetch_asset(cached.asset_id)
        put_anew(cached.asset_id, media(SIZE, seed=5))
        assert await read_all(filler, target) == cached.data
        assert len(reload(cached.asset_id).previous.parts) == 4
        remove_orphans(reload(cached.asset_id))
        assert len(store.telegram.messages) == 4
        make_due(cached.asset_id)
        assert upload_asset(cached.asset_id) is UploadResult.CACHED
        asset = reload(cached.asset_id)
        assert (asset.previous, len(asset.orphans)) == (None, 4)
        assert remove_orphans(asset) == 4
        assert {part.state for part in reload(cached.asset_id).parts} == {PartState.STORED}

    def test_one_that_is_fetched_a_third_time_keeps_what_was_whole(self, cached, store, part_bytes):
        refetch_asset(cached.asset_id)
        put_anew(cached.asset_id, media(SIZE, seed=5))
        store.telegram.faults.add("sendDocument", status=413, body="<html>", skip=1, times=10)
        make_due(cached.asset_id)
        assert upload_asset(cached.asset_id) is UploadResult.LATER
        stored = [part.message_id for part in reload(cached.asset_id).parts if part.message_id]
        assert stored
        refetch_asset(cached.asset_id)
        asset = reload(cached.asset_id)
        assert (asset.generation, asset.previous.generation) == (3, 1)
        assert [orphan.message_id for orphan in asset.orphans] == stored
        fail_anew(cached.asset_id, VideoUnavailable())
        assert reload(cached.asset_id).is_in_telegram

    def test_what_may_exist_of_the_one_in_between_is_noted_too(self, cached, store, part_bytes):
        refetch_asset(cached.asset_id)
        put_anew(cached.asset_id, media(SIZE, seed=5))
        leave_unanswered(store, cached.asset_id)
        copy = {"index": 1_000_000, "offset": 0, "size": SIZE, "state": "stored", "attempt_id": "e" * 16}
        copy |= {"channel_id": str(CHANNEL_ID), "message_id": 77}
        Asset._get_collection().update_one({"_id": cached.asset_id}, {"$set": {"playable": copy}})
        sent = [part for part in reload(cached.asset_id).parts if part.state == PartState.UNKNOWN]
        refetch_asset(cached.asset_id)
        asset = reload(cached.asset_id)
        noted = [orphan for orphan in asset.orphans if orphan.reason == "of an older generation"]
        late = [orphan for orphan in noted if orphan.message_id is None]
        assert [(orphan.attempt_id, orphan.sha256, orphan.size, orphan.after_message_id) for orphan in late] == [
            (part.attempt_id, part.sha256, part.size, part.after_message_id) for part in sent
        ]
        assert late
        assert noted[-1].message_id == 77
        assert asset.previous.generation == 1

    def test_what_may_exist_of_one_that_is_not_kept_is_noted(self, store, make_asset, hot_root):
        made = make_asset(MIB)
        leave_unanswered(store, made.asset_id)
        (sent,) = reload(made.asset_id).parts
        HotStore(hot_root).remove(made.asset_id, 1)
        refetch_asset(made.asset_id)
        asset = reload(made.asset_id)
        assert asset.previous is None
        assert (asset.orphans[-1].attempt_id, asset.orphans[-1].size) == (sent.attempt_id, MIB)


def leave_unanswered(store, asset_id: str) -> None:
    """Sent without an answer, and nobody could look."""
    store.telegram.faults.add("sendDocument", name="store_then_cut")
    store.telegram.faults.add("sendMessage", status=502, times=9)
    make_due(asset_id)
    assert upload_asset(asset_id) is UploadResult.LATER
    assert PartState.UNKNOWN in [part.state for part in reload(asset_id).parts]


@pytest.fixture
async def play(cached):
    """A player with a link to the asset, at the real stream application."""
    backend = make_backend()
    app = StreamApp(backend, HotStore(django_settings.ENV.hot_root))
    key, path = create_key(name="player").document.prefix, f"/stream/audio/{reload(cached.asset_id).video_id}"
    link = sign_link(
        path=path, asset_id=cached.asset_id, key_prefix=key, expires_at=int(time.time()) + 600, attachment=False
    )
    query = dict(parse_qsl(urlsplit(link).query))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        yield lambda **headers: http.get(path, params=query, headers=headers)
    await wake_hub().aclose()
    await backend.aclose()


async def test_a_player_gets_every_range_without_bad_bytes_and_a_clean_error_for_the_others(damaged, play):
    fail_anew(damaged.asset_id, VideoUnavailable())
    good = await play(Range=f"bytes={PART_BYTES}-")
    assert (good.status_code, good.content == damaged.data[PART_BYTES:]) == (206, True)
    for header in ({"Range": "bytes=0-99"}, {}):
        bad = await play(**header)
        assert (bad.status_code, bad.json()["error"]) == (404, "video_unavailable")
    again = await play(Range=f"bytes={PART_BYTES + 7}-{SIZE - 9}")
    assert (again.status_code, again.content == damaged.data[PART_BYTES + 7 : SIZE - 8]) == (206, True)
    assert reload(damaged.asset_id).generation == 1


async def test_while_a_bad_part_is_fetched_anew_only_who_needs_it_waits(damaged, play, store):
    old = f'"{damaged.asset_id}-1"'
    assert reload(damaged.asset_id).state == AssetState.QUEUED
    for start, stop in ((PART_BYTES, SIZE), (PART_BYTES + 7, PART_BYTES + 9), (SIZE - 5, SIZE)):
        for more in ({}, {"If-Range": old}, {"If-Match": old}):
            good = await asyncio.wait_for(play(Range=f"bytes={start}-{stop - 1}", **more), 20)
            assert (good.status_code, good.headers["etag"]) == (206, old)
            assert good.content == damaged.data[start:stop]
    across = {"Range": f"bytes={PART_BYTES - 1}-{PART_BYTES}"}
    other = {"Range": f"bytes={PART_BYTES}-", "If-Range": f'"{damaged.asset_id}-2"'}
    matching = [{"Range": other["Range"], "If-Match": other["If-Range"]}, {"Range": "bytes=0-99", "If-Match": old}]
    asked = ({}, {"Range": "bytes=0-99"}, across, other, *matching)
    waiting = [asyncio.create_task(play(**headers)) for headers in asked]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.wait(waiting, return_when="FIRST_COMPLETED")), 0.5)
    new = media(SIZE, seed=5)
    await asyncio.to_thread(put_anew, damaged.asset_id, new)
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert [answer.status_code for answer in answers] == [200, 206, 206, 206, 206, 412]
    wanted = [new, new[:100], new[PART_BYTES - 1 : PART_BYTES + 1], new[PART_BYTES:], new[PART_BYTES:]]
    assert [answer.content for answer in answers[:5]] == wanted


async def test_a_request_for_all_is_not_told_what_a_range_without_the_bad_part_was_told(
    cached, store, play, monkeypatch
):
    """They ask at the same moment, with the same link, while somebody else looks."""
    spoil(store, cached.asset_id, index=3)
    assert await asyncio.to_thread(upload_asset, cached.asset_id) is UploadResult.LATER
    assert await asyncio.to_thread(refetch_lost) == 1
    asked, may_look = [], asyncio.Event()
    usual_ask, usual_look = SharedLooks.look, MediaStreamBackend._look

    async def ask(looks, *args):
        asked.append(args)
        return await usual_ask(looks, *args)

    async def look(backend, *args, **options):
        await may_look.wait()
        return await usual_look(backend, *args, **options)

    monkeypatch.setattr(SharedLooks, "look", ask)
    monkeypatch.setattr(MediaStreamBackend, "_look", look)
    asking = []
    for headers in ({"Range": "bytes=0-99"}, {"Range": "bytes=0-99"}, {}):
        asking.append(asyncio.create_task(play(**headers)))
        await asyncio.to_thread(wait_until, lambda: len(asked) == len(asking))
    may_look.set()
    for answer in await asyncio.wait_for(asyncio.gather(*asking[:2]), 20):
        assert (answer.status_code, answer.content) == (206, cached.data[:100])
    new = media(SIZE, seed=5)
    await asyncio.to_thread(put_anew, cached.asset_id, new)
    whole = await asyncio.wait_for(asking[2], 20)
    assert (whole.status_code, whole.headers["etag"]) == (200, f'"{cached.asset_id}-2"')
    assert whole.content == new


async def test_one_that_is_whole_and_fetched_anew_on_purpose_gives_the_new_bytes(cached, play):
    await asyncio.to_thread(refetch_asset, cached.asset_id)
    opening = asyncio.create_task(play(Range="bytes=0-99"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(opening), 0.5)
    new = media(SIZE, seed=5)
    await asyncio.to_thread(put_anew, cached.asset_id, new)
    answer = await asyncio.wait_for(opening, 20)
    assert (answer.status_code, answer.content == new[:100]) == (206, True)


async def test_ranges_without_the_bad_part_do_not_start_a_fetch_nor_wait_for_one(cached, store, play):
    spoil(store, cached.asset_id)
    good = await asyncio.wait_for(play(Range=f"bytes={PART_BYTES}-"), 20)
    assert (good.status_code, good.content == cached.data[PART_BYTES:]) == (206, True)
    assert (reload(cached.asset_id).generation, MediaJob.objects.count()) == (1, 0)


@pytest.mark.parametrize("step", ["before_finish", "after_finish"])
def test_a_crash_while_the_new_one_is_finished_loses_neither(cached, store, crash, step):
    refetch_asset(cached.asset_id)
    data = media(SIZE, seed=5)
    put_anew(cached.asset_id, data)
    make_due(cached.asset_id)
    crash(cached.asset_id, step)
    asset = reload(cached.asset_id)
    assert (asset.previous is None, len(asset.orphans)) == ((False, 0) if step == "before_finish" else (True, 4))
    make_due(cached.asset_id)
    upload_asset(cached.asset_id)
    remove_orphans(reload(cached.asset_id))
    asset = reload(cached.asset_id)
    assert (asset.state, asset.previous, asset.orphans) == (AssetState.CACHED, None, [])
    assert stored_bytes(store.telegram, cached.asset_id) == data
    assert {message for _, message in store.telegram.messages} == {part.message_id for part in asset.parts}


def test_a_bad_part_that_gives_the_right_bytes_after_all_is_stored_again_without_a_fetch(cached, store):
    part = reload(cached.asset_id).parts[0]
    assert mark_part_bad(cached.asset_id, generation=1, part=part, reason="wrong bytes")
    assert upload_asset(cached.asset_id) is UploadResult.CACHED
    assert reload(cached.asset_id).is_in_telegram
    assert reload(cached.asset_id).parts[0].message_id == part.message_id
    assert (store.telegram.counts["sendDocument"], refetch_lost()) == (0, 0)
