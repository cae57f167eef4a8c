import re
import threading
from datetime import timedelta

import pytest
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from apps.core import suspend
from apps.core.clock import utcnow
from apps.core.errors import ERRORS_BY_CODE, UpstreamError, VideoPrivate
from apps.core.redis import redis_client
from apps.downloads.documents import MediaJob, VideoInfoRecord
from apps.downloads.services.claims import claim_asset, commit_failed
from apps.downloads.services.flights import RESOLVE_QUEUE
from apps.downloads.services.info import get_info, let_info_age, record_info, record_info_error
from apps.downloads.services.jobs import finish_job
from apps.keys.documents import Scope
from apps.keys.services import create_key
from apps.telegram_cache.documents import Asset
from tests.downloads.conftest import Api
from tests.downloads.library import AUDIO, CONTENT, TITLE, VIDEO, VIDEO_ID, known_info, put_hot, put_in_telegram
from tests.waiting import wait_until

ROUTES = [
    "info",
    "video",
    "audio",
    "search",
    "playlist",
    "channel",
    "subtitles",
    "thumbnail",
    "batch",
    "status",
    "cache/stats",
    "jobs",
]
ADMIN_ROUTES = [
    "admin/providers",
    "admin/cookies",
    "admin/proxies",
    "admin/po-tokens",
    "admin/bots",
    "admin/channels",
    "admin/keys",
    "admin/users",
]


class TestInfo:
    def test_may_be_kept_for_a_while_and_is_not_sent_again_unchanged(self, api):
        known_info()
        first = api.get("info", url=VIDEO_ID)
        etag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, max-age=300"
        for asked in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
            again = api.client.get("/api/v1/info", {"url": VIDEO_ID}, headers={"If-None-Match": asked})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
        record_info(known_info().model_copy(update={"title": "New"}))
        changed = api.client.get("/api/v1/info", {"url": VIDEO_ID}, headers={"If-None-Match": etag})
        assert (changed.status_code, changed.json()["title"]) == (200, "New")
        assert api.get("info", url="nonsense").headers["Cache-Control"] == "no-store"

    def test_refresh_asks_outside_again_once_a_minute_for_any_number_of_callers(self, api):
        new = known_info().model_copy(update={"title": "New"})
        record_info(new.model_copy(update={"title": "Old"}))
        assert api.get("info", url=VIDEO_ID, refresh="1").json()["title"] == "Old"  # asked within the last minute
        VideoInfoRecord.objects.update(set__asked_at=utcnow() - timedelta(minutes=2))
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(api.get("info", url=VIDEO_ID, refresh="1").json()["title"]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: redis_client().llen(RESOLVE_QUEUE))
        assert redis_client().llen(RESOLVE_QUEUE) == 1
        record_info(new)
        for thread in threads:
            thread.join()
        assert set(answers) == {"New"}
        assert api.get("info", url=VIDEO_ID).headers["Cache-Control"] == "private, max-age=300"

    def test_refresh_gives_what_was_known_when_the_sources_fail(self, api):
        known_info()
        VideoInfoRecord.objects.update(set__asked_at=utcnow() - timedelta(minutes=2))
        let_info_age(VIDEO_ID, asked_before=utcnow())
        record_info_error(VIDEO_ID, UpstreamError())
        assert api.get("info", url=VIDEO_ID, refresh="1").json()["title"] == TITLE

    def test_refresh_also_forgets_an_error(self, api):
        record_info_error(VIDEO_ID, VideoPrivate())
        assert api.get("info", url=VIDEO_ID, refresh="1").json()["error"] == "video_private"
        VideoInfoRecord.objects.update(set__asked_at=utcnow() - timedelta(minutes=2))
        let_info_age(VIDEO_ID, asked_before=utcnow() - timedelta(minutes=1))
        assert get_info(VIDEO_ID) is None

    def test_gives_everything_that_is_known(self, api):
        known_info()
        answer = api.get("info", url=VIDEO_ID).json()
        assert answer["status"] is True
        assert (answer["title"], answer["channel"], answer["duration"]) == (TITLE, "Somebody", "3:32")
        assert (answer["upload_date"], answer["view_count"]) == ("2009-10-25", None)
        assert (answer["video_qualities"], answer["audio_formats"]) == (["1080p", "720p"], ["m4a", "opus"])
        assert answer["formats"][0]["size_bytes"] == 1234
        assert (answer["subtitles"], answer["chapters"]) == ([], [])
        assert (answer["hdr"], answer["artist"], answer["album"]) == (False, None, None)
        assert api.post("info", {"url": VIDEO_ID}).json().keys() == answer.keys()


