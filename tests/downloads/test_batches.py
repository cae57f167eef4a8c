import threading
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.conf import settings
from kombu.exceptions import OperationalError

from apps.core.errors import NotFound, UpstreamError, VideoPrivate
from apps.core.redis import redis_client
from apps.downloads import tasks
from apps.downloads.documents import Batch, JobPriority, JobState, MediaJob
from apps.downloads.providers.listing import ListedVideo, Listing
from apps.downloads.services import batch_turns, batches, flights, job_limits, media
from apps.downloads.services.batches import advance_batch
from apps.downloads.services.claims import claim_asset, commit_failed
from apps.downloads.services.info import record_info_error
from apps.downloads.services.jobs import finish_job
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup
from apps.keys.authentication import forget_cached_keys
from apps.keys.changes import update_key
from apps.keys.documents import ApiKey, Scope
from apps.keys.services import create_key, revoke_key
from tests.downloads.conftest import Api
from tests.downloads.library import AUDIO, TITLE, VIDEO, VIDEO_ID, known_info, put_hot
from tests.waiting import wait_until
from ytserver.celery import app

OTHER = "aaaaaaaaaa1"
PLAYLIST = "PLabcdefghijkl"
CARE_QUEUE = "yt:celery:care"
FIELDS = {"status", "id", "file_type", "total", "created_at", "state", "counts", "truncated", "entries"}


def order(api, **fields):
    response = api.post("batch", fields)
    assert response.status_code == 200, response.content
    return response.json()


def forget_key(prefix: str) -> None:
    ApiKey.objects(prefix=prefix).delete()
    forget_cached_keys()


def listed(page: int, count: int, *, has_more: bool) -> None:
    videos = tuple(
        ListedVideo(video_id=f"{page:07}{number:04}", live=number == 0 and page == 1) for number in range(count)
    )
    lookup = Lookup(kind=LookupKind.PLAYLIST, subject=PLAYLIST, detail=f"{page}:50")
    answer_lookup(lookup, lambda *_: Listing(has_more=has_more, videos=videos).model_dump(mode="json"))


