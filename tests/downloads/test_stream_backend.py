import asyncio
import dataclasses
import threading
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError
from redis.exceptions import ResponseError

from apps.core.errors import (
    Conflict,
    InvalidParameter,
    IpNotAllowed,
    KeyDisabled,
    KeyInvalid,
    KeyMissing,
    LinkExpired,
    LinkInvalid,
    NotFound,
    NotReady,
    QualityUnavailable,
    QuotaExceeded,
    RateLimited,
    ScopeMissing,
    TooManyStreams,
    UpstreamError,
    UpstreamTimeout,
    VideoPrivate,
)
from apps.core.redis import redis_client
from apps.core.shared_looks import SharedLooks
from apps.core.suspend import Suspend
from apps.core.wake import publish, wake_hub
from apps.downloads import stream_backend, stream_records, stream_targets
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.errors import EarlierFetch, NoRoom
from apps.downloads.services.claims import claim_asset, commit_failed, ensure_asset
from apps.downloads.services.info import record_info_error
from apps.downloads.services.jobs import cancel_job, finish_job, refetch_asset
from apps.downloads.services.retrying import postpone_job
from apps.downloads.stream_admission import admit, question_of
from apps.downloads.stream_backend import make_backend
from apps.downloads.stream_records import AssetRecord
from apps.keys import key_cache
from apps.keys.changes import update_key
from apps.keys.documents import ApiKey
from apps.keys.limits import FAILURES_PER_MINUTE
from apps.keys.meter import slots_name
from apps.keys.services import create_key, revoke_key
from apps.streaming.links import sign_link
from apps.streaming.ports import StreamRequest
from apps.telegram_cache.documents import BLOCK_BYTES, Asset, Part
from apps.telegram_cache.services.care_records import mark_part_bad
from tests.downloads.library import (
    AUDIO,
    CONTENT,
    VIDEO,
    VIDEO_ID,
    adopt_hot,
    begin_fetch,
    finish_fetch,
    known_info,
    lose_hot,
    put_hot,
    put_in_telegram,
)
from tests.waiting import Clock, wait_until

SAFE_TITLE = "A song “live”"


@pytest.fixture
async def backend(api):
    backend = make_backend()
    yield backend
    await wake_hub().aclose()
    await backend.aclose()


def by_link(api, key=AUDIO, *, ttl_s=600, attachment=False, bound_to="", **changes):
    path = f"/stream/{key.kind}/{key.video_id}"
    link = sign_link(
        path=path,
        asset_id=key.asset_id,
        key_prefix=api.prefix,
        expires_at=int(time.time()) + ttl_s,
        attachment=attachment,
        bound_to=bound_to,
    )
    request = StreamRequest(
        kind=key.kind.value,
        video_id=key.video_id,
        path=path,
        query=dict(parse_qsl(urlsplit(link).query)),
        headers={},
        client_address="127.0.0.1",
        method="GET",
    )
    return dataclasses.replace(request, **changes)


def by_key(api, key=AUDIO, *, query=None, headers=None, **changes):
    headers = {"x-api-key": api.key} if headers is None else headers
    return by_link(api, key, query=query or {}, headers=headers, **changes)


def postpone(error):
    job = MediaJob.objects.get()
    job.update(state=JobState.RUNNING.value)
    claim = claim_asset(key=AUDIO, owner="test", lease_s=60)
    assert postpone_job(job, claim, error, delay_s=40.0)


async def until(condition):
    await asyncio.to_thread(wait_until, condition)


