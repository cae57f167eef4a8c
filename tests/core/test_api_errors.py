from __future__ import annotations

import socket

import pymongo
import pytest
import redis
from django.test import Client
from django_redis.exceptions import ConnectionInterrupted
from rest_framework import exceptions as drf

from apps.core import errors
from apps.core.api_errors import handle_exception, to_api_error
from apps.core.redis import redis_client
from apps.keys.documents import Role
from apps.keys.services import create_key, create_user
from tests.full_redis import full_redis

pytestmark = [pytest.mark.urls("tests.urls_for_tests"), pytest.mark.usefixtures("mongo", "redis_server")]
FIELDS = {"status", "error", "message", "retryable", "request_id"}


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture
def keyed(client) -> Client:
    return Client(raise_request_exception=False, headers={"X-API-Key": create_key(name="bot").key})


class TestInsideRestFramework:
    @pytest.mark.parametrize(
        ("name", "status", "code"),
        [
            ("drm", 422, "drm_protected"),
            ("limited", 429, "rate_limited"),
            ("mongo", 503, "not_ready"),
            ("unknown", 500, "internal_error"),
            ("denied", 403, "scope_missing"),
            ("suspicious", 400, "invalid_parameter"),
        ],
    )
    def test_every_failure_is_the_documented_json_and_tells_nothing_secret(self, client, name, status, code):
        for address in (f"/api/fail/{name}", f"/fail/{name}"):
            answer = client.get(address, headers={"X-Request-Id": "req-12345678"})
            body = answer.json()
            assert (answer.status_code, body["error"], body["status"]) == (status, code, False)
            assert body.keys() == FIELDS
            assert body["request_id"] == answer.headers["X-Request-Id"] == "req-12345678"
            assert b"secret" not in answer.content
            assert answer.headers["Cache-Control"] == "no-store"

    def test_says_when_to_come_back_in_whole_seconds(self, client):
        assert client.get("/api/fail/limited").headers["Retry-After"] == "2"

    def test_the_log_knows_the_fault_that_the_caller_does_not_see(self, client, caplog):
        client.get("/api/fail/unknown", headers={"X-Request-Id": "req-12345678"})
        record = next(record for record in caplog.records if record.message == "unhandled error")
        assert record.exc_info[0].__name__ == "Quiet"

    @pytest.mark.parametrize(
        ("body", "content_type", "status", "code"),
        [
            (b"{not json", "application/json", 400, "invalid_parameter"),
            (b"\xff\xfe", "application/json", 400, "invalid_parameter"),
            (b"[1]", "application/json", 400, "invalid_parameter"),
            (b'{"number": "x"}', "application/json", 400, "invalid_parameter"),
            (b"", "application/json", 400, "invalid_parameter"),
            (b"number=1", "text/csv", 415, "unsupported_media_type"),
            (b"--x\r\nbroken", "multipart/form-data", 400, "invalid_parameter"),
            (b"number=1", "multipart/form-data; boundary=\x00", 400, "invalid_parameter"),
            (b"[" * 60_000, "application/json", 400, "invalid_parameter"),
        ],
    )
    def test_a_body_that_makes_no_sense(self, keyed, body, content_type, status, code):
        answer = keyed.post("/api/keyed", body, content_type=content_type)
        assert (answer.status_code, answer.json()["error"]) == (status, code)

    def test_a_wrong_field_is_named(self, keyed):
        body = keyed.post("/api/keyed", {"number": "x"}, content_type="application/json").json()
        assert body["parameter"] == "number"
        assert body["message"] == "number: A valid integer is required."

    def test_a_body_beyond_64_kb_is_too_large(self, keyed):
        answer = keyed.post("/api/keyed", b"x" * 65537, content_type="application/json")
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")

    def test_a_wrong_method_says_which_work(self, keyed):
        answer = keyed.patch("/api/keyed")
        assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, POST, HEAD, OPTIONS"

    def test_an_answer_nobody_can_give_is_not_acceptable(self, keyed):
        answer = keyed.get("/api/keyed", headers={"Accept": "application/xml"})
        assert (answer.status_code, answer.json()["error"]) == (406, "not_acceptable")

    def test_people_see_the_error_in_the_browsable_api(self, client):
        answer = client.get("/api/keyed", headers={"Accept": "text/html"})
        assert answer.status_code == 401
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "key_missing" in answer.content.decode()
        assert redis_client().hget("yt:refused:127.0.0.1", "total") == b"1"  # counted once, however the page is made