class TestLinks:
    def test_each_entry_has_its_own_state_and_a_wrong_link_its_own_error(self, api):
        answer = order(api, urls=[VIDEO_ID, "https://evil.example/x", f"https://youtu.be/{OTHER}"])
        assert set(answer) == FIELDS
        assert (answer["state"], answer["total"], answer["file_type"]) == ("running", 3, "audio")
        assert answer["counts"] == {"queued": 2, "running": 0, "done": 0, "failed": 1, "cancelled": 0}
        assert [entry["state"] for entry in answer["entries"]] == ["queued", "failed", "queued"]
        assert answer["entries"][1]["failure"]["code"] == "invalid_url"
        assert answer["entries"][2]["video_id"] == OTHER

    def test_entries_are_started_as_their_metadata_is_known_behind_what_people_wait_for(self, api):
        known_info()
        answer = order(api, urls=[VIDEO_ID, OTHER])
        advance_batch(answer["id"])
        job = MediaJob.objects.get()
        assert (job.priority, job.key_prefix) == (JobPriority.BATCH, api.prefix)
        first, second = api.get(f"batch/{answer['id']}").json()["entries"]
        assert first["job"] == {"id": job.id, "state": "queued", "progress": 0.0}
        assert first["file"]["title"] == TITLE
        assert first["file"]["download_url"].startswith(f"http://testserver/stream/audio/{VIDEO_ID}?")
        assert (second["state"], second["job"], second["file"]) == ("queued", None, None)
        known_info(OTHER)
        advance_batch(answer["id"])
        assert MediaJob.objects.count() == 2

    def test_what_is_stored_already_is_done_at_once(self, api):
        known_info()
        put_hot(VIDEO)
        batch_id = order(api, urls=[VIDEO_ID], file_type="video", quality="1080")["id"]
        advance_batch(batch_id)
        answer = api.get(f"batch/{batch_id}").json()
        assert (answer["state"], answer["counts"]["done"]) == ("done", 1)
        assert answer["entries"][0]["file"]["quality"] == "1080p"
        assert MediaJob.objects.count() == 0

    def test_a_video_that_cannot_be_had_does_not_stop_the_others(self, api):
        known_info()
        record_info_error(OTHER, VideoPrivate())
        batch_id = order(api, urls=[OTHER, VIDEO_ID])["id"]
        advance_batch(batch_id)
        entries = api.get(f"batch/{batch_id}").json()["entries"]
        assert (entries[0]["state"], entries[0]["failure"]["code"]) == ("failed", "video_private")
        assert entries[1]["state"] == "queued"

    def test_a_fetch_that_fails_is_told_as_such(self, api):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        advance_batch(batch_id)
        error = UpstreamError("It broke.")
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
        finish_job(MediaJob.objects.get().id, error=error)
        answer = api.get(f"batch/{batch_id}").json()
        assert (answer["state"], answer["counts"]["failed"]) == ("done", 1)
        assert answer["entries"][0]["failure"]["message"] == "It broke."

    def test_the_same_link_twice_is_one_entry(self, api):
        assert order(api, urls=[VIDEO_ID, VIDEO_ID])["total"] == 1

    def test_advancing_twice_starts_nothing_twice(self, api):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        for _ in range(3):
            advance_batch(batch_id)
        assert MediaJob.objects.count() == 1

    def test_what_never_gets_metadata_is_given_up(self, api):
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        advance_batch(batch_id)
        asked_at = Batch.objects.get().entries[0]["asked_at"]
        Batch.objects.update(set__entries__0__asked_at=asked_at - timedelta(minutes=31))
        advance_batch(batch_id)
        assert api.get(f"batch/{batch_id}").json()["entries"][0]["failure"]["code"] == "upstream_timeout"

    def test_a_lost_task_is_sent_again_when_somebody_looks(self, api):
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        assert redis_client().llen(CARE_QUEUE) == 1
        api.get(f"batch/{batch_id}")
        assert redis_client().llen(CARE_QUEUE) == 1
        redis_client().delete(CARE_QUEUE, f"yt:batch:sent:{batch_id}")
        api.get(f"batch/{batch_id}")
        assert redis_client().llen(CARE_QUEUE) == 1

    def test_a_batch_whose_worker_was_killed_is_taken_up_by_the_next_round(self, api):
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        assert batch_turns.revive_batches() == 0  # its task is on its way
        redis_client().delete(CARE_QUEUE, f"yt:batch:sent:{batch_id}")
        tasks.revive_batches()
        assert redis_client().llen(CARE_QUEUE) == 1
        known_info()
        advance_batch(batch_id)
        redis_client().delete(CARE_QUEUE, f"yt:batch:sent:{batch_id}")
        assert batch_turns.revive_batches() == 0  # everything is started

    def test_messages_do_not_add_up_where_workers_are_slow(self, api, monkeypatch):
        sent = []

        def send(name, arguments, **_):
            if name == batch_turns.ADVANCE_TASK:
                sent.append(arguments)

        monkeypatch.setattr(app, "send_task", send)
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        for _ in range(3):  # nobody has carried out the one before
            redis_client().delete(f"yt:batch:sent:{batch_id}")
            batch_turns.revive_batches()
        waiting = list(sent)
        sent.clear()
        for arguments in waiting:
            tasks.advance_batch(*arguments)
        assert (len(waiting), len(sent)) == (4, 1)

    def test_a_cancelled_batch_is_not_taken_up(self, api):
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        api.delete(f"batch/{batch_id}")
        redis_client().delete(CARE_QUEUE, f"yt:batch:sent:{batch_id}")
        assert batch_turns.revive_batches() == 0