class TestALink:
    async def test_opens_a_hot_file_at_once(self, api, backend):
        asset = put_hot(AUDIO)
        target = await backend.open_target(by_link(api))
        assert (target.asset_id, target.generation, target.size_bytes) == (AUDIO.asset_id, 1, len(CONTENT))
        assert (target.mime, target.file_name) == ("audio/mp4", f"{SAFE_TITLE}.m4a")
        assert target.block_hashes == tuple(asset.block_hashes)
        assert len(target.block_hashes) == 2
        assert target.etag == f'"{AUDIO.asset_id}-1"'
        assert (target.key_prefix, target.attachment) == (api.prefix, False)
        assert target.link_expires_at > time.time()

    async def test_opens_a_file_that_is_only_in_telegram(self, api, backend):
        put_in_telegram(AUDIO)
        target = await backend.open_target(by_link(api, attachment=True))
        assert (target.size_bytes, len(target.block_hashes), target.attachment) == (len(CONTENT), 2, True)

    async def test_does_not_count_as_a_request(self, api, backend):
        put_hot(AUDIO)
        await backend.open_target(by_link(api))
        assert api.get("status").json()["key"]["used"] == 0

    async def test_that_was_changed_is_invalid(self, api, backend):
        put_hot(AUDIO)
        good = by_link(api)
        for name, value in {
            "asset": VIDEO.asset_id,
            "expires": "99999999999",
            "download": "1",
            "sig": "A" * 43,
        }.items():
            with pytest.raises(LinkInvalid):
                await backend.open_target(dataclasses.replace(good, query={**good.query, name: value}))
        with pytest.raises(LinkInvalid):
            await backend.open_target(dataclasses.replace(good, path=f"/stream/video/{VIDEO_ID}", kind="video"))

    async def test_that_is_forged_counts_against_the_address_and_an_expired_one_does_not(self, api, backend):
        good = by_link(api)
        with pytest.raises(LinkExpired):
            await backend.open_target(by_link(api, ttl_s=-10))
        assert not redis_client().exists("yt:refused:127.0.0.1")
        forged = dataclasses.replace(good, query={**good.query, "sig": "A" * 43})
        for _ in range(FAILURES_PER_MINUTE):
            with pytest.raises(LinkInvalid):
                await backend.open_target(forged)
        with pytest.raises(RateLimited):
            await backend.open_target(forged)
        put_hot(AUDIO)
        assert await backend.open_target(good)

    async def test_for_another_video_s_asset_is_invalid(self, api, backend):
        put_hot(AUDIO)
        path = "/stream/audio/aaaaaaaaaaa"
        link = sign_link(path=path, asset_id=AUDIO.asset_id, key_prefix=api.prefix, expires_at=2**33, attachment=False)
        query = dict(parse_qsl(urlsplit(link).query))
        with pytest.raises(LinkInvalid):
            await backend.open_target(by_link(api, path=path, video_id="aaaaaaaaaaa", query=query))

    async def test_that_is_too_old_has_expired(self, api, backend):
        with pytest.raises(LinkExpired):
            await backend.open_target(by_link(api, ttl_s=-10))

    async def test_ends_with_its_key(self, api, backend):
        put_hot(AUDIO)
        target = await backend.open_target(by_link(api))
        assert await backend.still_allowed(target)
        revoke_key(api.prefix)
        with pytest.raises(KeyDisabled):
            await backend.open_target(by_link(api))
        assert not await backend.still_allowed(target)

    async def test_to_nothing_is_not_found(self, api, backend):
        with pytest.raises(NotFound):
            await backend.open_target(by_link(api))

    async def test_whose_file_is_lost_starts_a_fetch_and_waits_for_it(self, api, backend):
        known_info()
        lose_hot(put_hot(AUDIO))
        opening = asyncio.create_task(backend.open_target(by_link(api)))
        await until(MediaJob.objects.first)
        await asyncio.to_thread(lambda: finish_fetch(*begin_fetch(AUDIO), CONTENT))
        target = await asyncio.wait_for(opening, 60)
        assert (target.generation, target.etag) == (2, f'"{AUDIO.asset_id}-2"')

    async def test_of_a_failed_asset_gives_the_stored_error(self, api, backend):
        known_info()
        ensure_asset(AUDIO)
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), VideoPrivate("Gone private."))
        with pytest.raises(VideoPrivate, match="Gone private"):
            await backend.open_target(by_link(api))
        assert MediaJob.objects.count() == 0