class TestStatus:
    def test_needs_no_key(self, api, client):
        answer = client.get("/api/v1/status").json()
        assert (answer["status"], answer["key"]) == (True, None)

    def test_tells_a_key_where_it_stands_and_asking_is_free(self, api):
        for _ in range(2):
            api.get("cache/stats")
            api.get("status")
        answer = api.get("status").json()["key"]
        assert (answer["prefix"], answer["limit_per_hour"]) == (api.prefix, 1000)
        assert (answer["used"], answer["remaining"]) == (2, 998)
        assert 0 < answer["reset_s"] <= 3610
        assert api.key[12:] not in str(answer)

    def test_answers_a_key_that_has_used_up_its_limit(self, client):
        key = create_key(name="small", limit_per_hour=1).key
        headers = {"X-API-Key": key}
        assert client.get("/api/v1/cache/stats", headers=headers).status_code == 200
        assert client.get("/api/v1/cache/stats", headers=headers).status_code == 429
        answer = client.get("/api/v1/status", headers=headers)
        assert (answer.status_code, answer.json()["key"]["remaining"]) == (200, 0)
        assert answer.headers["RateLimit-Remaining"] == "0"

    def test_a_wrong_key_is_an_error_also_here(self, api, client):
        assert client.get("/api/v1/status", {"api_key": "nonsense"}).json()["error"] == "key_invalid"


class TestCacheStats:
    def test_an_empty_cache_is_all_zeros(self, api):
        answer = api.get("cache/stats").json()
        assert (answer["total_files"], answer["total_size_bytes"], answer["most_used"]) == (0, 0, [])
        assert answer["hits"] == {"hot": 0, "telegram": 0, "external": 0, "ratio": None}

    def test_counts_files_sizes_and_answers_by_where_they_came_from(self, api):
        known_info()
        put_hot(VIDEO)
        put_in_telegram(AUDIO)
        for _ in range(2):
            api.get("video", url=VIDEO_ID)
        api.get("audio", url=VIDEO_ID)
        api.get("audio", url=VIDEO_ID, format="opus")
        answer = api.get("cache/stats").json()
        assert (answer["total_files"], answer["total_size_bytes"]) == (2, 2 * len(CONTENT))
        assert answer["video"] == {"files": 1, "size_bytes": len(CONTENT), "in_telegram": 0}
        assert answer["audio"] == {"files": 1, "size_bytes": len(CONTENT), "in_telegram": 1}
        assert answer["hits"] == {"hot": 2, "telegram": 1, "external": 1, "ratio": 0.75}


