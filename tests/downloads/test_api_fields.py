import json

import pytest

from apps.downloads.documents import MediaJob
from apps.keys.services import create_key
from tests.downloads.conftest import Api
from tests.downloads.library import VIDEO_ID, known_info

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def assert_refused(response, status, code, parameter=None):
    body = response.json()
    assert (response.status_code, body["error"]) == (status, code)
    assert body["status"] is False
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["retryable"] is False
    assert body["request_id"] == response.headers["X-Request-Id"]
    if parameter is not None:
        assert body["parameter"] == parameter


class TestQueries:
    @pytest.mark.parametrize("route", ["info", "video", "audio"])
    @pytest.mark.parametrize(
        ("query", "parameter"),
        [
            ("", "url"),
            ("url=", "url"),
            ("url=%00", "url"),
            (f"url={VIDEO_ID}&url={VIDEO_ID}", "url"),
            (f"url={VIDEO_ID}&colour=red", "colour"),
            (f"url={VIDEO_ID}&URL=x", "URL"),
            (f"url={VIDEO_ID}&=x", ""),
            (f"url={VIDEO_ID}&%F0%9F%98%80=x", "\\U0001f600"),
        ],
    )
    def test_a_wrong_field_is_named(self, api, route, query, parameter):
        assert_refused(api.client.get(f"/api/v1/{route}?{query}"), 400, "invalid_parameter", parameter)

    @pytest.mark.parametrize("route", ["video", "audio"])
    @pytest.mark.parametrize("wait", ["-1", "31", "1.5", "nan", "inf", "", "x", "9" * 5000, "0x1"])
    def test_wait_is_a_whole_number_from_0_to_30(self, api, route, wait):
        assert_refused(api.get(route, url=VIDEO_ID, wait=wait), 400, "invalid_parameter", "wait")

    @pytest.mark.parametrize(
        ("route", "fields", "message"),
        [
            ("video", {"url": VIDEO_ID, "wait": "-1"}, "wait: must be at least 0"),
            ("video", {"url": VIDEO_ID, "fps": "241"}, "fps: must be at most 240"),
            ("batch", {"urls": []}, "urls: must have at least 1 entry"),
            ("batch", {"urls": ["a"] * 51}, "urls: must have at most 50 entries"),
            ("batch", {"urls": ["a", "x" * 5000]}, "urls: must have at most 2048 characters"),
        ],
    )
    def test_bounds_are_told_in_simple_words(self, api, route, fields, message):
        response = api.post(route, fields) if route == "batch" else api.get(route, **fields)
        assert (response.status_code, response.json()["message"]) == (400, message)

    @pytest.mark.parametrize("quality", ["", "worst", "0", "-1", "1080pp", "1e3", "100000", "10\n80", "٣٦٠"])
    def test_quality_is_best_or_a_height(self, api, quality):
        assert_refused(api.get("video", url=VIDEO_ID, quality=quality), 400, "invalid_parameter", "quality")

    def test_formats_are_those_we_make(self, api):
        assert_refused(api.get("audio", url=VIDEO_ID, format="wav"), 400, "invalid_parameter", "format")
        assert_refused(api.get("video", url=VIDEO_ID, format="webm"), 400, "invalid_parameter", "format")

    @pytest.mark.parametrize(
        ("route", "name", "value"),
        [
            ("video", "container", "avi"), ("video", "codec", "hevc"), ("video", "fps", "0"), ("video", "fps", "x"),
            ("video", "start", "-1"), ("video", "end", "nan"), ("video", "start", "inf"), ("audio", "bitrate", "123"),
            ("audio", "tags", "perhaps"), ("audio", "container", "mp4"), ("video", "tags", "1"),
            ("audio", "end", "1e9"),
        ],
    )  # fmt: skip
    def test_options_are_those_we_know(self, api, route, name, value):
        assert_refused(api.get(route, url=VIDEO_ID, **{name: value}), 400, "invalid_parameter", name)

    @pytest.mark.parametrize(
        ("route", "wish", "variant"),
        [
            ("audio", {"format": "mp3", "bitrate": "192"}, "mp3-192"), ("audio", {"tags": "1"}, "m4a.tags"),
            ("audio", {"format": "flac", "start": "10", "end": "20.5"}, "flac.clip-10000-20500"),
            ("video", {"quality": "720", "container": "mkv", "codec": "any"}, "720p.mkv"),
        ],
    )  # fmt: skip
    def test_options_make_a_file_of_their_own(self, api, route, wish, variant):
        known_info()
        answer = api.get(route, url=VIDEO_ID, **wish).json()
        assert (answer["quality"], answer["job"]["state"]) == (variant, "queued")
        assert answer["container"] in {"mp3", "m4a", "flac", "mkv"}

    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/watch?v=dQw4w9WgXcQ",
            "http://127.0.0.1:8000/",
            "file:///etc/passwd",
            "https://www.youtube.com/",
            "https://www.youtube.com/playlist?list=PLabc",
            "dQw4w9WgXc",
            "dQw4w9WgXcQQ",
            "x" * 5000,
            "javascript:alert(1)",
            "https://youtube.com@evil.example/watch?v=dQw4w9WgXcQ",
        ],
    )
    @pytest.mark.parametrize("route", ["info", "video", "audio"])
    def test_a_link_to_something_else_is_invalid(self, api, route, url):
        assert_refused(api.get(route, url=url), 400, "invalid_url")

    def test_nothing_is_started_for_a_refused_request(self, api):
        known_info()
        api.get("video", url=VIDEO_ID, colour="red")
        assert MediaJob.objects.count() == 0

    def test_the_key_may_be_in_the_query(self, api):
        known_info()
        assert api.get("info", url=VIDEO_ID, api_key=api.key).status_code == 200


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            ("", JSON),
            ("{", JSON),
            ("[]", JSON),
            ("null", JSON),
            ('"text"', JSON),
            ("[" * 30_000, JSON),
            ('{"url": NaN}', JSON),
            (b"\xff\xfe", JSON),
            ('{"url": ["dQw4w9WgXcQ"]}', JSON),
            ('{"url": {"a": 1}}', JSON),
            ('{"url": null}', JSON),
            ('{"url": true}', JSON),
            ('{"url": "\\ud800"}', JSON),
            ('{"\\ud800": 1, "url": "dQw4w9WgXcQ"}', JSON),
            ('{"url": "dQw4w9WgXcQ", "wait": 1e400}', JSON),
            ('{"url": "dQw4w9WgXcQ", "wait": []}', JSON),
            ('{"url": "dQw4w9WgXcQ", "wait": ' + "9" * 5000 + "}", JSON),
            ("url=dQw4w9WgXcQ&url=dQw4w9WgXcQ", FORM),
            ("colour=red", FORM),
            ("--x\r\nbroken", "multipart/form-data; boundary=x"),
            ("--x\r\nbroken", "multipart/form-data"),
        ],
    )
    def test_a_body_that_makes_no_sense_is_refused(self, api, body, content_type):
        assert_refused(api.post("video", body, content_type), 400, "invalid_parameter")

    def test_an_unknown_type_of_body_is_refused(self, api):
        assert_refused(api.post("video", "<x/>", "application/xml"), 415, "unsupported_media_type")

    def test_a_huge_body_is_refused(self, api):
        body = json.dumps({"url": VIDEO_ID, "pad": "x" * 70_000})
        assert_refused(api.post("video", body), 413, "too_large")

    def test_the_body_wins_over_the_query(self, api):
        known_info()
        response = api.post("info?url=wrong", {"url": VIDEO_ID})
        assert (response.status_code, response.json()["video_id"]) == (200, VIDEO_ID)


class TestKeys:
    @pytest.mark.parametrize("route", ["info", "video", "audio", "cache/stats", "jobs", "jobs/abc"])
    def test_every_route_but_status_needs_one(self, api, client, route):
        response = client.get(f"/api/v1/{route}")
        assert_refused(response, 401, "key_missing")
        assert response.headers["WWW-Authenticate"]

    def test_the_limit_is_told_with_every_answer_and_holds(self, api):
        small = Api(create_key(name="small", limit_per_hour=2).key)
        answers = [small.get("audio") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [400, 400, 429]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
        assert all(answer.headers["RateLimit-Limit"] == "2" for answer in answers)
        assert answers[2].json()["error"] == "rate_limited"
        assert int(answers[2].headers["Retry-After"]) > 0
