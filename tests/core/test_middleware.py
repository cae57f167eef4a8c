from __future__ import annotations

import re

import pytest
from django.test import Client

from apps.core.logs import request_id_var
from apps.core.middleware import request_id_from
from apps.keys.services import create_key

pytestmark = [pytest.mark.urls("tests.urls_for_tests"), pytest.mark.usefixtures("mongo", "redis_server")]


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


class TestRequestId:
    @pytest.mark.parametrize(
        "given", [None, "", "short", "x" * 65, "has space 12", "new\nline-1234", "ünï-12345678", 'q"uote-1234']
    )
    def test_makes_a_new_one_when_the_callers_is_missing_or_odd(self, given):
        assert re.fullmatch("[0-9a-f]{32}", request_id_from(given))

    def test_keeps_a_harmless_one(self):
        assert request_id_from("trace-1.2_3") == "trace-1.2_3"

    def test_is_on_every_answer_and_forgotten_afterwards(self, client):
        assert client.get("/who", headers={"X-Request-Id": "trace-123"}).headers["X-Request-Id"] == "trace-123"
        assert len(client.get("/nothing").headers["X-Request-Id"]) == 32
        assert request_id_var.get() == ""


class TestAccessLog:
    def test_one_line_a_request_with_route_and_key_prefix_and_no_query(self, client, caplog):
        new = create_key(name="bot")
        with caplog.at_level("INFO", logger="ytserver.access"):
            client.get("/api/keyed", {"api_key": new.key})
        lines = [record for record in caplog.records if record.name == "ytserver.access"]
        assert len(lines) == 1
        line = lines[0]
        assert (line.method, line.path, line.route, line.status) == ("GET", "/api/keyed", "api/keyed", 200)
        assert line.key_prefix == new.document.prefix
        assert line.duration_ms >= 0
        assert new.key not in str(line.__dict__)


class TestSecurityHeaders:
    @pytest.mark.parametrize("path", ["/who", "/nothing", "/fail/unknown", "/api/keyed", "/api/public"])
    def test_are_on_every_answer(self, client, path):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"

    def test_the_browsable_api_runs_no_inline_script(self, client):
        page = client.get("/api/public", headers={"Accept": "text/html"}).content.decode()
        scripts = re.findall(r"<script\b([^>]*)>", page)
        assert scripts
        assert all("src=" in script or 'type="application/json"' in script for script in scripts)
        assert not re.search(r"\son[a-z]+=", page)
        assert "javascript:" not in page
