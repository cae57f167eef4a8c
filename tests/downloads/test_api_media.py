import re
import threading
import time
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
from redis import Redis

from apps.core.errors import QualityUnavailable, UpstreamError, VideoPrivate, error_from_code
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.core.wake import publish
from apps.downloads.documents import JobState, MediaJob, VideoInfoRecord
from apps.downloads.services import cache_stats, info, media
from apps.downloads.services.answers import duration_label
from apps.downloads.services.claims import claim_asset, commit_failed
from apps.downloads.services.flights import RESOLVE_QUEUE
from apps.downloads.services.info import record_info, record_info_error
from apps.downloads.services.jobs import cancel_job, ensure_job, finish_job, update_job
from apps.keys.services import create_key
from apps.streaming.links import check_link
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from tests.downloads.conftest import Api
from tests.downloads.library import (
    AUDIO,
    CONTENT,
    TITLE,
    VIDEO,
    VIDEO_ID,
    begin_fetch,
    finish_fetch,
    known_info,
    lose_hot,
    put_hot,
    put_in_telegram,
)
from tests.waiting import wait_until

FIELDS = [
    "status", "video_id", "title", "duration", "duration_seconds", "thumbnail", "file_type", "quality", "container",
    "file_size", "media", "cached", "source", "download_url", "stream_url", "expires_at", "job", "telegram",
    "response_time",
]  # fmt: skip


def signed(link):
    parts = urlsplit(link)
    return check_link(parts.path, dict(parse_qsl(parts.query)))


class TestAnAssetInTheHotStore:
    def test_is_answered_at_once_with_every_field(self, api):
        put_hot(AUDIO)
        known_info()
        response = api.get("audio", url=f"https://youtu.be/{VIDEO_ID}?si=x")
        assert response.status_code == 200
        answer = response.json()
        assert list(answer) == FIELDS
        assert response.headers["Cache-Control"] == "no-store"
        assert answer["status"] is True
        assert (answer["video_id"], answer["title"], answer["file_type"]) == (VIDEO_ID, TITLE, "audio")
        assert (answer["quality"], answer["container"], answer["file_size"]) == ("m4a", "m4a", len(CONTENT))
        assert (answer["duration"], answer["duration_seconds"]) == ("3:32", 212)
        assert (answer["cached"], answer["source"]) == (True, "hot")
        assert (answer["job"], answer["telegram"]) == (None, None)
        assert answer["response_time"] >= 0

    def test_costs_one_look_at_each_record(self, api, monkeypatch):
        put_hot(AUDIO)
        known_info()
        looks = []
        for place, name in ((info, "find_info_record"), (media, "find_asset")):
            look = getattr(place, name)
            monkeypatch.setattr(place, name, lambda id_, look=look, name=name: looks.append(name) or look(id_))
        assert api.get("audio", url=VIDEO_ID).status_code == 200
        assert sorted(looks) == ["find_asset", "find_info_record"]

    def test_links_are_absolute_signed_for_the_key_and_end_together(self, api):
        put_hot(AUDIO)
        answer = api.get("audio", url=VIDEO_ID, format="m4a").json()
        stream, download = signed(answer["stream_url"]), signed(answer["download_url"])
        assert answer["stream_url"].startswith(f"http://testserver/stream/audio/{VIDEO_ID}?")
        assert (stream.attachment, download.attachment) == (False, True)
        assert stream.key_prefix == download.key_prefix == api.prefix
        assert stream.asset_id == AUDIO.asset_id
        expires_at = datetime.fromisoformat(answer["expires_at"])
        assert expires_at == datetime.fromtimestamp(stream.expires_at, UTC)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["expires_at"])
        assert "yt_" not in answer["stream_url"]

    def test_an_exact_wish_needs_no_metadata(self, api):
        put_hot(VIDEO)
        assert api.get("video", url=VIDEO_ID, quality="1080").json()["source"] == "hot"
        assert redis_client().llen(RESOLVE_QUEUE) == 0

    @pytest.mark.parametrize("known", ["nothing", "video_private", "upstream_error"])
    def test_the_best_is_given_also_when_its_metadata_cannot_be_had(self, api, known):
        ensure_job(key=VIDEO, info=known_info(), key_prefix="")
        put_hot(VIDEO)
        VideoInfoRecord.objects.delete()
        if known != "nothing":
            record_info_error(VIDEO_ID, error_from_code(known))
        answer = api.get("video", url=VIDEO_ID).json()
        assert (answer["quality"], answer["source"]) == ("1080p", "hot")
        asked_again = redis_client().llen(RESOLVE_QUEUE)
        assert asked_again == (1 if known == "nothing" else 0)

    def test_what_was_not_the_best_is_not_given_for_it(self, api):
        ensure_job(key=VIDEO._replace(variant="720p"), info=known_info(), key_prefix="")
        put_hot(VIDEO._replace(variant="720p"))
        VideoInfoRecord.objects.delete()
        with pytest.raises(Suspend):
            media.resolve_key(media.MediaAsk(kind=MediaKind.VIDEO, video_id=VIDEO_ID), waited_s=0)

    @pytest.mark.parametrize("wish", ["best", "BEST", "1080", "1080p", "2160", "1081P"])
    def test_a_wish_is_resolved_to_the_same_asset(self, api, wish):
        put_hot(VIDEO)
        known_info()
        answer = api.get("video", url=VIDEO_ID, quality=wish).json()
        assert (answer["quality"], answer["cached"]) == ("1080p", True)

    def test_get_and_post_with_json_or_form_answer_the_same(self, api):
        put_hot(VIDEO)
        form = f"url={VIDEO_ID}&quality=1080"
        answers = [
            api.get("video", url=VIDEO_ID, quality="1080"),
            api.post("video", {"url": VIDEO_ID, "quality": 1080}),
            api.post("video", form, "application/x-www-form-urlencoded"),
        ]
        assert [response.status_code for response in answers] == [200, 200, 200]
        assert len({response.json()["quality"] + response.json()["source"] for response in answers}) == 1

    def test_a_use_is_counted(self, api):
        put_hot(AUDIO)
        for _ in range(3):
            api.get("audio", url=VIDEO_ID, format="m4a")
        wait_until(lambda: Asset.objects.get(id=AUDIO.asset_id).access_count == 3)

    def test_is_answered_also_when_it_cannot_be_counted(self, api, monkeypatch):
        put_hot(AUDIO)
        away = Redis(port=1)
        monkeypatch.setattr(cache_stats, "redis_client", lambda: away)
        assert api.get("audio", url=VIDEO_ID, format="m4a").json()["source"] == "hot"
        away.close()

    def test_without_public_url_links_name_the_address_of_the_request(self, api, settings):
        put_hot(AUDIO)
        settings.ENV = settings.ENV.model_copy(update={"public_url": ""})
        settings.ALLOWED_HOSTS = ["media.example"]
        response = api.client.get(
            "/api/v1/audio", {"url": VIDEO_ID, "format": "m4a"}, headers={"Host": "media.example:8443"}, secure=True
        )
        assert response.json()["stream_url"].startswith("https://media.example:8443/stream/audio/")