class TestAKey:
    @pytest.mark.parametrize("way", ["x-api-key", "authorization", "query"])
    async def test_may_be_sent_in_each_way_and_counts_as_a_request(self, api, backend, way):
        put_hot(AUDIO)
        query, headers = {"format": "m4a"}, {}
        if way == "query":
            query["api_key"] = api.key
        else:
            headers[way] = f"Bearer {api.key}" if way == "authorization" else api.key
        target = await backend.open_target(by_key(api, query=query, headers=headers))
        assert (target.asset_id, target.link_expires_at) == (AUDIO.asset_id, None)
        assert dict(target.headers)["RateLimit-Remaining"] == "999"
        assert api.get("status").json()["key"]["used"] == 1

    async def test_chooses_the_quality_as_the_api_does(self, api, backend):
        put_hot(VIDEO)
        known_info()
        for quality in ("best", "1080", "4320p"):
            target = await backend.open_target(by_key(api, VIDEO, query={"quality": quality, "download": "1"}))
            assert (target.asset_id, target.attachment) == (VIDEO.asset_id, True)
        with pytest.raises(QualityUnavailable):
            await backend.open_target(by_key(api, VIDEO, query={"quality": "144"}))

    async def test_that_is_missing_wrong_or_without_scope_is_refused(self, api, backend):
        with pytest.raises(KeyMissing):
            await backend.open_target(by_key(api, headers={}))
        with pytest.raises(KeyInvalid):
            await backend.open_target(by_key(api, headers={"x-api-key": "yt_nonsense"}))
        info_only = create_key(name="info only", scopes=("info",)).key
        with pytest.raises(ScopeMissing):
            await backend.open_target(by_key(api, headers={"x-api-key": info_only}))

    async def test_is_limited_and_told_so(self, api, backend):
        put_hot(AUDIO)
        small = create_key(name="small", limit_per_hour=1).key
        request = by_key(api, query={"format": "m4a"}, headers={"x-api-key": small})
        await backend.open_target(request)
        with pytest.raises(RateLimited) as caught:
            await backend.open_target(request)
        assert caught.value.headers["RateLimit-Remaining"] == "0"

    async def test_of_very_many_at_once_exactly_the_limit_gets_through(self, api, backend):
        put_hot(AUDIO)
        known_info()
        small = create_key(name="small", limit_per_hour=120).key
        request = by_key(api, headers={"x-api-key": small})
        opened = await asyncio.gather(*(backend.open_target(request) for _ in range(200)), return_exceptions=True)
        targets = [target for target in opened if not isinstance(target, Exception)]
        left = sorted(int(dict(target.headers)["RateLimit-Remaining"]) for target in targets)
        assert left == list(range(120))
        assert sum(isinstance(error, RateLimited) for error in opened) == 80
        assert backend.pending == 0

    async def test_that_is_known_needs_no_thread_to_be_let_in(self, api, backend, monkeypatch):
        put_hot(AUDIO)
        known_info()
        await backend.open_target(by_key(api))
        monkeypatch.setattr(stream_backend, "admit", None)  # what a thread would run
        first, second = [await backend.open_target(by_key(api, query=query)) for query in ({}, {"download": "1"})]
        assert (first.attachment, second.attachment) == (False, True)

    async def test_that_another_process_revoked_is_refused_within_a_second(self, api, backend, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(key_cache, "time", clock)
        put_hot(AUDIO)
        known_info()
        await backend.open_target(by_key(api))
        ApiKey.objects(prefix=api.prefix).update_one(active=False)
        clock.ahead_s = 1.0
        with pytest.raises(KeyDisabled):
            await backend.open_target(by_key(api))

    @pytest.mark.parametrize("query", [{"quality": "worst"}, {"colour": "red"}, {"format": "webm"}, {"download": "x"}])
    async def test_with_a_wrong_parameter_is_refused(self, api, backend, query):
        with pytest.raises(InvalidParameter):
            await backend.open_target(by_key(api, VIDEO, query=query))


class TestWaitingForAFetch:
    async def test_a_file_that_arrives_in_its_final_form_opens_while_it_grows(self, api, backend):
        known_info()
        opening = asyncio.create_task(backend.open_target(by_key(api)))
        await until(MediaJob.objects.first)
        claim, writer = await asyncio.to_thread(begin_fetch, AUDIO, CONTENT[:1000], size_bytes=len(CONTENT))
        target = await asyncio.wait_for(opening, 60)
        target = await backend.refresh_target(target)  # the size is told a moment after the file is made
        assert (target.size_bytes, target.block_hashes, target.mime) == (len(CONTENT), (), "audio/mp4")
        await asyncio.to_thread(finish_fetch, claim, writer, CONTENT)
        refreshed = await backend.refresh_target(target)
        assert (refreshed.size_bytes, len(refreshed.block_hashes)) == (len(CONTENT), 2)
        assert dataclasses.replace(refreshed, block_hashes=()) == target

    async def test_a_file_whose_size_nobody_knows_opens_without_one(self, api, backend):
        ensure_asset(AUDIO)
        _, writer = begin_fetch(AUDIO, CONTENT[:1000])
        target = await backend.open_target(by_link(api))
        assert target.size_bytes is None
        writer.close()

    async def test_a_file_that_must_be_put_together_opens_when_it_is_ready(self, api, backend):
        known_info()
        opening = asyncio.create_task(backend.open_target(by_key(api, VIDEO)))
        await until(MediaJob.objects.first)
        claim = await asyncio.to_thread(lambda: claim_asset(key=VIDEO, owner="test", lease_s=60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(opening), 0.3)
        await asyncio.to_thread(adopt_hot, claim, CONTENT)
        target = await asyncio.wait_for(opening, 60)
        assert (target.size_bytes, len(target.block_hashes)) == (len(CONTENT), 2)

    async def test_a_fetch_that_fails_gives_its_error_to_everybody_who_waits(self, api, backend):
        known_info()
        openings = [asyncio.create_task(backend.open_target(by_key(api))) for _ in range(20)]
        await until(MediaJob.objects.first)
        error = UpstreamError("It broke.")
        await asyncio.to_thread(lambda: commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error))
        await asyncio.to_thread(lambda: finish_job(MediaJob.objects.get().id, error=error))
        results = await asyncio.gather(*openings, return_exceptions=True)
        assert {(type(result), result.message) for result in results} == {(UpstreamError, "It broke.")}
        assert MediaJob.objects.count() == 1

    async def test_a_fetch_that_waits_for_an_earlier_one_to_end_is_waited_for(self, api, backend):
        known_info()
        opening = asyncio.create_task(backend.open_target(by_key(api)))
        await until(MediaJob.objects.first)
        for error in (NoRoom(), EarlierFetch(), NoRoom()):  # never twice in a row without room
            await asyncio.to_thread(postpone, error)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(opening), 0.5)
        await asyncio.to_thread(postpone, NoRoom())
        with pytest.raises(NoRoom):
            await asyncio.wait_for(opening, 60)

    async def test_a_fetch_that_finds_no_room_again_keeps_nobody_waiting_and_stays_in_line(self, api, backend):
        known_info()
        opening = asyncio.create_task(backend.open_target(by_key(api)))
        await until(MediaJob.objects.first)
        await asyncio.to_thread(postpone, NoRoom())
        with pytest.raises(TimeoutError):  # files are evicted now: it may have room in a moment
            await asyncio.wait_for(asyncio.shield(opening), 0.5)
        await asyncio.to_thread(postpone, NoRoom())
        with pytest.raises(NoRoom) as told:
            await asyncio.wait_for(opening, 60)
        with pytest.raises(NoRoom):
            await backend.open_target(by_key(api))
        assert 1 <= told.value.retry_after_s <= 40
        job = MediaJob.objects.get()
        assert (job.active, job.state, job.room_waits) == (True, JobState.QUEUED, 2)
        job.update(state=JobState.RUNNING.value)  # it tries again, and whoever asks now waits for it
        again = asyncio.create_task(backend.open_target(by_key(api)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(again), 0.5)
        again.cancel()

    @pytest.mark.parametrize("look_takes_s", [0, 0.5])
    async def test_a_fetch_that_is_cancelled_is_not_started_again(self, api, backend, monkeypatch, look_takes_s):
        known_info()
        usual, looks = stream_backend.resolve, []

        def resolve(ask, **options):  # a busy machine: the cancelling was long before the second look comes to an end
            looks.append(ask)
            resolved = usual(ask, **options)
            time.sleep(look_takes_s if len(looks) > 1 else 0)
            return resolved

        monkeypatch.setattr(stream_backend, "resolve", resolve)
        opening = asyncio.create_task(backend.open_target(by_key(api)))
        await until(MediaJob.objects.first)
        await asyncio.to_thread(lambda: cancel_job(MediaJob.objects.get().id))
        with pytest.raises(Conflict):
            await asyncio.wait_for(opening, 60)
        assert MediaJob.objects.count() == 1

    async def test_who_follows_a_growing_file_waits_for_it_so_that_nobody_elses_cancelling_ends_it(
        self, api, other_api, backend
    ):
        known_info()
        job_id = api.get("audio", url=VIDEO_ID).json()["job"]["id"]
        begin_fetch(AUDIO, CONTENT[:1000], size_bytes=len(CONTENT))
        await backend.open_target(by_key(other_api))
        await asyncio.to_thread(lambda: cancel_job(job_id, key_prefix=api.prefix))
        assert MediaJob.objects.get().active
        await asyncio.to_thread(lambda: cancel_job(job_id, key_prefix=other_api.prefix))
        assert not MediaJob.objects.get().active

    async def test_two_hundred_at_once_make_one_job_and_look_for_it_together(self, api, backend, monkeypatch):
        known_info()
        looks = []
        usual = backend._find_target

        def find_target(*args, **options):
            looks.append(1)
            return usual(*args, **options)

        monkeypatch.setattr(backend, "_find_target", find_target)
        openings = [asyncio.create_task(backend.open_target(by_key(api))) for _ in range(200)]
        await until(MediaJob.objects.first)
        await asyncio.to_thread(put_hot, AUDIO)
        targets = await asyncio.wait_for(asyncio.gather(*openings), 60)
        assert len({target.etag for target in targets}) == 1
        assert len({target.headers for target in targets}) == 200, "each has been told what it has left"
        assert len({id(target.meter) for target in targets}) == 200
        assert MediaJob.objects.count() == 1
        assert len(looks) < 200, "each alone would look twice"

    @pytest.mark.parametrize("shared", ["_looks", "_keys"])
    async def test_while_mongodb_is_away_one_look_fails_for_all_of_them(self, api, backend, monkeypatch, shared):
        asked, looks, gate, ask = [], [], threading.Event(), SharedLooks.look

        def look(these, *args):
            if these is getattr(backend, shared):
                asked.append(1)
            return ask(these, *args)

        def fail(*args, **options):
            looks.append(1)
            assert gate.wait(60)
            raise ServerSelectionTimeoutError

        monkeypatch.setattr(SharedLooks, "look", look)
        if shared == "_looks":
            monkeypatch.setattr(backend, "_find_target", fail)
        else:
            key_cache.key_cache().forget()
            monkeypatch.setattr(stream_backend, "read_keys", fail)
        openings = [asyncio.create_task(backend.open_target(by_key(api))) for _ in range(200)]
        await until(lambda: len(asked) == 200)
        gate.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*openings, return_exceptions=True), 60)
        assert {type(outcome) for outcome in outcomes} == {NotReady}
        assert len(looks) <= 2, "one that was under way, and one for all who asked meanwhile"

    async def test_who_looks_from_memory_hears_what_was_published_since_that_record(self, api, backend, monkeypatch):
        monkeypatch.setattr(stream_backend, "RECHECK_S", 3600.0)
        monkeypatch.setattr(stream_backend, "RECORD_MAX_AGE_S", 3600.0)
        known_info()
        early = asyncio.create_task(backend.open_target(by_key(api)))
        await until(lambda: backend.waiting == 1)
        early.cancel()  # nobody is there whom the word would wake, to read the record anew
        await asyncio.wait([early])
        await asyncio.to_thread(begin_fetch, AUDIO, CONTENT[:1000], size_bytes=len(CONTENT))
        heard_from = time.monotonic()
        await asyncio.to_thread(publish, f"asset:{AUDIO.asset_id}")
        assert await wake_hub().wait(f"asset:{AUDIO.asset_id}", timeout_s=60, since=heard_from)
        target = await asyncio.wait_for(backend.open_target(by_key(api)), 60)
        assert target.asset_id == AUDIO.asset_id

    async def test_who_was_woken_shares_no_look_with_newcomers_who_look_from_memory(self, backend, monkeypatch):
        monkeypatch.setattr(stream_backend, "RECHECK_S", 3600.0)
        there_since, looks, gate = [], [], threading.Event()

        def find(*, asked_at, not_before):
            looks.append(not_before)
            assert gate.wait(60)
            if not there_since or not_before < there_since[0]:
                raise Suspend("asset:any")
            return "target"

        def ask():
            return asyncio.create_task(backend._wait_for_target(find, max_age_s=3600.0, question="any"))

        assert await wake_hub().until_listening(timeout_s=60)
        gate.set()
        asking = [ask()]
        await until(lambda: backend.waiting == 1)
        gate.clear()
        asking.append(ask())
        await until(lambda: len(looks) == 2)
        asking.append(ask())  # begins when the second one's look has ended
        await until(lambda: backend._looks._next)
        there_since.append(time.monotonic())
        await asyncio.to_thread(publish, "asset:any")
        await until(lambda: backend.waiting == 0)
        gate.set()
        assert await asyncio.wait_for(asyncio.gather(*asking), 60) == ["target"] * 3

    async def test_only_who_asks_for_the_same_bytes_shares_a_look(self, api, backend):
        some = {"range": "bytes=5-"}
        asked = ({}, {"range": "bytes=0-9"}, some, {**some, "if-range": '"x"'}, {**some, "if-match": '"x"'}) * 2
        requests = [by_key(api, headers={"x-api-key": api.key, **more}) for more in asked]
        questions = [question_of(admit(request, backend._meters)) for request in requests]
        assert questions[:5] == questions[5:]
        assert len(set(questions)) == 5

    async def test_a_content_error_of_the_video_ends_it(self, api, backend):
        record_info_error(VIDEO_ID, VideoPrivate())
        with pytest.raises(VideoPrivate):
            await backend.open_target(by_key(api))

    async def test_waiting_has_an_end(self, api, backend, monkeypatch):
        known_info()
        monkeypatch.setattr(stream_backend, "MAX_WAIT_S", 0.2)
        with pytest.raises(UpstreamTimeout):
            await asyncio.wait_for(backend.open_target(by_key(api)), 60)

    async def test_very_many_who_wait_look_seldom_and_keep_nobody_out(self, api, backend, monkeypatch):
        """A link may be opened by anybody, any number of times, and each look asks MongoDB."""
        monkeypatch.setattr(stream_backend, "RECHECK_S", 0.01)
        monkeypatch.setattr(stream_backend, "RECHECKS_PER_S", 10)
        monkeypatch.setattr(stream_backend, "MAX_PENDING", 60)
        monkeypatch.setattr(stream_backend, "question_of", lambda admission: object())  # each asks something else
        known_info()
        ensure_asset(VIDEO)
        put_hot(AUDIO)
        looks, most, waits = [], [], []
        usual, hub = backend._find_target, stream_backend.wake_hub()

        def find_target(*args, **options):
            looks.append(1)
            most.append(backend.pending)
            return usual(*args, **options)

        class Hub:
            async def wait(self, topic, *, timeout_s, since):
                waits.append((backend.waiting, timeout_s))
                await hub.wait(topic, timeout_s=timeout_s, since=since)

        monkeypatch.setattr(backend, "_find_target", find_target)
        monkeypatch.setattr(stream_backend, "wake_hub", Hub)
        opening = [asyncio.create_task(backend.open_target(by_link(api, VIDEO))) for _ in range(50)]
        await until(lambda: backend.waiting == 50)
        most.clear()
        looked = len(looks)
        await until(lambda: len(looks) >= looked + 50)
        assert (50, 5.0) in waits, "with 50 who wait, each looks once in five seconds: ten looks a second"
        assert all(timeout_s >= waiting / 10 for waiting, timeout_s in waits)
        assert (await backend.open_target(by_link(api))).asset_id == AUDIO.asset_id
        assert max(most) <= stream_backend.TURNS + 1
        await asyncio.to_thread(lambda: adopt_hot(claim_asset(key=VIDEO, owner="test", lease_s=600), CONTENT))
        assert {target.asset_id for target in await asyncio.gather(*opening)} == {VIDEO.asset_id}

    async def test_a_client_that_leaves_frees_its_place(self, api, backend):
        known_info()
        opening = asyncio.create_task(backend.open_target(by_key(api)))
        await until(MediaJob.objects.first)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(lambda: backend.pending == 0)