class TestWaitingForAPlace:
    @pytest.fixture(params=["of the key", "of all"])
    def code(self, request, api, monkeypatch):
        """No place is free. Why."""
        if request.param == "of all":
            monkeypatch.setattr(job_limits, "max_active_jobs", lambda: 1)
        else:
            update_key(api.prefix, {"concurrent_jobs": 1}, actor="test")
        known_info(OTHER)
        api.get("audio", url=OTHER)
        return "overloaded" if request.param == "of all" else "too_many_jobs"

    def test_is_no_failure(self, api, code):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        Batch.objects.update(set__created_at=Batch.objects.get().created_at - timedelta(hours=23))
        advance_batch(batch_id)
        assert api.get(f"batch/{batch_id}").json()["entries"][0]["state"] == "queued"
        finish_job(MediaJob.objects.get().id)
        advance_batch(batch_id)
        assert api.get(f"batch/{batch_id}").json()["entries"][0]["job"]["state"] == "queued"

    def test_so_is_waiting_until_metadata_can_be_asked_for(self, api):
        others = {f"info:other{number}": time.time() for number in range(settings.ENV.worker_threads)}
        redis_client().zadd(flights.PATIENT, others)
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        advance_batch(batch_id)
        assert "asked_at" not in Batch.objects.get().entries[0]
        redis_client().delete(flights.PATIENT)
        advance_batch(batch_id)
        assert Batch.objects.get().entries[0]["asked_at"]

    def test_ends_after_a_day_and_says_why(self, api, code):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        Batch.objects.update(set__created_at=Batch.objects.get().created_at - timedelta(hours=25))
        advance_batch(batch_id)
        assert api.get(f"batch/{batch_id}").json()["entries"][0]["failure"]["code"] == code
        assert not Batch.objects.get().open


