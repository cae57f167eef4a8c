from __future__ import annotations

import pytest
from django.test import Client

from apps.core.wake import publish
from apps.keys.documents import ApiKey
from apps.keys.limits import FAILURES_PER_MINUTE
from apps.keys.services import create_key, revoke_key
from tests.urls_for_tests import Waiting
from tests.waiting import wait_until

pytestmark = [pytest.mark.urls("tests.urls_for_tests"), pytest.mark.usefixtures("mongo", "redis_server")]


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


class TestApiKeyAuthentication:
    @pytest.mark.parametrize("way", ["header", "bearer", "query"])
    def test_takes_the_key_in_three_ways(self, client, way):
        new = create_key(name="bot")
        headers = {"header": {"X-API-Key": new.key}, "bearer": {"Authorization": f"Bearer {new.key}"}, "query": {}}[way]
        answer = client.get("/api/keyed", {"api_key": new.key} if way == "query" else {}, headers=headers)
        assert (answer.status_code, answer.json()["user"]) == (200, new.document.prefix)

    def test_counts_each_request_once_and_says_so_on_every_answer(self, client):
        key = create_key(name="bot", limit_per_hour=3).key
        answers = [
            client.get("/api/keyed", headers={"X-API-Key": key}),
            client.get("/api/admin", headers={"X-API-Key": key}),
            client.delete("/api/keyed", headers={"X-API-Key": key}),
            client.get("/api/keyed", headers={"X-API-Key": key}),
        ]
        assert [answer.status_code for answer in answers] == [200, 403, 405, 429]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"3"}
        assert answers[3].headers["Retry-After"] == answers[3].headers["RateLimit-Reset"]
        assert answers[3].json()["error"] == "rate_limited"

    def test_a_fault_of_ours_carries_the_limit_as_well(self, client):
        key = create_key(name="bot").key
        answer = client.get("/api/fail/unknown", headers={"X-API-Key": key})
        assert (answer.status_code, answer.headers["RateLimit-Remaining"]) == (500, "999")

    def test_says_how_to_sign_in_when_the_key_is_missing_or_wrong(self, client):
        for headers, code in (({}, "key_missing"), ({"X-API-Key": "nonsense"}, "key_invalid")):
            answer = client.get("/api/keyed", headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (401, code)
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="ytserver"'
            assert "RateLimit-Limit" not in answer.headers

    def test_a_revoked_key_is_switched_off(self, client):
        new = create_key(name="bot")
        revoke_key(new.document.prefix)
        answer = client.get("/api/keyed", headers={"X-API-Key": new.key})
        assert (answer.status_code, answer.json()["error"]) == (403, "key_disabled")

    def test_a_public_view_knows_a_good_key_and_needs_none_but_refuses_a_bad_one(self, client):
        new = create_key(name="bot")
        assert client.get("/api/public").json() == {"user": None}
        assert client.get("/api/public", headers={"X-API-Key": new.key}).json() == {"user": new.document.prefix}
        assert client.get("/api/public", headers={"X-API-Key": "x"}).status_code == 401

    def test_who_keeps_guessing_is_held_back_and_good_keys_go_on(self, client):
        for _ in range(FAILURES_PER_MINUTE):
            assert client.get("/api/keyed", headers={"X-API-Key": "guess"}).status_code == 401
        answer = client.get("/api/keyed", headers={"X-API-Key": "guess"})
        assert (answer.status_code, answer.json()["error"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
        assert client.get("/api/keyed").status_code == 429
        assert client.get("/api/keyed", headers={"X-API-Key": create_key(name="b").key}).status_code == 200

    def test_a_forwarded_address_is_not_believed(self, client):
        for number in range(FAILURES_PER_MINUTE + 1):
            answer = client.get("/api/keyed", headers={"X-Forwarded-For": f"192.0.2.{number}"})
        assert answer.status_code == 429

    def test_notes_when_the_key_was_last_used(self, client):
        new = create_key(name="bot")
        client.get("/api/keyed", headers={"X-API-Key": new.key})
        wait_until(lambda: ApiKey.objects.get(prefix=new.document.prefix).last_used_at is not None)
        first = ApiKey.objects.get(prefix=new.document.prefix).last_used_at
        client.get("/api/keyed", headers={"X-API-Key": new.key})
        assert ApiKey.objects.get(prefix=new.document.prefix).last_used_at == first


class TestHasScope:
    def test_asks_for_the_views_scope(self, client):
        plain, admin = create_key(name="a").key, create_key(name="b", scopes=("admin",)).key
        answer = client.get("/api/admin", headers={"X-API-Key": plain})
        assert (answer.status_code, answer.json()["error"]) == (403, "scope_missing")
        assert client.get("/api/admin", headers={"X-API-Key": admin}).status_code == 200


class TestSuspendedWithoutTheBridge:
    def test_runs_again_until_ready_and_is_charged_once(self, client, monkeypatch):
        import threading

        monkeypatch.setattr(Waiting, "runs", 0)
        monkeypatch.setattr(Waiting, "ready", False)
        key = create_key(name="bot", limit_per_hour=10).key
        answers = []

        def ask() -> None:
            headers = {"X-API-Key": key}
            answers.append(client.post("/api/waiting", {"a": 1}, content_type="application/json", headers=headers))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: Waiting.runs >= 1)
        monkeypatch.setattr(Waiting, "ready", True)
        publish("keys-test")
        thread.join(timeout=60)
        assert answers[0].json()["runs"] >= 2
        assert answers[0].headers["RateLimit-Remaining"] == "9"
        assert "X-Ytserver-Suspend" not in answers[0].headers

    def test_a_key_revoked_while_it_waits_is_refused(self, client, monkeypatch):
        monkeypatch.setattr(Waiting, "runs", 0)
        monkeypatch.setattr(Waiting, "ready", False)
        new = create_key(name="bot")
        revoke = Waiting.post

        def post(self, request):
            if Waiting.runs == 1:
                revoke_key(new.document.prefix)
            return revoke(self, request)

        monkeypatch.setattr(Waiting, "post", post)
        headers = {"X-API-Key": new.key}
        answer = client.post("/api/waiting", {"a": 1}, content_type="application/json", headers=headers)
        assert answer.json()["error"] == "key_disabled"