class TestARunningStream:
    async def test_ends_with_the_error_of_its_fetch(self, api, backend):
        ensure_asset(AUDIO)
        claim, writer = begin_fetch(AUDIO, CONTENT[:1000])
        target = await backend.open_target(by_link(api))
        commit_failed(claim, UpstreamError("Cut off."))
        writer.close()
        with pytest.raises(UpstreamError, match="Cut off"):
            await backend.refresh_target(target)

    async def test_ends_when_its_asset_is_gone(self, api, backend):
        put_hot(AUDIO)
        target = await backend.open_target(by_link(api))
        Asset.objects.delete()
        with pytest.raises(NotFound):
            await backend.refresh_target(target)

    @pytest.mark.parametrize(
        "error",
        [
            ServerSelectionTimeoutError(),
            OperationFailure("Authentication failed.", code=18),
            ResponseError("MISCONF Redis cannot save."),
        ],
    )
    async def test_goes_on_while_mongodb_or_redis_is_away_or_refuses(self, api, backend, monkeypatch, error):
        put_hot(AUDIO)
        target = await backend.open_target(by_link(api))

        def away(prefix, **_):
            raise error

        monkeypatch.setattr(stream_backend, "grant_for_prefix", away)
        assert await backend.still_allowed(target)


class TestLinksBoundToAnAddress:
    async def test_open_from_there_only_and_the_signature_is_not_enough(self, api, backend):
        put_hot(AUDIO)
        for bound_to, good, bad in (
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/64", "2001:db8::5", "2001:db8:0:1::5"),
        ):
            request = by_link(api, bound_to=bound_to)
            assert await backend.open_target(dataclasses.replace(request, client_address=good))
            for address in (bad, "", "unknown"):
                with pytest.raises(IpNotAllowed):
                    await backend.open_target(dataclasses.replace(request, client_address=address))

    def test_by_the_request_or_by_the_keys_setting(self, api):
        put_hot(AUDIO)
        known_info()

        def bound(**fields):
            link = urlsplit(api.get("audio", url=VIDEO_ID, **fields).json()["stream_url"])
            return dict(parse_qsl(link.query)).get("ip")

        assert bound() is None
        assert bound(link_ip="me") == "127.0.0.1"
        assert bound(link_ip="2001:db8::7") == "2001:db8::/64"
        update_key(api.prefix, {"bind_links": True}, actor="tester")
        assert bound() == "127.0.0.1"
        assert bound(link_ip="192.0.2.9") == "192.0.2.9"
        assert api.get("audio", url=VIDEO_ID, link_ip="here").json()["parameter"] == "link_ip"