class TestTheKeysPart:
    """A key that is off starts nothing, and one key's many batches cost no more than a few."""

    @pytest.fixture
    def sent(self, monkeypatch):
        """The batches that messages were sent for."""
        found = []

        def send(name, arguments, **_):
            if name == batch_turns.ADVANCE_TASK:
                found.append(arguments[0])

        monkeypatch.setattr(app, "send_task", send)
        return found

    @pytest.mark.parametrize(("end", "code"), [(revoke_key, "key_disabled"), (forget_key, "key_invalid")])
    def test_a_batch_ends_when_its_key_may_not_be_used_any_more(self, api, end, code):
        update_key(api.prefix, {"longest_video_s": 10, "concurrent_jobs": 1}, actor="test")
        for video_id in (VIDEO_ID, OTHER):
            known_info(video_id)
        batch_id = order(api, urls=[VIDEO_ID, OTHER, "https://evil.example/x"])["id"]
        end(api.prefix)
        advance_batch(batch_id)
        batch = Batch.objects.get()
        assert [entry["error_code"] for entry in batch.entries] == [code, code, "invalid_url"]
        assert (batch.open, MediaJob.objects.count()) == (False, 0)

    def test_nothing_more_is_looked_at_when_there_is_no_place(self, api, monkeypatch):
        update_key(api.prefix, {"concurrent_jobs": 1}, actor="test")
        video_ids = [f"aaaaaaaaaa{number}" for number in range(8)]
        for video_id in video_ids:
            known_info(video_id)
        asked, start = [], batches.start_or_join

        def counted(*args, **options):
            asked.append(args)
            return start(*args, **options)

        monkeypatch.setattr(batches, "start_or_join", counted)
        advance_batch(order(api, urls=video_ids)["id"])
        assert (len(asked), MediaJob.objects.count()) == (2, 1)

    def test_only_the_oldest_few_are_advanced_and_the_next_when_one_is_started(self, api, sent):
        made = [order(api, urls=[VIDEO_ID])["id"] for _ in range(batch_turns.AT_ONCE + 2)]
        first = made[: batch_turns.AT_ONCE]
        assert sent == first
        assert api.get(f"batch/{made[-1]}").json()["state"] == "running"
        assert sent == first
        known_info()
        advance_batch(made[-1])
        assert MediaJob.objects.count() == 0
        advance_batch(made[0])
        assert sent[-1] == made[batch_turns.AT_ONCE]
        api.delete(f"batch/{made[1]}")
        assert sent[-1] == made[-1]

    def test_another_keys_batch_is_revived_however_many_one_key_has(self, api, other_api, sent, monkeypatch):
        monkeypatch.setattr(batch_turns, "REVIVED_AT_ONCE", batch_turns.AT_ONCE)
        made = [order(api, urls=[VIDEO_ID])["id"] for _ in range(6)]
        other = order(other_api, urls=[VIDEO_ID])["id"]
        redis_client().delete(*(f"yt:batch:sent:{batch_id}" for batch_id in [*made, other]))
        sent.clear()
        for _ in range(2):
            batch_turns.revive_batches()
        assert sorted(sent) == sorted([*made[: batch_turns.AT_ONCE], other])

    def test_one_key_may_have_so_many_that_are_not_started(self, api, other_api, monkeypatch):
        monkeypatch.setattr(batches, "MAX_OPEN", 2)
        first, _ = (order(api, urls=[VIDEO_ID])["id"] for _ in range(2))
        refused = api.post("batch", {"urls": [VIDEO_ID]})
        assert (refused.status_code, refused.json()["error"], refused["Retry-After"]) == (429, "too_many_jobs", "60")
        assert Batch.objects.count() == 2
        order(other_api, urls=[VIDEO_ID])
        known_info()
        advance_batch(first)
        order(api, urls=[VIDEO_ID])

    def test_batches_leave_half_of_the_threads_to_the_servers_care(self, api, sent):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        with ExitStack() as half:
            for _ in range(settings.ENV.worker_threads // 2):
                assert half.enter_context(batch_turns.lane())
            advance_batch(batch_id)
        assert (sent, MediaJob.objects.count()) == ([batch_id, batch_id], 0)
        advance_batch(batch_id)
        assert MediaJob.objects.count() == 1


class TestAnErrorThatMayPass:
    def fail(self):
        record_info_error(VIDEO_ID, UpstreamError("It burns."))

    def due(self):
        Batch.objects.update(set__entries__0__not_before=Batch.objects.get().created_at - timedelta(hours=1))

    def entry(self, api, batch_id):
        advance_batch(batch_id)
        return api.get(f"batch/{batch_id}").json()["entries"][0]

    def test_is_tried_again_later_and_the_others_go_on(self, api):
        self.fail()
        known_info(OTHER)
        batch_id = order(api, urls=[VIDEO_ID, OTHER])["id"]
        assert self.entry(api, batch_id)["state"] == "queued"
        known_info()
        assert self.entry(api, batch_id)["job"] is None  # too early
        assert MediaJob.objects.count() == 1
        self.due()
        assert self.entry(api, batch_id)["job"]["state"] == "queued"

    def test_ends_the_entry_after_a_few_times(self, api):
        self.fail()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        for _ in range(batches.MAX_TRIES - 1):
            assert self.entry(api, batch_id)["failure"] is None
            self.due()
        assert self.entry(api, batch_id)["failure"]["message"] == "It burns."
        assert not Batch.objects.get().open


class TestPlaylist:
    def test_takes_its_videos_over_several_pages_without_live_ones(self, api):
        listed(1, 50, has_more=True)
        listed(2, 3, has_more=False)
        answer = order(api, playlist=f"https://www.youtube.com/playlist?list={PLAYLIST}")
        assert (answer["total"], answer["truncated"]) == (52, False)
        assert answer["entries"][0]["video_id"] == "00000010001"

    def test_a_long_one_is_cut_and_says_so(self, api):
        for page in (1, 2, 3, 4):
            listed(page, 50, has_more=True)
        answer = order(api, playlist=PLAYLIST)
        assert (answer["total"], answer["truncated"]) == (199, True)

    def test_one_that_does_not_exist_is_not_found(self, api):
        lookup = Lookup(kind=LookupKind.PLAYLIST, subject=PLAYLIST, detail="1:50")

        def fail(*_):
            raise NotFound

        answer_lookup(lookup, fail)
        assert api.post("batch", {"playlist": PLAYLIST}).status_code == 404

    def test_needs_the_scope_search(self, api):
        key = Api(create_key(name="media only", scopes=(Scope.MEDIA,)).key)
        assert key.post("batch", {"playlist": PLAYLIST}).json()["error"] == "scope_missing"


class TestOptions:
    def test_hold_for_each_file(self, api):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID], format="mp3", bitrate=320, start=1, end=2.5)["id"]
        advance_batch(batch_id)
        assert api.get(f"batch/{batch_id}").json()["entries"][0]["file"]["quality"] == "mp3-320.clip-1000-2500"

    def test_of_videos(self, api):
        known_info()
        options = {"quality": "720", "container": "mkv", "codec": "any"}
        batch_id = order(api, urls=[VIDEO_ID], file_type="video", **options)["id"]
        advance_batch(batch_id)
        file = api.get(f"batch/{batch_id}").json()["entries"][0]["file"]
        assert (file["quality"], file["container"]) == ("720p.mkv", "mkv")

    def test_one_that_a_video_cannot_have_is_that_entrys_error(self, api):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID], start=9999)["id"]
        advance_batch(batch_id)
        failure = api.get(f"batch/{batch_id}").json()["entries"][0]["failure"]
        assert failure["code"] == "invalid_parameter"

    def test_wait_answers_when_the_batch_is_done_and_makes_it_once(self, api):
        known_info()
        put_hot(AUDIO)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(order(api, urls=[VIDEO_ID], wait=30)))
        asking.start()
        wait_until(lambda: Batch.objects.first())
        advance_batch(Batch.objects.get().id)
        asking.join()
        assert (answers[0]["state"], Batch.objects.count()) == ("done", 1)
        assert api.get(f"batch/{answers[0]['id']}", wait=30).json()["state"] == "done"