class TestJobs:
    def job_of(self, api):
        known_info()
        return api.get("audio", url=VIDEO_ID).json()["job"]["id"]

    def test_a_job_can_be_read_and_listed_by_its_key(self, api):
        job_id = self.job_of(api)
        answer = api.get(f"jobs/{job_id}").json()
        assert (answer["id"], answer["state"], answer["progress"]) == (job_id, "queued", 0.0)
        assert (answer["video_id"], answer["file_type"], answer["quality"]) == (VIDEO_ID, "audio", "m4a")
        assert answer["failure"] is None
        listed = api.get("jobs").json()
        assert (listed["total"], listed["page"]) == (1, 1)
        assert listed["jobs"] == [{name: value for name, value in answer.items() if name != "status"}]

    def test_wait_holds_the_answer_back_until_the_job_has_ended(self, api, monkeypatch):
        job_id = self.job_of(api)
        topics = []

        def end_the_job(topic, *, timeout_s):
            topics.append(topic)
            finish_job(job_id)

        monkeypatch.setattr(suspend.wake, "wait", end_the_job)
        answer = api.get(f"jobs/{job_id}", wait=30).json()
        assert (answer["state"], topics) == ("done", [f"asset:{AUDIO.asset_id}"])
        assert api.get(f"jobs/{job_id}", wait=30).json()["state"] == "done"  # ended already: at once
        assert len(topics) == 1

    def test_wait_ends_and_is_bounded(self, api):
        job_id = self.job_of(api)
        assert api.get(f"jobs/{job_id}", wait=1).json()["state"] == "queued"
        assert api.get(f"jobs/{job_id}", wait=31).json()["parameter"] == "wait"
        assert api.get("jobs", wait=1).status_code == 400

    def test_the_list_can_be_narrowed_to_a_state(self, api):
        job_id = self.job_of(api)
        assert [job["id"] for job in api.get("jobs", state="queued").json()["jobs"]] == [job_id]
        assert api.get("jobs", state="done").json()["total"] == 0
        assert api.get("jobs", state="lost").json()["parameter"] == "state"

    def test_another_key_does_not_see_it(self, api, other_api):
        job_id = self.job_of(api)
        for response in (other_api.get(f"jobs/{job_id}"), other_api.client.delete(f"/api/v1/jobs/{job_id}")):
            assert (response.status_code, response.json()["error"]) == (404, "not_found")
        assert other_api.get("jobs").json()["jobs"] == []
        assert MediaJob.objects.get().active

    def test_a_job_that_two_keys_wait_for_stops_when_both_have_cancelled(self, api, other_api):
        job_id = self.job_of(api)
        assert self.job_of(other_api) == job_id
        assert [job["id"] for job in other_api.get("jobs").json()["jobs"]] == [job_id]
        assert api.client.delete(f"/api/v1/jobs/{job_id}").json()["state"] == "queued"
        assert other_api.get(f"jobs/{job_id}").json()["state"] == "queued"
        assert api.get(f"jobs/{job_id}").status_code == 200
        assert other_api.client.delete(f"/api/v1/jobs/{job_id}").json()["state"] == "cancelled"

    def test_a_key_that_asks_again_waits_again(self, api, other_api):
        job_id = self.job_of(api)
        self.job_of(other_api)
        api.client.delete(f"/api/v1/jobs/{job_id}")
        assert self.job_of(api) == job_id
        assert other_api.client.delete(f"/api/v1/jobs/{job_id}").json()["state"] == "queued"

    def test_a_cancelled_job_can_be_tried_again(self, api, other_api):
        job_id = self.job_of(api)
        assert api.post(f"jobs/{job_id}/retry", {}).json()["id"] == job_id
        api.client.delete(f"/api/v1/jobs/{job_id}")
        again = api.post(f"jobs/{job_id}/retry", {}).json()
        assert (again["state"], again["priority"]) == ("queued", "interactive")
        assert again["id"] != job_id
        assert api.post(f"jobs/{job_id}/retry", {}).json()["id"] == again["id"]
        assert other_api.post(f"jobs/{job_id}/retry", {}).status_code == 404

    def test_a_failed_job_is_tried_again_only_after_its_pause(self, api):
        job_id = self.job_of(api)
        error = UpstreamError("It broke.")
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
        finish_job(job_id, error=error)
        answer = api.post(f"jobs/{job_id}/retry", {})
        assert (answer.status_code, answer.json()["error"]) == (502, "upstream_error")
        assert 0 < int(answer.headers["Retry-After"]) <= 15
        Asset.objects.update_one(set__retry_at=utcnow())
        assert api.post(f"jobs/{job_id}/retry", {}).json()["state"] == "queued"

    def test_an_admin_key_sees_and_cancels_every_job(self, api):
        admin = Api(create_key(name="admin", scopes=(Scope.ADMIN,)).key)
        job_id = self.job_of(api)
        assert admin.get(f"jobs/{job_id}").status_code == 200
        assert admin.client.delete(f"/api/v1/jobs/{job_id}").json()["state"] == "cancelled"

    def test_cancelling_stops_it_and_can_be_repeated(self, api):
        job_id = self.job_of(api)
        for _ in range(2):
            answer = api.client.delete(f"/api/v1/jobs/{job_id}")
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert api.get("audio", url=VIDEO_ID).json()["job"]["id"] != job_id

    def test_a_failed_job_says_why(self, api):
        job_id = self.job_of(api)
        error = UpstreamError("It broke.")
        commit_failed(claim_asset(key=AUDIO, owner="test", lease_s=60), error)
        finish_job(job_id, error=error)
        failure = api.get(f"jobs/{job_id}").json()["failure"]
        assert failure == {"code": "upstream_error", "message": "It broke.", "retryable": True}

    @pytest.mark.parametrize("page", [{"page": 0}, {"page_size": 101}, {"page": "x"}, {"from": 1}])
    def test_a_wrong_page_is_refused(self, api, page):
        assert api.get("jobs", **page).json()["error"] == "invalid_parameter"

    def test_pages_follow_each_other_newest_first(self, api):
        for number in range(5):
            MediaJob(
                asset_id=f"{number:024}", video_id=VIDEO_ID, kind="audio", variant="m4a", key_prefix=api.prefix
            ).save()
        pages = [api.get("jobs", page=page, page_size=2).json() for page in (1, 2, 3, 4)]
        assert [len(page["jobs"]) for page in pages] == [2, 2, 1, 0]
        created = [job["created_at"] for page in pages for job in page["jobs"]]
        assert created == sorted(created, reverse=True)

    @pytest.mark.parametrize("job_id", ["unknown", "a" * 64, "%00", "..", "a/b", "$gt"])
    def test_an_unknown_id_is_not_found(self, api, job_id):
        assert api.get(f"jobs/{job_id}").json()["error"] == "not_found"