class TestOutsideRestFramework:
    def test_an_unknown_address_is_json_for_programs_and_a_page_for_people(self, client):
        assert client.get("/api/nothing", headers={"Accept": "text/html"}).json()["error"] == "not_found"
        assert client.get("/nothing").json()["error"] == "not_found"
        page = client.get("/nothing", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert "There is nothing here." in page.content.decode()

    @pytest.mark.parametrize("debug", [True, False])
    def test_a_fault_is_opaque_with_debug_on_as_well(self, client, settings, debug):
        settings.DEBUG = debug
        page = client.get("/fail/unknown", headers={"Accept": "text/html"})
        assert page.status_code == 500
        assert b"secret" not in page.content
        assert b"Traceback" not in page.content
        assert page.headers["Content-Security-Policy"]

    def test_a_form_from_elsewhere_is_refused(self):
        strict = Client(enforce_csrf_checks=True, raise_request_exception=False)
        answer = strict.post("/form", {"a": 1})
        assert (answer.status_code, answer.json()["error"]) == (403, "scope_missing")
        assert strict.post("/form", {"a": 1}, headers={"Accept": "text/html"}).content.startswith(b"<!doctype html>")

    def test_an_unknown_host_is_refused(self, client):
        answer = client.get("/who", headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")

    def test_a_large_form_is_too_large(self, client):
        answer = client.post("/form", {"a": "x" * 70_000}, content_type="application/x-www-form-urlencoded")
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")

    def test_very_many_fields_are_too_large(self, client):
        answer = client.post(
            "/form", "&".join(f"a{n}=" for n in range(2000)), content_type="application/x-www-form-urlencoded"
        )
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


class TestServicesThatAreDown:
    def test_what_the_drivers_really_raise_is_not_ready(self):
        raised: list[Exception] = []
        with pymongo.MongoClient(port=1, serverSelectionTimeoutMS=50) as mongo, pytest.raises(Exception) as mongo_down:  # noqa: PT011 - which class it is, is the question
            mongo.admin.command("ping")
        raised.append(mongo_down.value)
        with pytest.raises(Exception) as refused:  # noqa: PT011
            redis.Redis(port=1, retry=None).ping()
        raised.append(refused.value)
        with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(Exception) as silent:  # noqa: PT011
            redis.Redis(host="127.0.0.1", port=mute.getsockname()[1], socket_timeout=0.1, retry=None).ping()
        raised += [silent.value, ConnectionInterrupted(connection=None)]
        assert [type(to_api_error(error)).code for error in raised] == ["not_ready"] * 4

    def test_redis_that_takes_no_more_is_not_ready(self):
        with full_redis() as full, pytest.raises(redis.RedisError) as refused:
            full.set("anything", 1)
        assert isinstance(to_api_error(refused.value), errors.NotReady)
        assert to_api_error(redis.ResponseError("WRONGTYPE Operation against a key")) is None

    def test_a_session_that_cannot_be_written_is_not_ready_and_no_fault(self, client, monkeypatch):
        def down(*args, **kwargs):
            raise ConnectionInterrupted(connection=None)

        create_user(username="ada", password="correct horse battery", role=Role.OWNER)
        for method in ("get", "add", "set", "delete"):
            monkeypatch.setattr(f"django_redis.cache.RedisCache.{method}", down)
        answer = client.get("/sign-in", {"name": "ada"})
        assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")


class TestToApiError:
    @pytest.mark.parametrize(
        "error",
        [
            subclass()
            for subclass in drf.APIException.__subclasses__()
            if subclass not in {drf.MethodNotAllowed, drf.UnsupportedMediaType}
        ],
    )
    def test_every_exception_of_rest_framework_has_a_code(self, error):
        assert to_api_error(error) is not None

    def test_an_exception_of_python_has_none(self):
        assert to_api_error(ValueError("x")) is None
        assert to_api_error(TimeoutError()) is None

    def test_an_error_of_ours_stays_itself_with_its_headers_and_context(self):
        error = errors.NotFound("No such job.", job="x")
        assert to_api_error(error) is error

    def test_the_handler_needs_a_request_only(self, rf):
        from rest_framework.request import Request

        answer = handle_exception(errors.NotFound(), {"request": Request(rf.get("/"))})
        assert answer.status_code == 404
