"""What each dialect answers while queued, running, done and failed, to a wrong key and over the limit."""

from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.test import Client

from apps.core.errors import UpstreamError, VideoPrivate, VideoUnavailable
from apps.core.redis import redis_client
from apps.downloads.dialects import song, track, v2
from apps.downloads.documents import MediaJob, MediaTicket
from apps.downloads.providers.listing import ListedVideo, Listing
from apps.downloads.services.claims import claim_asset, commit_failed
from apps.downloads.services.info import record_info_error
from apps.downloads.services.jobs import finish_job, start_job, update_job
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup
from apps.keys.documents import Scope
from apps.keys.services import create_key, revoke_key
from apps.streaming.links import check_link
from tests.downloads.library import AUDIO, TITLE, VIDEO, VIDEO_ID, known_info, put_hot

WORDS = "a song that plays"
SONG_FIELDS = {"status", "link", "format", "title"}
TRACK_FIELDS = ["cdnurl", "url", "id", "key", "title", "duration", "thumbnail"]
LINK_NAMES = ("cdn", "cdnurl", "public_url", "download_url", "url")


@pytest.fixture(autouse=True)
def _no_waiting(dialects_on, monkeypatch):
    for module, name in ((song, "POLL_WAIT_S"), (track, "INFO_WAIT_S"), (track, "SEARCH_WAIT_S"), (v2, "READY_WAIT_S")):
        monkeypatch.setattr(module, name, 0.0)


@pytest.fixture
def bot(api):
    return Bot(api.key)


