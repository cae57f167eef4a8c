"""What browsers are told: which other sites may read answers (CORS, by key), and the headers that keep pages safe."""

from __future__ import annotations

import time

import httpx
import pytest

from apps.core.errors import InvalidParameter
from apps.keys import cors
from apps.keys.authentication import forget_cached_keys
from apps.keys.changes import update_key
from apps.keys.services import create_key
from apps.streaming.links import sign_link
from apps.telegram_cache.documents import AssetKey, MediaKind
from tests.core.serving import serving
from tests.downloads.library import CONTENT, VIDEO_ID, known_info, put_hot
from tests.waiting import wait_until
from ytserver.asgi import application

SITE, OTHER = "https://app.example.com", "https://elsewhere.example"
AUDIO = AssetKey(VIDEO_ID, MediaKind.AUDIO, "m4a")


@pytest.fixture(scope="module")
def url():
    with serving(application) as address:
        yield address


@pytest.fixture
def stored(mongo, redis_server, hot_root, monkeypatch):
    monkeypatch.setattr(cors, "MAX_AGE_S", 0.0)
    forget_cached_keys()
    known_info()
    put_hot(AUDIO)


@pytest.fixture
def key(stored) -> str:
    return create_key(name="site", allowed_origins=[SITE]).key


def ask(url: str, path: str, key: str = "", origin: str = SITE, **headers: str) -> httpx.Response:
    headers = {"Origin": origin, **({"X-API-Key": key} if key else {}), **headers}
    return httpx.get(url + path, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=60)


def preflight(url: str, path: str, origin: str) -> httpx.Response:
    asks = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    return httpx.options(url + path, headers=asks, timeout=60)


class TestCors:
    @pytest.mark.parametrize("path", [f"/api/v1/audio?url={VIDEO_ID}", f"/stream/audio/{VIDEO_ID}", "/api/v1/status"])
    def test_only_the_origins_of_the_key_may_read(self, url, key, path):
        answer = ask(url, path, key)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Origin" not in ask(url, path, key, OTHER).headers
        another = create_key(name="another").key
        assert "Access-Control-Allow-Origin" not in ask(url, path, another).headers

    def test_a_signed_link_counts_as_its_key(self, url, key):
        path = f"/stream/audio/{VIDEO_ID}"
        link = sign_link(
            path=path, asset_id=AUDIO.asset_id, key_prefix=key[3:11], expires_at=int(time.time()) + 60, attachment=False
        )
        answer = ask(url, link[link.index("/stream") :], Range="bytes=5-9")
        assert (answer.status_code, answer.content) == (206, CONTENT[5:10])
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        exposed = answer.headers["Access-Control-Expose-Headers"]
        for name in ("Content-Range", "Accept-Ranges", "Content-Length", "ETag", "RateLimit-Remaining"):
            assert name in exposed

    def test_a_preflight_is_answered_without_a_key(self, url, key):
        for path in ("/api/v1/audio", f"/stream/audio/{VIDEO_ID}"):
            answer = preflight(url, path, SITE)
            assert answer.status_code == 204
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            for name in ("X-API-Key", "Range", "If-Range", "If-Match", "Authorization"):
                assert name in answer.headers["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Origin" not in preflight(url, path, OTHER).headers

    def test_a_page_of_a_known_site_may_read_why_it_was_refused(self, url, key):
        answer = ask(url, "/api/v1/audio")
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, SITE)
        assert "Access-Control-Allow-Origin" not in ask(url, "/api/v1/audio", origin=OTHER).headers

    def test_a_star_is_everybody_and_the_admin_is_nobody(self, url, stored):
        key = create_key(name="open", allowed_origins=["*"]).key
        assert ask(url, "/api/v1/status", key, OTHER).headers["Access-Control-Allow-Origin"] == OTHER
        assert "Access-Control-Allow-Origin" not in ask(url, "/admin/login", key, OTHER).headers

    def test_a_change_counts_within_a_moment(self, url, key, monkeypatch):
        monkeypatch.setattr(cors, "MAX_AGE_S", 0.8)
        wait_until(lambda: "Access-Control-Allow-Origin" in ask(url, "/api/v1/status", key).headers, timeout_s=20)
        update_key(key[3:11], {"allowed_origins": []}, actor="test")
        wait_until(lambda: "Access-Control-Allow-Origin" not in ask(url, "/api/v1/status", key).headers, timeout_s=20)

    @pytest.mark.parametrize(
        "origin", ["app.example.com", "https://a b", "ftp://a", "https://a/path", "https://u@a", "null", "https://"]
    )
    def test_refuses_what_is_no_origin(self, stored, origin):
        with pytest.raises(InvalidParameter):
            create_key(name="x", allowed_origins=[origin])


@pytest.mark.parametrize(
    "path",
    ["/", "/admin/login", "/admin/", "/healthz", "/readyz", "/metrics", "/api/v1/", "/api/v1/audio", "/api/schema",
     "/api/v1/nothing", "/static/css/app.css", f"/stream/audio/{VIDEO_ID}", "/stream/nonsense", "/nothing", "KEYED"],
)  # fmt: skip
def test_every_answer_has_the_headers_that_keep_browsers_safe(url, key, path):
    path, headers = (f"/api/v1/audio?url={VIDEO_ID}", {"X-API-Key": key}) if path == "KEYED" else (path, {})
    answer = httpx.get(url + path, headers=headers, timeout=60)
    assert answer.status_code < 500
    for name, value in (
        ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "same-origin"),
    ):  # fmt: skip
        assert answer.headers.get_list(name) == [value], (path, name)
    if "text/html" in answer.headers.get("Content-Type", ""):
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    assert "Strict-Transport-Security" not in answer.headers


async def test_hsts_is_sent_over_https_only():
    from apps.core.answer_headers import AnswerHeaders

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"DENY")]})

    for scheme, expected in (("https", True), ("http", False)):
        sent = []

        async def send(message, sent=sent):
            sent.append(message)

        await AnswerHeaders(inner, hsts_s=100)({"type": "http", "scheme": scheme}, None, send)
        headers = dict(sent[0]["headers"])
        assert (headers.get(b"strict-transport-security") == b"max-age=100") == expected
        assert [name.lower() for name, _ in sent[0]["headers"]].count(b"x-frame-options") == 1