class TestCancelling:
    def cancel(self, api, batch_id):
        response = api.client.delete(f"/api/v1/batch/{batch_id}")
        assert response.status_code == 200, response.content
        return response.json()

    def test_stops_fetches_and_starts_nothing_more(self, api):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID, OTHER])["id"]
        advance_batch(batch_id)
        answer = self.cancel(api, batch_id)
        assert (answer["state"], answer["counts"]["cancelled"]) == ("cancelled", 2)
        assert MediaJob.objects.get().state == JobState.CANCELLED
        known_info(OTHER)
        advance_batch(batch_id)
        assert MediaJob.objects.count() == 1
        assert self.cancel(api, batch_id)["counts"] == answer["counts"]

    def test_leaves_what_is_done(self, api):
        known_info()
        put_hot(AUDIO)
        batch_id = order(api, urls=[VIDEO_ID, "https://evil.example/x"])["id"]
        advance_batch(batch_id)
        answer = self.cancel(api, batch_id)
        assert [entry["state"] for entry in answer["entries"]] == ["done", "failed"]

    def test_leaves_a_fetch_that_another_key_waits_for(self, api, other_api):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        advance_batch(batch_id)
        job_id = other_api.get("audio", url=VIDEO_ID).json()["job"]["id"]
        assert self.cancel(api, batch_id)["entries"][0]["state"] == "cancelled"
        assert MediaJob.objects.get(id=job_id).active

    @pytest.mark.parametrize("first", ["batch", "by itself"])
    def test_leaves_a_fetch_that_the_same_key_asked_for_by_itself(self, api, first):
        known_info()
        if first == "by itself":
            api.get("audio", url=VIDEO_ID)
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        advance_batch(batch_id)
        if first == "batch":
            api.get("audio", url=VIDEO_ID)
        assert self.cancel(api, batch_id)["state"] == "cancelled"
        job = MediaJob.objects.get()
        assert (job.active, job.left_by) == (True, [])
        assert api.delete(f"jobs/{job.id}").json()["state"] == "cancelled"

    def test_a_request_right_while_the_batch_is_cancelled_gets_a_fetch(self, api, monkeypatch):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        advance_batch(batch_id)
        move_up = media.move_up

        def cancelled_meanwhile(*args, **options):
            monkeypatch.setattr(media, "move_up", move_up)
            self.cancel(api, batch_id)
            move_up(*args, **options)

        monkeypatch.setattr(media, "move_up", cancelled_meanwhile)
        answer = api.get("audio", url=VIDEO_ID).json()
        assert MediaJob.objects.get(id=answer["job"]["id"]).active

    def test_leaves_a_fetch_that_another_batch_of_the_key_has(self, api):
        known_info()
        first, second = (order(api, urls=[VIDEO_ID])["id"] for _ in range(2))
        advance_batch(first)
        advance_batch(second)
        assert self.cancel(api, first)["state"] == "cancelled"
        assert MediaJob.objects.get().active
        self.cancel(api, second)
        assert not MediaJob.objects.get().active

    def test_an_entry_that_is_just_being_started_is_stopped_too(self, api, monkeypatch):
        known_info()
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        start = batches.start_or_join

        def cancelled_meanwhile(*args, **options):
            state = start(*args, **options)
            self.cancel(api, batch_id)
            return state

        monkeypatch.setattr(batches, "start_or_join", cancelled_meanwhile)
        advance_batch(batch_id)
        assert MediaJob.objects.get().state == JobState.CANCELLED
        assert api.get(f"batch/{batch_id}").json()["state"] == "cancelled"

    def test_is_for_the_key_that_made_it(self, api, other_api):
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        assert other_api.client.delete(f"/api/v1/batch/{batch_id}").status_code == 404