class TestRouting:
    @pytest.mark.parametrize(
        "path", ["/api/v1/nothing", "/api/nothing", "/api/v1/info.json", "/api/v1/info/", "/nothing"]
    )
    def test_an_unknown_path_is_a_json_404(self, api, path):
        response = api.client.get(path)
        assert (response.status_code, response.json()["error"]) == (404, "not_found")

    @pytest.mark.parametrize("method", ["put", "patch", "delete"])
    @pytest.mark.parametrize("route", ["info", "video", "audio", "status", "cache/stats"])
    def test_a_wrong_method_is_refused_and_the_right_ones_are_told(self, api, route, method):
        response = getattr(api.client, method)(f"/api/v1/{route}")
        assert (response.status_code, response.json()["error"]) == (405, "method_not_allowed")
        assert "GET" in response.headers["Allow"]

    def test_head_answers_as_get_without_a_body(self, api):
        response = api.client.head("/api/v1/cache/stats")
        assert (response.status_code, response.content) == (200, b"")

    def test_options_describes_a_route(self, api):
        assert "POST" in api.client.options("/api/v1/video").headers["Allow"]

    def test_the_root_lists_every_route_without_a_key(self, api, client):
        answer = client.get("/api/v1/", headers={"Accept": "application/json"}).json()
        assert set(answer) == {*ROUTES, *ADMIN_ROUTES, "admin/warm-ups", "admin/analytics", "me"}
        assert answer["info"] == "http://testserver/api/v1/info"
        assert client.get("/api/v1").headers["Location"] == "/api/v1/"