class TestAnAssetInTelegram:
    def test_is_answered_at_once_and_says_where_it_is(self, api):
        put_in_telegram(AUDIO)
        answer = api.get("audio", url=VIDEO_ID, format="m4a").json()
        assert (answer["cached"], answer["source"], answer["job"]) == (True, "telegram", None)
        assert answer["telegram"] == {
            "message_link": "https://t.me/c/1/7",
            "parts": 1,
            "file_unique_id": "AgADunique",
        }


class TestAnUnknownAsset:
    def test_is_answered_at_once_with_its_job_and_working_links(self, api):
        known_info()
        answer = api.get("video", url=VIDEO_ID).json()
        assert list(answer) == FIELDS
        assert (answer["cached"], answer["source"], answer["file_size"]) == (False, "external", None)
        assert (answer["title"], answer["quality"], answer["container"]) == (TITLE, "1080p", "mp4")
        job = MediaJob.objects.get()
        assert answer["job"] == {"id": job.id, "state": "queued", "progress": 0.0}
        assert signed(answer["stream_url"]).asset_id == VIDEO.asset_id

    def test_a_second_request_joins_the_job_and_sees_its_progress(self, api):
        known_info()
        first = api.get("audio", url=VIDEO_ID).json()["job"]
        update_job(first["id"], bytes_done=1, bytes_total=3)
        assert api.get("audio", url=VIDEO_ID).json()["job"] == {**first, "progress": 33.3}
        assert MediaJob.objects.count() == 1

    def test_a_finished_asset_whose_bytes_are_lost_is_fetched_again(self, api):
        known_info()
        lose_hot(put_hot(AUDIO))
        answer = api.get("audio", url=VIDEO_ID).json()
        assert (answer["cached"], answer["source"], answer["job"]["state"]) == (False, "external", "queued")

    def test_audio_without_m4a_becomes_mp3(self, api):
        record_info(known_info().model_copy(update={"audio_formats": ()}))
        assert api.get("audio", url=VIDEO_ID).json()["quality"] == "mp3"

    def test_a_quality_below_the_lowest_is_unavailable_and_says_what_there_is(self, api):
        known_info()
        response = api.get("video", url=VIDEO_ID, quality="360")
        assert response.status_code == 422
        assert response.json()["error"] == "quality_unavailable"
        assert response.json()["available"] == ["1080p", "720p"]

    @pytest.mark.parametrize("kind", ["audio", "video"])
    def test_a_file_that_no_source_turned_out_to_have_says_what_there_is(self, api, kind):
        info = known_info()
        wish, key = (
            ({"format": "opus"}, AssetKey(VIDEO_ID, MediaKind.AUDIO, "opus"))
            if kind == "audio"
            else ({"quality": "1080"}, VIDEO)
        )
        job = ensure_job(key=key, info=info, key_prefix="")
        commit_failed(claim_asset(key=key, owner="test", lease_s=60), QualityUnavailable())
        finish_job(job.id, error=QualityUnavailable())
        response = api.get(kind, url=VIDEO_ID, **wish)
        assert (response.status_code, response.json()["error"]) == (422, "quality_unavailable")
        assert response.json()["available"] == (["m4a", "opus"] if kind == "audio" else ["1080p", "720p"])