class Bot:
    """A caller that sends its key the way each dialect does."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.client = Client()

    def song(self, text=VIDEO_ID, kind="song"):
        return self.client.get(f"/{kind}/{text}", {"api": self.key})

    def track(self, url=VIDEO_ID, **fields):
        return self.client.get("/api/track", {"url": url, **fields}, headers={"X-API-Key": self.key})

    def order(self, query=VIDEO_ID, path="/youtube/v2/download", **fields):
        return self.client.get(path, {"api_key": self.key, "query": query, **fields})

    def status(self, job_id):
        return self.client.get("/youtube/jobStatus", {"job_id": job_id})

    def query(self, query=WORDS, **fields):
        return self.client.get("/api/song", {"query": query, "api": self.key, **fields})

    def all(self):
        return [self.song(), self.song(kind="video"), self.track(), self.order(), self.query(VIDEO_ID)]


def found(words: str, *video_ids: str, live: bool = False) -> None:
    videos = tuple(
        ListedVideo(video_id=video_id, live=live and number == 0) for number, video_id in enumerate(video_ids)
    )
    lookup = Lookup(kind=LookupKind.SEARCH, subject=words, detail="1:20")
    answer_lookup(lookup, lambda *_: Listing(videos=videos).model_dump(mode="json"))


def asset_of(link: str) -> str:
    """The asset that a link leads to; checks that it is absolute and signed."""
    assert link.startswith("http://testserver/stream/")
    parts = urlsplit(link)
    return check_link(parts.path, dict(parse_qsl(parts.query))).asset_id


def fail(error) -> None:
    commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
    finish_job(MediaJob.objects.get().id, error=error)


class TestSong:
    def test_is_downloading_while_nobody_knows_the_video(self, bot):
        response = bot.song()
        assert (response.status_code, response.json()["status"]) == (200, "downloading")
        assert set(response.json()) == SONG_FIELDS

    def test_is_downloading_while_it_is_queued_and_while_it_runs(self, bot):
        known_info()
        assert bot.song().json() == {"status": "downloading", "link": "", "format": "m4a", "title": TITLE}
        start_job(MediaJob.objects.get().id)
        assert bot.song().json()["status"] == "downloading"

    def test_is_done_with_a_link_that_saves(self, bot):
        known_info()
        put_hot(AUDIO)
        response = bot.song()
        answer = response.json()
        assert (answer["status"], answer["format"], answer["title"]) == ("done", "m4a", TITLE)
        assert set(answer) == SONG_FIELDS
        assert asset_of(answer["link"]) == AUDIO.asset_id
        assert response.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("link", [f"https://youtu.be/{VIDEO_ID}", f"https://www.youtube.com/watch?v={VIDEO_ID}"])
    def test_takes_a_whole_link_too(self, bot, link):
        known_info()
        put_hot(AUDIO)
        path, _, query = link.partition("?")
        response = bot.client.get(f"/song/{path}?{query}&api={bot.key}")
        assert asset_of(response.json()["link"]) == AUDIO.asset_id

    def test_a_video_is_an_mp4_in_its_best_quality(self, bot):
        known_info()
        assert bot.song(kind="video").json()["format"] == "mp4"
        put_hot(VIDEO)
        answer = bot.song(kind="video").json()
        assert (answer["status"], answer["format"]) == ("done", "mp4")
        assert asset_of(answer["link"]) == VIDEO.asset_id

    def test_a_video_that_cannot_be_had_is_an_error_with_http_200(self, bot):
        record_info_error(VIDEO_ID, VideoPrivate())
        response = bot.song()
        assert (response.status_code, response.json()["status"]) == (200, "error")
        assert response.json()["message"]
        assert response.json()["error"] == "video_private"

    def test_a_fetch_that_fails_is_an_error_with_http_200(self, bot):
        known_info()
        bot.song()
        fail(UpstreamError("It broke."))
        response = bot.song()
        assert (response.status_code, response.json()["status"]) == (200, "error")
        assert response.json()["message"] == "It broke."

    def test_one_that_was_polled_for_counts_as_fetched_once(self, bot):
        known_info()
        bot.song()
        put_hot(AUDIO)
        bot.song()
        bot.song()
        assert redis_client().hgetall("yt:tiers") == {b"external": b"1", b"hot": b"1"}

    def test_words_mean_the_first_result(self, bot):
        known_info()
        put_hot(AUDIO)
        found(WORDS, VIDEO_ID)
        assert asset_of(bot.song(WORDS).json()["link"]) == AUDIO.asset_id


class TestTrack:
    def test_answers_at_once_with_links_that_wait(self, bot):
        known_info()
        response = bot.track(f"https://youtu.be/{VIDEO_ID}", video="false")
        answer = response.json()
        assert response.status_code == 200
        assert list(answer) == TRACK_FIELDS
        assert answer["cdnurl"] == answer["url"]
        assert asset_of(answer["url"]) == AUDIO.asset_id
        assert (answer["id"], answer["title"], answer["duration"]) == (VIDEO_ID, TITLE, 212)
        assert MediaJob.objects.get().asset_id == AUDIO.asset_id

    @pytest.mark.parametrize("yes", ["true", "True", "1"])
    def test_gives_a_video_where_one_is_asked_for(self, bot, yes):
        known_info()
        put_hot(VIDEO)
        assert asset_of(bot.track(video=yes).json()["cdnurl"]) == VIDEO.asset_id

    @pytest.mark.parametrize(("video", "kind"), [("true", "video"), ("false", "audio")])
    def test_does_not_wait_for_metadata_that_takes_too_long(self, bot, video, kind):
        answer = bot.track(video=video).json()
        assert list(answer) == TRACK_FIELDS
        assert urlsplit(answer["url"]).path == f"/stream/{kind}/{VIDEO_ID}"
        assert asset_of(answer["url"]) == "wish:"

    def test_a_search_that_takes_too_long_is_told_in_time(self, bot):
        response = bot.track(WORDS)
        assert (response.status_code, response.json()["error"]) == (504, "upstream_timeout")

    def test_a_video_that_cannot_be_had_is_an_error_in_its_shape(self, bot):
        record_info_error(VIDEO_ID, VideoPrivate())
        response = bot.track()
        assert (response.status_code, response.json()["status"]) == (403, "error")
        assert response.json()["message"]


class TestV2:
    def test_one_that_is_ready_comes_at_once(self, bot):
        known_info()
        put_hot(AUDIO)
        answer = bot.order(isVideo="false").json()
        assert (answer["status"], answer["job_id"]) == ("success", None)
        assert {asset_of(answer["result"][name]) for name in LINK_NAMES} == {AUDIO.asset_id}
        assert MediaTicket.objects.count() == 0

    def test_post_with_json_or_form_is_the_same(self, bot):
        known_info()
        put_hot(VIDEO)
        fields = {"query": VIDEO_ID, "isVideo": True, "api_key": bot.key}
        for options in ({"data": fields, "content_type": "application/json"}, {"data": fields}):
            answer = bot.client.post("/youtube/v2/download", **options).json()
            assert asset_of(answer["result"]["url"]) == VIDEO.asset_id

    def test_below_queued_there_is_always_a_job(self, bot):
        known_info()
        put_hot(AUDIO)
        answer = bot.order(path="/queued/youtube/v2/download").json()
        assert answer["status"] == "queued"
        job = bot.client.get("/queued/youtube/jobStatus", {"job_id": answer["job_id"]}).json()["job"]
        assert job["status"] == "done"

    def test_a_job_is_followed_without_a_key(self, bot):
        order = bot.order().json()
        assert order == {"status": "queued", "job_id": order["job_id"]}
        job_id = order["job_id"]
        assert bot.status(job_id).json() == {
            "status": "success",
            "job": {"id": job_id, "status": "queued", "result": {}},
        }
        known_info()
        assert bot.status(job_id).json()["job"]["status"] == "queued"
        update_job(MediaJob.objects.get().id, state="running")
        assert bot.status(job_id).json()["job"] == {"id": job_id, "status": "processing", "result": {}}
        put_hot(AUDIO)
        finish_job(MediaJob.objects.get().id)
        answer = bot.status(job_id)
        job = answer.json()["job"]
        assert (answer.status_code, answer.json()["status"], job["id"], job["status"]) == (
            200,
            "success",
            job_id,
            "done",
        )
        assert job["result"]["success"] is True
        assert len({job["result"][name] for name in LINK_NAMES}) == 1
        assert asset_of(job["result"]["url"]) == AUDIO.asset_id

    def test_what_is_kept_of_an_order_is_what_it_says_and_no_more(self, bot):
        fields = {"query": "a  song\t" + " " * 50_000 + "that plays\n", "api_key": bot.key}
        job_id = bot.client.post("/youtube/v2/download", data=fields).json()["job_id"]
        assert MediaTicket.objects.get(id=job_id).query == WORDS

    def test_a_job_that_fails_says_so(self, bot):
        known_info()
        job_id = bot.order().json()["job_id"]
        bot.status(job_id)
        fail(UpstreamError("It broke."))
        answer = bot.status(job_id)
        job = answer.json()["job"]
        assert (answer.status_code, answer.json()["status"], job["status"]) == (200, "success", "error")
        assert (job["message"], job["result"]) == ("It broke.", {})

    def test_one_that_cannot_be_had_is_refused_at_once_when_that_is_known(self, bot):
        record_info_error(VIDEO_ID, VideoPrivate())
        response = bot.order()
        assert (response.status_code, response.json()["status"]) == (403, "error")

    def test_words_are_searched_for_in_the_job(self, bot):
        job_id = bot.order(WORDS).json()["job_id"]
        assert bot.status(job_id).json()["job"]["status"] == "queued"
        found(WORDS, VIDEO_ID)
        known_info()
        put_hot(AUDIO)
        assert bot.status(job_id).json()["job"]["result"]["title"] == TITLE

    def test_an_unknown_job_is_not_found(self, bot):
        for job_id in ("", "unknown", "$ne"):
            response = bot.status(job_id)
            assert (response.status_code, response.json()["status"]) == (404, "error")

    def test_guessing_jobs_is_slowed_down(self, bot):
        for _ in range(61):
            response = bot.status("guess")
        assert (response.status_code, response.json()["status"]) == (429, "error")

    def test_a_revoked_key_ends_its_jobs(self, bot, api, monkeypatch):
        known_info()
        job_id = bot.order().json()["job_id"]
        revoke_key(api.prefix)
        response = bot.status(job_id)
        assert (response.status_code, response.json()["error"]) == (403, "key_disabled")

    def test_a_job_does_not_wait_for_ever(self, bot):
        job_id = bot.order().json()["job_id"]
        ticket = MediaTicket.objects.get()
        MediaTicket.objects.update(set__created_at=ticket.created_at - timedelta(seconds=30))
        assert bot.status(job_id).json()["job"]["error"] == "upstream_timeout"


class TestQuery:
    def test_words_give_the_first_result_that_is_no_live_stream(self, bot):
        known_info()
        put_hot(AUDIO)
        found(WORDS, "livenow0001", VIDEO_ID, live=True)
        answer = bot.query().json()
        assert list(answer) == ["stream", "title", "duration", "thumbnail"]
        assert (answer["title"], answer["duration"]) == (TITLE, 212)
        assert asset_of(answer["stream"]) == AUDIO.asset_id

    def test_download_leads_to_the_bytes(self, bot):
        known_info()
        put_hot(AUDIO)
        response = bot.query(VIDEO_ID, download="true")
        assert response.status_code == 307
        assert asset_of(response.headers["Location"]) == AUDIO.asset_id
        assert response.headers["Location"].endswith(response.headers["X-Ytserver-Stream"])

    def test_nothing_found_is_an_error(self, bot):
        found(WORDS)
        response = bot.query()
        assert (response.status_code, response.json()["status"]) == (404, "error")

    def test_a_word_that_looks_like_an_id_is_searched_for_when_there_is_no_such_video(self, bot):
        record_info_error("despacitooo", VideoUnavailable())
        found("despacitooo", VIDEO_ID)
        known_info()
        put_hot(AUDIO)
        assert bot.query("despacitooo").json()["title"] == TITLE

    @pytest.mark.parametrize(
        ("query", "code"),
        [("", "invalid_parameter"), ("https://evil.example/x", "invalid_url"), ("youtube.com/@x", "invalid_url")],
    )
    def test_nonsense_is_refused(self, bot, query, code):
        response = bot.query(query)
        assert (response.status_code, response.json()["error"], response.json()["status"]) == (400, code, "error")

    def test_words_need_the_scope_search(self, api):
        bot = Bot(create_key(name="media only", scopes=(Scope.MEDIA,)).key)
        assert bot.query().json()["error"] == "scope_missing"
        known_info()
        assert bot.query(VIDEO_ID).status_code == 200


class TestKeysAndLimits:
    @pytest.mark.parametrize("key", ["", "wrong", "yt_AAAAAAAA_" + "x" * 43])
    def test_a_wrong_key_is_an_error_in_each_dialect(self, api, key):
        known_info()
        for response in Bot(key).all():
            assert response.status_code == 401
            assert response.json()["status"] == "error"
            assert response.json()["message"]

    def test_over_the_limit_is_an_error_in_each_dialect(self, api):
        known_info()
        bot = Bot(create_key(name="one", limit_per_hour=1).key)
        bot.song()
        for response in bot.all():
            assert (response.status_code, response.json()["status"]) == (429, "error")
            assert int(response.headers["Retry-After"]) >= 1

    def test_the_key_counts_wherever_it_is_sent(self, api):
        known_info()
        client = Client()
        for options in (
            {"data": {"api": api.key}},
            {"data": {"api_key": api.key}},
            {"headers": {"X-API-Key": api.key}},
            {"headers": {"Authorization": f"Bearer {api.key}"}},
        ):
            assert client.get(f"/song/{VIDEO_ID}", **options).json()["status"] == "downloading"

    def test_a_key_without_the_scope_is_refused(self, api):
        for response in Bot(create_key(name="info only", scopes=(Scope.INFO,)).key).all():
            assert (response.status_code, response.json()["error"]) == (403, "scope_missing")


class TestSetting:
    @pytest.mark.parametrize(
        "path", ["/song/x", "/video/x", "/api/track", "/youtube/v2/download", "/youtube/jobStatus", "/api/song"]
    )
    def test_nothing_is_there_while_it_is_off(self, settings, client, path):
        settings.ENV = settings.ENV.model_copy(update={"dialects": ()})
        response = client.get(path)
        assert (response.status_code, response.json()["error"]) == (404, "not_found")

    def test_nothing_is_sent_for_a_wrong_key(self, api):
        Bot("wrong").all()
        assert redis_client().llen("yt:celery:resolve") == 0