class TestSchemaAndPages:
    def test_the_schema_is_valid_and_names_routes_errors_and_ways_to_send_a_key(self, api, client):
        schema = client.get("/api/schema").json()
        validate_schema(schema)
        assert {f"/api/v1/{route}" for route in ROUTES} <= schema["paths"].keys()
        assert {"/stream/audio/{video_id}", "/stream/video/{video_id}"} <= schema["paths"].keys()
        assert len(schema["components"]["securitySchemes"]) == 4
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                codes = {
                    code
                    for answer in operation["responses"].values()
                    for code in re.findall(r"`(\w+)`", answer["description"])
                }
                assert codes <= ERRORS_BY_CODE.keys(), path

    def test_making_the_schema_gives_no_warning(self):
        GENERATOR_STATS.reset()
        SchemaGenerator().get_schema(public=True)
        assert [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache] == []

    def test_the_schema_comes_as_yaml_where_that_is_asked_for(self, api, client):
        response = client.get("/api/schema", headers={"Accept": "application/yaml"})
        assert response.content.startswith(b"openapi: 3")

    def test_answers_have_the_fields_that_the_schema_says(self, api, client):
        known_info()
        put_in_telegram(AUDIO)
        schemas = client.get("/api/schema").json()["components"]["schemas"]
        answers = {
            "MediaAnswer": api.get("audio", url=VIDEO_ID),
            "InfoAnswer": api.get("info", url=VIDEO_ID),
            "StatusAnswer": api.get("status"),
            "CacheStatsAnswer": api.get("cache/stats"),
            "JobListAnswer": api.get("jobs"),
            "Error": api.get("jobs/unknown"),
        }
        for name, answer in answers.items():
            assert set(answer.json()) == set(schemas[name]["properties"]) == set(schemas[name]["required"]), name

    def test_the_docs_page_has_nothing_inline_and_nothing_from_elsewhere(self, api, client):
        response = client.get("/api/docs")
        page = response.content.decode()
        addresses = re.findall(r'(?:src|href|data-schema-url)="([^"]+)"', page)
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=|javascript:", page)
        assert len(addresses) == 6
        for address in addresses:
            file = client.get(address)
            assert file.status_code == 200, address
            file.close()

    def test_the_first_page_leads_to_the_admin(self, api, client):
        assert client.get("/").headers["Location"] == "/admin/"

    @pytest.mark.parametrize("route", ROUTES)
    def test_each_route_can_be_browsed(self, api, client, route):
        known_info()
        response = client.get(f"/api/v1/{route}", {"api_key": api.key}, headers={"Accept": "text/html"})
        page = response.content.decode()
        assert response.headers["Content-Type"].startswith("text/html")
        assert "ytserver API" in page
        assert not re.search(r"<style|<script>|\son\w+=", page)

    def test_the_form_of_a_route_can_be_sent_as_it_is(self, api, client):
        page = client.get("/api/v1/video", {"api_key": api.key}, headers={"Accept": "text/html"}).content.decode()
        assert "<h1>Video</h1>" in page
        form = page[page.index("<form", page.index('id="post-object-form"')) :]
        fields = dict(re.findall(r'<input\s+name="(\w+)"[^>]*value="([^"]*)"', form))
        assert fields == dict.fromkeys(["url", "fps", "start", "end", "link_ip"], "") | {"quality": "best", "wait": "0"}
        known_info()
        answer = api.client.post("/api/v1/video", {**fields, "url": VIDEO_ID, "format": "mp4"})
        assert answer.json()["job"]["state"] == "queued"

    def test_an_error_can_be_browsed(self, api, client):
        response = client.get("/api/v1/info", headers={"Accept": "text/html"})
        assert response.status_code == 401
        assert "key_missing" in response.content.decode()


def test_the_schema_is_made_once_because_anybody_may_ask(client, monkeypatch):
    """Making it takes a tenth of a second of the processor each time, as YAML a whole one."""
    first = client.get("/api/schema")
    monkeypatch.setattr("drf_spectacular.generators.SchemaGenerator.get_schema", None)
    again = client.get("/api/schema")
    assert (again.status_code, again.content) == (200, first.content)