class TestLimitsOfTheKeyThatSigned:
    async def test_streams_by_link_and_by_key_are_counted_together(self, api, backend):
        known_info()
        put_hot(AUDIO)
        update_key(api.prefix, {"concurrent_streams": 1}, actor="tester")
        by_its_link, by_its_key = [
            await backend.open_target(ask) for ask in (by_link(api), by_key(api, query={"format": "m4a"}))
        ]
        await by_its_link.meter.open()
        with pytest.raises(TooManyStreams):
            await by_its_key.meter.open()
        by_its_link.meter.close()
        await until(lambda: not redis_client().exists(slots_name(api.prefix)))
        await by_its_key.meter.open()
        by_its_key.meter.close()

    async def test_a_changed_limit_reaches_running_streams(self, api, backend):
        put_hot(AUDIO)
        target = await backend.open_target(by_link(api))
        await target.meter.open()
        assert target.meter.take(5000) == 5000
        update_key(api.prefix, {"bytes_per_day": 1000}, actor="tester")
        assert await backend.still_allowed(target)
        await target.meter.refill()
        assert target.meter.take(5000) == 1000
        with pytest.raises(QuotaExceeded):
            await target.meter.refill()
        target.meter.close()

    async def test_a_changed_network_list_ends_what_was_opened_by_the_key_from_elsewhere(self, api, backend):
        known_info()
        put_hot(AUDIO)
        opened_by_key = await backend.open_target(by_key(api, query={"format": "m4a"}, client_address="192.0.2.7"))
        by_its_link = await backend.open_target(by_link(api, client_address="192.0.2.7"))
        for target in (opened_by_key, by_its_link):
            await target.meter.open()

        async def may_go_on():
            assert await backend.still_allowed(opened_by_key)
            return [backend.is_let_in(target) for target in (opened_by_key, by_its_link)]

        assert await may_go_on() == [True, True]
        update_key(api.prefix, {"allowed_cidrs": ["192.0.2.0/24"]}, actor="tester")
        assert await may_go_on() == [True, True]
        update_key(api.prefix, {"allowed_cidrs": ["198.51.100.0/24"]}, actor="tester")
        assert await may_go_on() == [False, True]  # links are opened by other people
        renewed = await backend.renew_target(opened_by_key)
        assert not backend.is_let_in(renewed)
        for target in (opened_by_key, by_its_link):
            target.meter.close()

    async def test_without_the_scope_media_links_and_running_streams_end(self, api, backend):
        put_hot(AUDIO)
        target = await backend.open_target(by_link(api))
        update_key(api.prefix, {"scopes": ["info"]}, actor="tester")
        assert not await backend.still_allowed(target)
        with pytest.raises(ScopeMissing):
            await backend.open_target(by_link(api))