class TestWaiting:
    def test_waits_for_metadata_that_arrives(self, api):
        answers = []
        asking = threading.Thread(target=lambda: answers.append(api.get("audio", url=VIDEO_ID)))
        asking.start()
        wait_until(lambda: redis_client().llen(RESOLVE_QUEUE) == 1)
        known_info()
        publish(f"info:{VIDEO_ID}")
        asking.join(10)
        assert answers[0].json()["job"]["state"] == "queued"
        assert answers[0].headers["RateLimit-Remaining"] == "999"

    def test_gives_up_on_metadata_after_a_while(self, api, monkeypatch):
        monkeypatch.setattr(media, "INFO_WAIT_S", 0.0)
        response = api.get("info", url=VIDEO_ID)
        assert (response.status_code, response.json()["error"]) == (504, "upstream_timeout")
        assert response.headers["Retry-After"] == "5"
        assert response.json()["retryable"] is True

    def test_wait_holds_the_answer_until_the_file_is_there(self, api):
        known_info()
        answers = []
        asking = threading.Thread(target=lambda: answers.append(api.get("audio", url=VIDEO_ID, wait=30)))
        asking.start()
        wait_until(MediaJob.objects.first)
        finish_fetch(*begin_fetch(AUDIO), CONTENT)
        asking.join(10)
        assert (answers[0].json()["source"], answers[0].json()["job"]) == ("hot", None)
        assert redis_client().hgetall("yt:tiers") == {b"external": b"1"}  # the cache did not help here

    def test_wait_ends_with_the_job_as_it_is(self, api):
        known_info()
        answer = api.get("audio", url=VIDEO_ID, wait=1).json()
        assert answer["job"]["state"] == "queued"
        assert answer["response_time"] >= 1

    def test_a_fetch_that_fails_while_one_waits_gives_its_error(self, api):
        known_info()
        answers = []
        asking = threading.Thread(target=lambda: answers.append(api.get("audio", url=VIDEO_ID, wait=30)))
        asking.start()
        wait_until(MediaJob.objects.first)
        error = UpstreamError("It broke.")
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
        finish_job(MediaJob.objects.get().id, error=error)
        asking.join(10)
        body = answers[0].json()
        assert (answers[0].status_code, body["error"], body["message"]) == (502, "upstream_error", "It broke.")
        assert body["retryable"] is True
        assert int(answers[0].headers["Retry-After"]) >= 1
        assert MediaJob.objects.count() == 1

    @pytest.mark.parametrize("look_takes_s", [0, 0.5])
    def test_a_fetch_that_is_cancelled_while_one_waits_is_not_started_again(self, api, monkeypatch, look_takes_s):
        known_info()
        usual, looks = media.resolve, []

        def resolve(ask, **options):  # a busy machine: the cancelling was long before the second look comes to an end
            looks.append(ask)
            resolved = usual(ask, **options)
            time.sleep(look_takes_s if len(looks) > 1 else 0)
            return resolved

        monkeypatch.setattr(media, "resolve", resolve)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(api.get("audio", url=VIDEO_ID, wait=30)))
        asking.start()
        wait_until(MediaJob.objects.first)
        cancel_job(MediaJob.objects.get().id)
        asking.join(10)
        assert (answers[0].status_code, answers[0].json()["error"]) == (409, "conflict")
        assert MediaJob.objects.get().state == JobState.CANCELLED


class TestErrors:
    def test_a_content_error_on_record_has_its_status(self, api):
        record_info_error(VIDEO_ID, VideoPrivate())
        for route in ("info", "video", "audio"):
            response = api.get(route, url=VIDEO_ID)
            assert (response.status_code, response.json()["error"]) == (403, "video_private")

    def test_a_failed_fetch_gives_its_error_until_it_may_be_tried_again(self, api):
        known_info()
        api.get("audio", url=VIDEO_ID)
        error = VideoPrivate()
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
        finish_job(MediaJob.objects.get().id, error=error)
        assert api.get("audio", url=VIDEO_ID).status_code == 403
        Asset.objects(id=AUDIO.asset_id).update_one(set__retry_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert api.get("audio", url=VIDEO_ID).json()["job"]["state"] == "queued"

    def test_a_key_without_the_scope_is_refused(self, api):
        info_only = Api(create_key(name="info only", scopes=("info",)).key)
        known_info()
        assert info_only.get("info", url=VIDEO_ID).status_code == 200
        assert info_only.get("audio", url=VIDEO_ID).json()["error"] == "scope_missing"


class TestDurationLabel:
    @pytest.mark.parametrize(
        ("seconds", "label"),
        [(None, ""), (0, "0:00"), (59.6, "1:00"), (212, "3:32"), (3599.7, "1:00:00"), (3723, "1:02:03")],
    )
    def test_looks_as_people_know_it(self, seconds, label):
        assert duration_label(seconds) == label
