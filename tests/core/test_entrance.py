from __future__ import annotations

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from channels.layers import get_channel_layer
from django.conf import settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from apps.core.bridge import MOST_THREADS
from apps.keys.limits import FAILURES_PER_MINUTE
from apps.keys.services import create_key
from tests.core.serving import serving
from tests.core.subscriptions import subscriptions
from tests.waiting import wait_until
from ytserver.asgi import application
from ytserver.entrance import Entrance

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")


@pytest.fixture
def url():
    with serving(application, ws="websockets-sansio") as address:
        yield address


def raw_status(url: str, request: bytes) -> bytes:
    """The status line that a raw request gets; empty when the connection is only closed."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as client:
        client.sendall(request)
        return client.makefile("rb").readline()


class TestEntrance:
    def test_every_part_answers(self, url):
        with httpx.Client(base_url=url, headers={"X-API-Key": create_key(name="bot").key}, timeout=60) as client:
            assert client.get("/healthz").json() == {"status": True}
            assert client.get("/readyz").json()["status"] is True
            for host in ("10.1.2.3", "balancer_7!"):  # whatever name a load balancer's health check sends
                checks = [
                    client.get(path, headers={"Host": host}) for path in ("/healthz", "/readyz", "/api/v1/status")
                ]
                assert [check.status_code for check in checks] == [200, 200, 400]
            status = client.get("/api/v1/status")
            assert (status.status_code, status.headers["RateLimit-Limit"]) == (200, "1000")
            assert client.get("/stream/video/dQw4w9WgXcQ", headers={"X-API-Key": "x"}).json()["error"] == "key_invalid"
            assert client.get("/nothing").json()["error"] == "not_found"
            assert client.get("/static/rest_framework/js/csrf.js").status_code == 200

    def test_behind_a_proxy_callers_are_told_apart(self, url, monkeypatch):
        env = settings.ENV.model_copy(update={"trusted_proxies": (ip_network("127.0.0.0/8"),)})
        monkeypatch.setattr(settings, "ENV", env)
        with httpx.Client(base_url=url, timeout=60) as client:
            for path in ("/api/v1/info", "/stream/video/dQw4w9WgXcQ"):
                guesser, other = (
                    {"X-Forwarded-For": f"6.6.6.6, {address}"} for address in ("203.0.113.1", "203.0.113.2")
                )
                answers = [client.get(path, headers=guesser).status_code for _ in range(FAILURES_PER_MINUTE + 1)]
                assert answers[-1] == 429
                assert client.get(path, headers=other).status_code == 401

    def test_unknown_websockets_are_refused_cleanly(self, url):
        with pytest.raises(InvalidStatus) as refused, connect(url.replace("http", "ws") + "/ws/nothing"):
            pass
        assert refused.value.response.status_code == 403

    async def test_waiting_for_channel_messages_is_not_cut_off_by_the_connection(self):
        layer = get_channel_layer()
        connection = layer.connection(0).connection_pool.make_connection()
        assert connection.socket_timeout > layer.brpop_timeout

    @pytest.mark.parametrize(
        "request_line",
        [
            b"GET /api/v1/info?url=%ff%fe HTTP/1.1",
            b"GET /api/v1/info?url=\xff\xfe HTTP/1.1",
            b"GET /%00%ff/..%2f HTTP/1.1",
            b"GET //evil.example/ HTTP/1.1",
            b"GET /api/v1/jobs/" + b"a" * 5000 + b" HTTP/1.1",
            b"GET /api/v1/info?" + b"a&" * 3000 + b" HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"NONSENSE /api/v1/info HTTP/1.1",
            b"GET /api/v1/info HTTP/1.0",
        ],
    )
    def test_odd_requests_get_an_answer_and_never_a_500(self, url, request_line):
        status = raw_status(url, request_line + b"\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 4"), status

    @pytest.mark.parametrize(
        "header", [b"Host: evil.example", b"Host: ", b"Host: [::1", b"X-API-Key: \xff\xfe", b"Cookie: \xff=\x01"]
    )
    def test_odd_headers_neither(self, url, header):
        host = b"" if header.startswith(b"Host") else b"Host: 127.0.0.1\r\n"
        status = raw_status(url, b"GET /api/v1/info HTTP/1.1\r\n" + host + header + b"\r\nConnection: close\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 4"), status

    def test_a_forwarded_address_does_not_help_who_guesses_keys(self, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            for number in range(FAILURES_PER_MINUTE + 1):
                answer = client.get(
                    "/api/v1/info?url=x", headers={"X-API-Key": "x", "X-Forwarded-For": f"192.0.2.{number}"}
                )
        assert answer.status_code == 429

    def test_stops_and_leaves_no_connection_behind(self):
        with serving(application) as url:
            httpx.get(f"{url}/healthz", timeout=60)
        wait_until(lambda: subscriptions() == [])  # Redis itself takes a moment to notice what was closed


class Holding:
    """A WSGI application that holds every request below ``path`` until ``go_on``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.go_on = threading.Event()
        self.held = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"].startswith(self.path):
            self.held += 1
            self.go_on.wait(100)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


class TestThreads:
    @pytest.mark.parametrize(
        ("busy", "free"),
        [
            ("/api/", ["/admin", "/admin/login", "/static/css/app.css"]),
            ("/admin/", ["/api/v1/status", "/readyz", "/administrators"]),
        ],
    )
    def test_the_admin_and_the_api_do_not_wait_for_each_other(self, busy, free):
        django = Holding(busy)
        with serving(Entrance(django)) as url, ThreadPoolExecutor(MOST_THREADS + 3) as callers:
            try:
                answers = [callers.submit(httpx.get, f"{url}{busy}", timeout=90) for _ in range(MOST_THREADS + 3)]
                wait_until(lambda: django.held == MOST_THREADS)
                for path in free:
                    assert httpx.get(url + path, timeout=60).text == "ok", path
                assert django.held == MOST_THREADS
            finally:
                django.go_on.set()
            assert {answer.result().text for answer in answers} == {"ok"}


class TestStartUp:
    def test_the_web_process_does_not_load_what_only_others_need(self):
        program = (
            "import sys, ytserver.asgi; from django.urls import get_resolver; get_resolver().url_patterns;"
            "print([name for name in ('yt_dlp', 'daphne', 'playwright') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_the_development_server_has_daphne(self):
        program = (
            "import sys; sys.argv = ['manage.py', 'runserver']; import ytserver.settings as s; print(*s.INSTALLED_APPS)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("daphne ")