class TestATargetWhoseBytesAreGone:
    async def test_is_fetched_anew_and_waited_for(self, api, backend):
        known_info()
        put_in_telegram(AUDIO)
        target = await backend.open_target(by_key(api, query={"format": "m4a"}))
        assert mark_part_bad(AUDIO.asset_id, generation=1, part=Asset.objects.get().parts[0], reason="gone")
        renewing = asyncio.create_task(backend.renew_target(target))
        await until(MediaJob.objects.first)
        await asyncio.to_thread(lambda: finish_fetch(*begin_fetch(AUDIO), CONTENT))
        renewed = await asyncio.wait_for(renewing, 60)
        assert (renewed.generation, renewed.etag) == (2, f'"{AUDIO.asset_id}-2"')
        assert (renewed.key_prefix, renewed.headers) == (target.key_prefix, target.headers)
        assert api.get("status").json()["key"]["used"] == 1

    async def test_gives_the_fetch_s_error_when_it_cannot_be_had_any_more(self, api, backend):
        known_info()
        put_in_telegram(AUDIO)
        target = await backend.open_target(by_link(api))
        mark_part_bad(AUDIO.asset_id, generation=1, part=Asset.objects.get().parts[0], reason="gone")
        renewing = asyncio.create_task(backend.renew_target(target))
        await until(MediaJob.objects.first)
        error = VideoPrivate("Gone private.")
        await asyncio.to_thread(lambda: commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error))
        await asyncio.to_thread(lambda: finish_job(MediaJob.objects.get().id, error=error))
        with pytest.raises(VideoPrivate, match="Gone private"):
            await asyncio.wait_for(renewing, 60)

    @pytest.mark.parametrize("ask", [by_link, lambda api: by_key(api, query={"format": "m4a"})])
    async def test_what_is_left_of_it_is_given_while_it_cannot_be_had_anew(self, api, backend, ask):
        known_info()
        whole = put_in_telegram(AUDIO).parts[0]
        first, second = (Part._from_son(whole.to_mongo()) for _ in range(2))
        first.size = second.offset = BLOCK_BYTES
        second.index, second.size, second.message_id = 1, len(CONTENT) - BLOCK_BYTES, 8
        Asset.objects.update_one(set__parts=[first, second])
        assert mark_part_bad(AUDIO.asset_id, generation=1, part=first, reason="gone")
        job = refetch_asset(AUDIO.asset_id)
        error = VideoPrivate("Gone private.")
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
        finish_job(job.id, error=error)
        target = await backend.open_target(ask(api))
        assert (target.generation, target.size_bytes) == (1, len(CONTENT))
        with pytest.raises(VideoPrivate, match="Gone private"):  # a range in the bad part
            await backend.renew_target(target)
        assert MediaJob.objects.count() == 1