class TestAccess:
    def test_another_key_does_not_see_it_but_an_admin_does(self, api, other_api):
        batch_id = order(api, urls=[VIDEO_ID])["id"]
        admin = Api(create_key(name="admin", scopes=(Scope.ADMIN, Scope.MEDIA)).key)
        assert other_api.get(f"batch/{batch_id}").status_code == 404
        assert admin.get(f"batch/{batch_id}").status_code == 200
        assert other_api.get("batch").json()["batches"] == []

    def test_a_key_lists_its_own_newest_first(self, api):
        made = [order(api, urls=[VIDEO_ID])["id"] for _ in range(3)]
        answer = api.get("batch", page_size=2).json()
        assert answer["total"] == 3
        assert [batch["id"] for batch in answer["batches"]] == made[:0:-1]

    def test_needs_the_scope_media(self, api):
        key = Api(create_key(name="info only", scopes=(Scope.INFO,)).key)
        assert key.post("batch", {"urls": [VIDEO_ID]}).json()["error"] == "scope_missing"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"urls": []},
        {"urls": VIDEO_ID},
        {"urls": [VIDEO_ID] * 51},
        {"urls": [{"a": 1}]},
        {"urls": [VIDEO_ID], "playlist": PLAYLIST},
        {"urls": [VIDEO_ID], "file_type": "text"},
        {"urls": [VIDEO_ID], "quality": "720"},
        {"urls": [VIDEO_ID], "file_type": "video", "format": "m4a"},
        {"urls": [VIDEO_ID], "wait": 31},
        {"urls": [VIDEO_ID], "codec": "vp9"},
        {"urls": [VIDEO_ID], "file_type": "video", "bitrate": 320},
        {"urls": [VIDEO_ID], "file_type": "video", "codec": "divx"},
    ],
)
def test_nonsense_is_refused_and_nothing_is_kept(api, fields):
    response = api.post("batch", fields)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_parameter")
    assert Batch.objects.count() == 0


def test_a_broker_that_is_away_loses_no_batch(api, monkeypatch):
    def away(*_, **__):
        raise OperationalError

    monkeypatch.setattr(app, "send_task", away)
    assert order(api, urls=[VIDEO_ID])["state"] == "running"