class TestAskingMongodb:
    async def test_a_player_s_many_ranges_do_not_each_ask(self, api, backend, monkeypatch):
        put_hot(AUDIO)
        reads = []

        def counted(asset_id):
            reads.append(asset_id)
            return Asset.objects(id=asset_id).first()

        monkeypatch.setattr(stream_records, "find_asset", counted)
        clock = Clock()
        monkeypatch.setattr(stream_backend, "time", clock)
        monkeypatch.setattr(stream_records, "time", clock)
        for _ in range(50):
            await backend.open_target(by_link(api))
        assert len(reads) == 1
        clock.ahead_s = stream_backend.RECORD_MAX_AGE_S + 0.1
        await backend.open_target(by_link(api))
        assert len(reads) == 2


class TestFileName:
    @pytest.mark.parametrize(
        ("title", "name"),
        [
            ("A song", "A song.m4a"),
            ("", f"{VIDEO_ID}.m4a"),
            ("../../etc/passwd", "etc passwd.m4a"),
            ('a/b\\c:d*e?f"g<h>i|j', "a b c d e f g h i j.m4a"),
            ("line\r\nSet-Cookie: x=1", "line Set-Cookie x=1.m4a"),
            ("Ünïcode 音楽 🎵", "Ünïcode 音楽 🎵.m4a"),
            ("\u202egpj.exe", "gpj.exe.m4a"),
            ("x" * 300, "x" * 120 + ".m4a"),
            ("...", f"{VIDEO_ID}.m4a"),
        ],
    )
    def test_is_the_title_without_what_trips_anything_over(self, title, name):
        asset = Asset(id=AUDIO.asset_id, video_id=VIDEO_ID, kind="audio", variant="m4a", title=title, container="m4a")
        assert stream_targets.file_name(AssetRecord.of(asset)) == name
