"""The lane answers what Django would answer, and nothing that Django would not."""

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import httpx
import psutil
import pytest
from django.conf import settings as django_settings
from django.core.wsgi import get_wsgi_application
from pymongo.errors import OperationFailure
from redis.exceptions import ResponseError

from apps.analytics import events
from apps.analytics.documents import UsageEvent
from apps.core.errors import RateLimited
from apps.core.redis import redis_client
from apps.core.tunables import set_tunable
from apps.core.web_protocol import BoundedHttpProtocol
from apps.downloads import ready
from apps.downloads.documents import VideoInfoRecord
from apps.downloads.services import answers, cache_stats
from apps.downloads.services.media import hot_store
from apps.keys import key_cache, redis_loss
from apps.keys.authentication import authenticate, forget_cached_keys
from apps.keys.documents import ApiKey, Scope
from apps.keys.limits import charge
from apps.keys.services import create_key, revoke_key
from apps.telegram_cache.documents import Asset, AssetState
from tests.core.serving import serving
from tests.downloads.library import AUDIO, CONTENT, VIDEO, VIDEO_ID, known_info, put_hot, put_in_telegram
from tests.full_redis import full_redis
from tests.waiting import Clock, wait_until
from ytserver.entrance import Entrance
from ytserver.fast_lane import first_answers, till
from ytserver.fast_lane import lane as lane_module
from ytserver.fast_lane.reading import Reader
from ytserver.fast_lane.till import Till

LINK = f"https://youtu.be/{VIDEO_ID}"
WRONG_MONGODB_PASSWORD = OperationFailure("Authentication failed.", code=18)
CHANGING = {"date", "x-request-id", "ratelimit-remaining", "ratelimit-reset"}


def raising(error):
    def fail(*_arguments, **_named):
        raise error

    return fail


class Server:
    """The whole entrance in this process; ``in_django`` counts what got past the lane."""

    def __init__(self) -> None:
        self._wsgi = get_wsgi_application()
        self.in_django = 0
        self.entrance = Entrance(self._django)

    def _django(self, environ, start_response):
        self.in_django += 1
        return self._wsgi(environ, start_response)

    @asynccontextmanager
    async def client(self, key="", **headers):
        transport = httpx.ASGITransport(app=self.entrance)
        own = {"X-API-Key": key} if key else {}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://testserver", headers={**own, **headers}
        ) as it:
            yield it

    async def close(self):
        await self.entrance._running_parts().aclose()


@pytest.fixture(autouse=True)
def _everything(mongo, redis_server, hot_root, monkeypatch):
    env = django_settings.ENV.model_copy(update={"dialects": ("song", "track", "v2", "query"), "public_url": ""})
    monkeypatch.setattr(django_settings, "ENV", env)
    monkeypatch.setattr(answers, "time", Clock())  # the same second for both
    monkeypatch.setattr(redis_loss.health, "_away_until", 0.0)  # a test before may have lost Redis


@pytest.fixture
async def lane():
    server = Server()
    yield server
    await server.close()


@pytest.fixture
async def django(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(django_settings, "ENV", django_settings.ENV.model_copy(update={"fast_lane": False}))
        server = Server()
        server.entrance._running_parts()
    yield server
    await server.close()


@pytest.fixture
def key():
    return create_key(name="test", scopes=tuple(Scope)).key


def comparable(response):
    headers = sorted((name, value) for name, value in response.headers.multi_items() if name not in CHANGING)
    names = sorted(name for name in response.headers if name in CHANGING)
    body = re.sub(rb'"response_time":[0-9.e-]+', b'"response_time":0', response.content)
    body = re.sub(rb'"request_id":"[0-9a-f]+"', b'"request_id":""', body)
    headers = [(name, value) for name, value in headers if name != "content-length"]
    return response.status_code, body, headers, names


async def same_from_both(lane, django, key, method, path, **request):
    """Asks both; the lane twice, as it learns Django's headers from the first answer. Returns the lane's answer."""
    async with lane.client(key) as fast, django.client(key) as slow:
        await fast.request(method, path, **request)
        before = lane.in_django
        answer = await fast.request(method, path, **request)
        in_lane = lane.in_django == before
        other = await slow.request(method, path, **request)
    assert comparable(answer) == comparable(other)
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer, in_lane


def assert_counted_exactly(answers_):
    """These 80 came to a key with 50 an hour, one of which was used before."""
    statuses = [answer.status_code for answer in answers_]
    assert (statuses.count(200), statuses.count(429)) == (49, 31)
    left = sorted(int(a.headers["RateLimit-Remaining"]) for a in answers_ if a.status_code == 200)
    assert left == list(range(49))
    assert all("Retry-After" in a.headers for a in answers_ if a.status_code == 429)
    events.drain_events()
    assert UsageEvent.objects(status=200).count() == 50
    assert UsageEvent.objects(status=429).count() == 31


ASKS = [
    ("GET", f"/api/v1/audio?url={LINK}", {}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}&format=m4a", {}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}&wait=5", {}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}&quality=best&tags=false&bitrate=", {}),
    ("GET", f"/api/v1/video?url={VIDEO_ID}", {}),
    ("GET", f"/api/v1/video?url={VIDEO_ID}&quality=BEST&format=mp4&container=mp4", {}),
    ("GET", f"/api/v1/video?url={VIDEO_ID}&quality=1200", {}),
    ("GET", f"/api/v1/info?url={VIDEO_ID}", {}),
    ("POST", "/api/v1/audio", {"json": {"url": LINK}}),
    ("POST", f"/api/v1/video?url={VIDEO_ID}", {"json": {"quality": "1080p"}}),
    ("POST", "/api/v1/info", {"data": {"url": LINK}}),
    ("GET", f"/song/{VIDEO_ID}", {}),
    ("GET", f"/video/{VIDEO_ID}", {}),
    ("GET", f"/song/{VIDEO_ID}?api=ignored", {}),
    ("GET", f"/api/track?url={LINK}&video=True", {}),
    ("GET", f"/api/song?query={VIDEO_ID}", {}),
    ("GET", f"/youtube/v2/download?query={VIDEO_ID}&isVideo=false", {}),
]


@pytest.fixture
def library():
    put_hot(AUDIO)
    put_in_telegram(VIDEO)
    known_info()


@pytest.mark.usefixtures("library")
class TestAnswersFromTheLane:
    @pytest.mark.parametrize(("method", "path", "request_"), ASKS, ids=[f"{m} {p}" for m, p, _ in ASKS])
    async def test_are_those_of_django(self, lane, django, key, method, path, request_):
        answer, in_lane = await same_from_both(lane, django, key, method, path, **request_)
        assert answer.status_code == 200
        assert in_lane

    @pytest.mark.parametrize(
        ("limits", "path", "in_lane"),
        [
            ({"bind_links": True}, "audio", True),
            ({"bind_links": True}, "info", True),
            ({"largest_file_bytes": len(CONTENT)}, "video", True),
            ({"largest_file_bytes": len(CONTENT) - 1}, "video", False),
            ({"longest_video_s": 213}, "audio", True),
            ({"longest_video_s": 212}, "audio", False),
            ({"longest_video_s": 212}, "info", True),
        ],
    )
    async def test_keep_to_what_a_key_may_have(self, lane, django, key, limits, path, in_lane):
        narrow = create_key(name="narrow", scopes=tuple(Scope), **limits).key
        path = f"/api/v1/{path}?url={VIDEO_ID}"
        async with lane.client(key) as client:
            await client.get(path)  # the lane learns Django's headers
        answer, was_in_lane = await same_from_both(lane, django, narrow, "GET", path)
        assert was_in_lane == in_lane
        assert answer.status_code == (200 if in_lane else 403)
        assert ("&ip=127.0.0.1&" in answer.text) == ("bind_links" in limits and "/audio" in path)

    async def test_take_the_key_wherever_django_takes_it(self, lane, key):
        path = f"/api/v1/audio?url={VIDEO_ID}"
        async with lane.client() as client:
            await client.get(path, headers={"X-API-Key": key})
            assert (await client.get(f"{path}&api_key={key}")).status_code == 200
            assert (await client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code == 200
            await client.get(f"/song/{VIDEO_ID}?api={key}")
            before = lane.in_django
            assert (await client.get(f"/song/{VIDEO_ID}?api={key}")).json()["status"] == "done"
            assert lane.in_django == before == 2

    async def test_never_set_a_cookie_that_django_gave_somebody_else(self, lane, key, monkeypatch):
        usual = lane._wsgi

        def with_cookie(environ, start_response):
            def start(status, headers, exc_info=None):
                return start_response(status, [*headers, ("Set-Cookie", "sessionid=somebodys")], exc_info)

            return usual(environ, start)

        monkeypatch.setattr(lane, "_wsgi", with_cookie)
        async with lane.client(key) as somebody, lane.client(key) as somebody_else:
            first = await somebody.get(f"/api/v1/audio?url={LINK}")
            answer = await somebody_else.get(f"/api/v1/audio?url={LINK}")
        assert lane.in_django == 1
        assert first.headers["Set-Cookie"] == "sessionid=somebodys"
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (200, None)

    async def test_leave_one_event_each_with_the_same_fields(self, lane, django, key):
        path = f"/api/v1/audio?url={VIDEO_ID}"
        async with lane.client(key) as fast, django.client(key) as slow:
            await slow.get(path)
            for _ in range(5):
                await fast.get(path)
        assert lane.in_django == 1
        events.drain_events()
        found = [event.to_mongo().to_dict() for event in UsageEvent.objects]
        assert len(found) == 6
        assert len({tuple(sorted(event)) for event in found}) == 1
        alike = ("route", "method", "status", "key_prefix", "video_id", "asset_id", "tier")
        assert len({tuple(event[name] for name in alike) for event in found}) == 1
        assert found[0]["status"] == 200

    async def test_count_as_uses_of_the_asset_and_as_hits(self, lane, key):
        async with lane.client(key) as client:
            for _ in range(4):
                await client.get(f"/api/v1/audio?url={VIDEO_ID}")
        await lane.close()
        assert Asset.objects.get(id=AUDIO.asset_id).access_count == 4
        assert redis_client().hget(cache_stats.TIER_COUNTS, "hot") == b"4"

    @pytest.mark.parametrize("error", [WRONG_MONGODB_PASSWORD, ResponseError("MISCONF Redis cannot save.")])
    async def test_without_what_it_needs_to_know_django_answers(self, lane, key, monkeypatch, error):
        async with lane.client(key) as client:
            await client.get(f"/api/v1/audio?url={VIDEO_ID}")
            forget_cached_keys()
            with monkeypatch.context() as patch:
                patch.setattr(key_cache, "key_rows", raising(error))
                answer = await client.get(f"/api/v1/audio?url={VIDEO_ID}")
            assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")
            before = lane.in_django
            with monkeypatch.context() as patch:
                patch.setattr(lane_module, "look_up", raising(error))
                answer = await client.get(f"/api/v1/video?url={VIDEO_ID}")
            assert (answer.status_code, lane.in_django) == (200, before + 1)

    async def test_that_were_polled_for_count_as_fetched_once(self, lane, key):
        redis_client().set(f"yt:polled:{key[3:11]}:{AUDIO.asset_id}", 1)
        async with lane.client(key) as client:
            for _ in range(3):
                await client.get(f"/song/{VIDEO_ID}")
        await lane.close()
        counts = redis_client().hgetall(cache_stats.TIER_COUNTS)
        assert {name: int(count) for name, count in counts.items()} == {b"external": 1, b"hot": 2}

    async def test_are_counted_exactly_also_when_they_come_at_once(self, lane):
        key = create_key(name="few", limit_per_hour=50).key
        async with lane.client(key) as client:
            await client.get(f"/api/v1/audio?url={VIDEO_ID}")
            answers_ = await asyncio.gather(*(client.get(f"/api/v1/audio?url={VIDEO_ID}") for _ in range(80)))
        assert_counted_exactly(answers_)

    async def test_need_django_once_however_many_come_to_a_process_that_has_just_started(self, lane, key):
        async with lane.client(key) as client:
            answers_ = await asyncio.gather(*(client.get(f"/api/v1/audio?url={VIDEO_ID}") for _ in range(40)))
        assert {answer.status_code for answer in answers_} == {200}
        assert lane.in_django == 1

    async def test_a_first_one_that_is_refused_is_followed_by_one_that_is_not(self, lane, key):
        path = f"/api/v1/audio?url={VIDEO_ID}"
        async with lane.client(f"yt_nobodyhe_{'x' * 43}") as stranger, lane.client(key) as client:
            refused, *answers_ = await asyncio.gather(stranger.get(path), *(client.get(path) for _ in range(20)))
        assert refused.status_code == 401
        assert {answer.status_code for answer in answers_} == {200}
        assert lane.in_django == 2

    @pytest.mark.parametrize("strange", ["", f"yt_nobodyhe_{'x' * 43}"])
    async def test_a_stranger_is_not_waited_for(self, lane, key, monkeypatch, strange):
        monkeypatch.setattr(first_answers, "WAIT_S", 60.0)
        loop, is_there, another_is_done = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        usual = lane._wsgi

        def hold_the_stranger(environ, start_response):
            if environ.get("HTTP_X_API_KEY", "") == strange:
                loop.call_soon_threadsafe(is_there.set)
                assert another_is_done.wait(30)
            return usual(environ, start_response)

        monkeypatch.setattr(lane, "_wsgi", hold_the_stranger)
        path = f"/api/v1/audio?url={VIDEO_ID}"
        async with lane.client(strange) as stranger, lane.client(key) as client:
            refused = asyncio.create_task(stranger.get(path))
            await is_there.wait()
            answer = asyncio.create_task(client.get(path))
            done, _ = await asyncio.wait([answer], timeout=10)
            another_is_done.set()
            assert (await refused).status_code == 401
            assert (await answer).status_code == 200
        assert done

    async def test_a_first_one_that_takes_long_is_not_waited_for(self, lane, key, monkeypatch):
        monkeypatch.setattr(first_answers, "WAIT_S", 0.1)
        others_are_done = threading.Event()
        usual = lane._wsgi

        def wait_for_the_others(environ, start_response):
            if lane.in_django == 1:
                assert others_are_done.wait(30)
            return usual(environ, start_response)

        monkeypatch.setattr(lane, "_wsgi", wait_for_the_others)
        async with lane.client(key) as client:
            first = asyncio.create_task(client.get(f"/api/v1/audio?url={VIDEO_ID}"))
            answers_ = await asyncio.gather(*(client.get(f"/api/v1/audio?url={VIDEO_ID}") for _ in range(5)))
            others_are_done.set()
            assert {answer.status_code for answer in [await first, *answers_]} == {200}

    async def test_to_many_keys_at_once_need_few_reads_of_them(self, lane, key, monkeypatch):
        keys = [create_key(name=f"user {number}", owner=f"user{number % 3}").key for number in range(40)]
        revoke_key(keys[7][3:11])
        path = f"/api/v1/audio?url={VIDEO_ID}"
        async with lane.client() as client:
            await client.get(path, headers={"X-API-Key": key})
            reads = []
            usual = key_cache.key_rows

            def counted(prefixes):
                reads.append(len(prefixes))
                return usual(prefixes)

            monkeypatch.setattr(key_cache, "key_rows", counted)
            before = lane.in_django
            answers_ = await asyncio.gather(*(client.get(path, headers={"X-API-Key": key}) for key in keys))
        assert [answer.status_code for answer in answers_] == [403 if number == 7 else 200 for number in range(40)]
        assert lane.in_django == before + 1  # the revoked one
        assert sum(reads) == 40
        assert len(reads) <= 5

    async def test_a_key_that_cannot_be_read_spoils_no_other_one_s_answer(self, lane, key):
        broken = create_key(name="broken").key
        ApiKey.objects(prefix=broken[3:11]).update_one(__raw__={"$set": {"allowed_cidrs": ["nonsense"]}})
        path = f"/api/v1/audio?url={VIDEO_ID}"
        async with lane.client() as client:
            await client.get(path, headers={"X-API-Key": key})
            forget_cached_keys()
            bad, good = await asyncio.gather(*(client.get(path, headers={"X-API-Key": one}) for one in (broken, key)))
        assert (bad.status_code, good.status_code) == (500, 200)

    async def test_are_logged_as_django_logs(self, lane, key, caplog):
        caplog.set_level("INFO", logger="ytserver.access")
        async with lane.client(key) as client:
            await client.get(f"/song/{VIDEO_ID}?api={key}")
            await client.get(f"/song/{VIDEO_ID}?api={key}")
        await lane.close()
        django, ready = caplog.records
        line = json.loads(ready.getMessage())
        for name in ("method", "path", "route", "status", "key_prefix", "client"):
            assert line[name] == getattr(django, name), name
        assert key not in ready.getMessage()


@pytest.mark.usefixtures("library")
def test_over_a_real_connection_the_lane_sends_what_django_sends(key):
    server = Server()
    with (
        serving(server.entrance, http=BoundedHttpProtocol) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as client,
    ):
        for path in (f"/api/v1/audio?url={VIDEO_ID}", f"/api/v1/info?url={VIDEO_ID}", f"/song/{VIDEO_ID}"):
            before = server.in_django
            first, *others = (client.get(path) for _ in range(3))
            closing = client.get(path, headers={"Connection": "close"})
            assert server.in_django == before + 1
            for answer in others:
                assert comparable(answer) == comparable(first)
            assert closing.headers.pop("connection") == "close"
            assert comparable(closing) == comparable(first)


@pytest.mark.usefixtures("library")
class TestOverConnections:
    """Requests that get no task of their own: see ``Entrance.begin``."""

    PATH = f"/api/v1/audio?url={VIDEO_ID}"

    @pytest.fixture
    def server(self, monkeypatch):
        server = Server()
        server.in_tasks = 0
        begin = server.entrance.begin

        def counted(scope, usual_way):
            has_begun = begin(scope, usual_way)
            server.in_tasks += not has_begun
            return has_begun

        monkeypatch.setattr(server.entrance, "begin", counted)
        with serving(server.entrance, http=BoundedHttpProtocol) as url:
            server.url = url
            yield server

    def clients(self, server, count, key):
        limits = httpx.Limits(max_connections=count)
        return httpx.AsyncClient(base_url=server.url, headers={"X-API-Key": key}, trust_env=False, limits=limits)

    async def test_known_answers_need_no_task(self, server, key):
        async with self.clients(server, 1, key) as client:
            for _ in range(2):
                await client.get(self.PATH)
            before = server.in_tasks
            answers_ = [await client.get(self.PATH) for _ in range(30)]
        assert [answer.status_code for answer in answers_] == [200] * 30
        assert server.in_tasks < before + 30  # each time that the key was to be read again, there was one

    async def test_a_key_in_use_is_read_again_before_anybody_has_to_wait_for_it(self, server, key, monkeypatch):
        reads, again = [], threading.Event()
        key_rows = key_cache.key_rows

        def noted(prefixes):
            reads.append(prefixes)
            if len(reads) > 1:
                again.set()
            return key_rows(prefixes)

        async with self.clients(server, 1, key) as client:
            for _ in range(2):
                await client.get(self.PATH)
            monkeypatch.setattr(key_cache, "MAX_AGE_S", 60.0)
            monkeypatch.setattr(key_cache, "AGEING_S", 0.0)
            monkeypatch.setattr(key_cache, "key_rows", noted)
            await client.get(self.PATH)  # from here on it is known for as long as this test takes
            before = server.in_tasks
            while not again.is_set():
                assert (await client.get(self.PATH)).status_code == 200
        assert server.in_tasks == before

    async def test_limits_and_events_are_exact(self, server):
        key = create_key(name="few", limit_per_hour=50).key
        async with self.clients(server, 20, key) as client:
            await client.get(self.PATH)
            before = server.in_tasks
            answers_ = await asyncio.gather(*(client.get(self.PATH) for _ in range(80)))
        assert server.in_tasks < before + 80
        assert_counted_exactly(answers_)

    async def test_a_key_without_the_scope_is_for_django_to_refuse(self, server, key):
        other = create_key(name="info only", scopes=(Scope.INFO,)).key
        async with self.clients(server, 1, key) as client:
            for _ in range(2):
                await client.get(self.PATH)
            for _ in range(2):
                answer = await client.get(self.PATH, headers={"X-API-Key": other})
                assert (answer.status_code, answer.json()["error"]) == (403, "scope_missing")

    async def test_a_file_that_is_gone_is_noticed_at_the_very_next_question(self, server, key):
        async with self.clients(server, 1, key) as client:
            for _ in range(2):
                assert (await client.get(self.PATH)).json()["source"] == "hot"
            Asset.objects(id=AUDIO.asset_id).delete()
            hot_store().remove(AUDIO.asset_id, 1)
            assert (await client.get(self.PATH)).json()["source"] == "external"

    async def test_without_redis_django_answers(self, server, key):
        async with self.clients(server, 1, key) as client:
            for _ in range(2):
                await client.get(self.PATH)
            before = server.in_django
            with full_redis():
                answer = await client.get(self.PATH)
        assert (answer.status_code, server.in_django) == (200, before + 1)

    async def test_what_redis_answers_unreadably_is_answered_by_django(self, server, key, monkeypatch):
        async with self.clients(server, 3, key) as client:
            for _ in range(2):
                await client.get(self.PATH)
            before = server.in_django
            monkeypatch.setattr(till, "BATCH_SCRIPT", "return 'x'")
            monkeypatch.setattr(till, "BATCH_SHA", "0" * 40)
            answers_ = await asyncio.gather(*(client.get(self.PATH) for _ in range(3)))
        assert [answer.status_code for answer in answers_] == [200] * 3
        assert server.in_django == before + 3

    def test_answers_keep_their_order_among_others_on_one_connection(self, server, key):
        head = f"Host: {server.url.removeprefix('http://')}\r\nX-API-Key: {key}\r\n"
        httpx.get(f"{server.url}{self.PATH}", headers={"X-API-Key": key}, trust_env=False)
        paths = [self.PATH, "/healthz", self.PATH, f"/song/{VIDEO_ID}", self.PATH]
        sent = "".join(f"GET {path} HTTP/1.1\r\n{head}X-Request-Id: number-{n}\r\n\r\n" for n, path in enumerate(paths))
        last = f"GET {self.PATH} HTTP/1.1\r\n{head}X-Request-Id: number-5\r\nConnection: close\r\n\r\n"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall((sent + last).encode())
            received = b""
            while piece := client.recv(65536):
                received += piece
        numbers = re.findall(rb"x-request-id: number-([0-9])", received)
        assert received.count(b"HTTP/1.1 200 OK") == 6
        assert [number for number in numbers if number != b"1"] == [b"0", b"2", b"3", b"4", b"5"]
        assert received.count(b"connection: close") == 1


OTHERS = [
    ("GET", f"/api/v1/audio?url={VIDEO_ID}&nonsense=1", {}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}&url={VIDEO_ID}", {}),
    ("GET", "/api/v1/audio?url=https://example.com/x", {}),
    ("GET", "/api/v1/audio", {}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}", {"headers": {"X-API-Key": "yt_nobodyhe_" + "x" * 43}}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}", {"headers": {"Accept": "text/html"}}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}", {"headers": {"Accept": "image/png"}}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}", {"headers": {"Origin": "https://elsewhere.example"}}),
    ("GET", f"/api/v1/audio?url={VIDEO_ID}", {"headers": {"Host": "elsewhere.example"}}),
    ("GET", f"/api/v1/info?url={VIDEO_ID}", {"headers": {"If-None-Match": "*"}}),
    ("HEAD", f"/api/v1/audio?url={VIDEO_ID}", {}),
    ("OPTIONS", "/api/v1/audio", {}),
    ("DELETE", "/api/v1/audio", {}),
    ("POST", "/api/v1/audio", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/api/v1/audio", {"json": [1]}),
    ("POST", "/api/v1/audio", {"json": {"url": VIDEO_ID, "nonsense": "x" * 5000}}),
    ("GET", f"/song/{VIDEO_ID}?something=else", {}),
    ("GET", f"/api/song?query={VIDEO_ID}&download=true", {}),
    ("GET", f"/queued/youtube/v2/download?query={VIDEO_ID}", {}),
]


@pytest.mark.usefixtures("library")
class TestWhatIsUnusual:
    @pytest.mark.parametrize(
        ("method", "path", "request_"), OTHERS, ids=[f"{m} {p} {n}" for n, (m, p, _) in enumerate(OTHERS)]
    )
    async def test_is_django_s(self, lane, key, method, path, request_):
        async with lane.client(key) as client:
            await client.get(f"/api/v1/audio?url={VIDEO_ID}")
            before = lane.in_django
            await client.request(method, path, **request_)
        assert lane.in_django == before + 1

    async def test_a_key_in_a_post_s_body_opens_nothing_but_a_dialect(self, lane, key):
        async with lane.client(key) as client:
            await client.post("/api/v1/audio", json={"url": VIDEO_ID})
        async with lane.client() as client:
            answer = await client.post("/api/v1/audio", json={"url": VIDEO_ID, "api_key": key})
        assert answer.json()["error"] == "key_missing"


class TestWhatStrangersSend:
    """Reading comes before the key, so anybody could fill the memory with what is remembered of it."""

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_long_lines_are_not_remembered(self, lane, method):
        long = "x" * 20_000
        requests = [
            (f"/api/v1/audio?url={VIDEO_ID}&nonsense={long}", {}),
            (f"/song/{long}", {}),
            (f"/api/v1/audio?url={VIDEO_ID}", {"Host": long}),
            (f"/api/v1/audio?url={VIDEO_ID}", {"Content-Type": f"text/plain; {long}"}),
        ]
        async with lane.client() as client:
            for path, headers in requests:
                body = b"{}" if method == "POST" else None
                assert (await client.request(method, path, headers=headers, content=body)).status_code >= 400
        reader = lane.entrance._running_parts()._lane._reader
        assert sum(len(str(known)) for known in (*reader._known, *reader._base_urls)) < 2000


@pytest.mark.usefixtures("library")
class TestChanges:
    """What Django would no longer answer, the lane does not either."""

    PATH = f"/api/v1/audio?url={VIDEO_ID}&format=m4a"

    @pytest.fixture
    def key(self):
        """Its limit is not reached by asking until a change shows."""
        return create_key(name="test", scopes=tuple(Scope), limit_per_hour=1_000_000_000).key

    async def after(self, lane, key, change, path=PATH):
        """The answer after ``change``, when what is remembered of before no longer counts."""
        async with lane.client(key) as client:
            for _ in range(2):
                assert (await client.get(path)).status_code == 200
            assert lane.in_django == 1
            change()
            answer = await client.get(path)
            deadline = asyncio.get_running_loop().time() + 30
            while answer.status_code == 200 and answer.json().get("source") == "hot":
                assert asyncio.get_running_loop().time() < deadline
                answer = await client.get(path)
            return answer

    async def test_a_revoked_key(self, lane, key):
        answer = await self.after(lane, key, lambda: revoke_key(key[3:11]))
        assert answer.json()["error"] == "key_disabled"

    async def test_an_evicted_file_that_is_in_telegram(self, lane, key):
        Asset.objects(id=AUDIO.asset_id).update_one(
            set__parts=list(Asset.objects.get(id=VIDEO.asset_id).parts), set__state=AssetState.CACHED
        )
        answer = await self.after(lane, key, lambda: hot_store().remove(AUDIO.asset_id, 1))
        assert answer.json()["source"] == "telegram"

    async def test_an_evicted_file_is_noticed_at_the_very_next_question(self, lane, key):
        async with lane.client(key) as client:
            for _ in range(2):
                assert (await client.get(self.PATH)).json()["source"] == "hot"
            Asset.objects(id=AUDIO.asset_id).delete()
            hot_store().remove(AUDIO.asset_id, 1)
            assert (await client.get(self.PATH)).json()["source"] == "external"

    async def test_a_deleted_asset_is_fetched_anew(self, lane, key):
        def delete():
            Asset.objects(id=AUDIO.asset_id).delete()
            hot_store().remove(AUDIO.asset_id, 1)

        answer = await self.after(lane, key, delete)
        assert answer.json()["source"] == "external"

    async def test_a_key_without_the_scope(self, lane, key):
        other = create_key(name="info only", scopes=(Scope.INFO,)).key
        async with lane.client(key) as client:
            await client.get(self.PATH)
            assert (await client.get(self.PATH, headers={"X-API-Key": other})).json()["error"] == "scope_missing"

    async def test_metadata_that_is_gone(self, lane, key):
        path = f"/api/v1/info?url={VIDEO_ID}"
        async with lane.client(key) as client:
            for _ in range(2):
                assert (await client.get(path)).status_code == 200
            VideoInfoRecord.objects(video_id=VIDEO_ID).update_one(
                set__error_code="video_private", set__error_message="It is private now."
            )
            answer = await client.get(path)
            while answer.status_code == 200:
                answer = await client.get(path)
        assert answer.json()["error"] == "video_private"


@pytest.mark.usefixtures("library")
class TestLimits:
    PATH = f"/api/v1/audio?url={VIDEO_ID}"

    async def test_are_counted_where_django_counts_also_when_redis_has_lost_its_scripts(self, lane):
        key = create_key(name="few", limit_per_hour=3).key
        async with lane.client(key) as client:
            left = [int((await client.get(self.PATH)).headers["RateLimit-Remaining"])]
            redis_client().script_flush()
            left += [int((await client.get(self.PATH)).headers["RateLimit-Remaining"]) for _ in range(2)]
            assert lane.in_django == 1
            assert left == [2, 1, 0]
            with pytest.raises(RateLimited):
                charge(authenticate(key))
            assert (await client.get(self.PATH)).status_code == 429

    async def test_of_one_key_are_not_those_of_another_that_asks_at_the_same_time(self, lane, key):
        few, many = (create_key(name="some", limit_per_hour=limit).key for limit in (4, 40))
        async with lane.client(key) as client:
            await client.get(self.PATH)
            both = [client.get(self.PATH, headers={"X-API-Key": one}) for _ in range(6) for one in (few, many)]
            answers_ = await asyncio.gather(*both)
        statuses = [answer.status_code for answer in answers_]
        assert sorted(statuses[::2]) == [200] * 4 + [429] * 2
        assert statuses[1::2] == [200] * 6

    async def test_hold_without_redis_too_and_django_answers(self, lane):
        share = 2
        key = create_key(name="few", limit_per_hour=share * django_settings.ENV.web_workers).key
        async with lane.client(key) as client:
            for _ in range(2):
                await client.get(self.PATH)
            assert lane.in_django == 1
            with full_redis():
                statuses = [(await client.get(self.PATH)).status_code for _ in range(share + 1)]
        assert (statuses, lane.in_django) == ([200] * share + [429], 1 + share + 1)


class TestReadyAnswers:
    async def test_who_asks_in_the_same_turn_shares_one_look_at_the_file(self, tmp_path, monkeypatch):
        looks = []
        monkeypatch.setattr(ready, "_is_still_hot", lambda *_: not looks.append(1) and file.exists())
        file, answers_ = tmp_path / "hot", ready.ReadyAnswers()
        file.touch()
        question = ready.Question(video_id=VIDEO_ID)
        known = ready.Ready(pieces=[""], read_at=time.monotonic(), tier=ready.Tier.HOT, hot_file=str(file))
        answers_.put(question, known)
        assert [answers_.get(question, max_age_s=600) for _ in range(3)] == [known] * 3
        assert len(looks) == 1
        file.unlink()
        await asyncio.sleep(0)
        assert answers_.get(question, max_age_s=600) is None

    def test_a_title_means_nothing_but_itself(self):
        title = "100 %, %s and %(response_time)s"
        known = ready.Ready(pieces=[f'{{"title":"{title}","response_time":', "response_time", "}"], read_at=0.0)
        body = known.body(base_url="", key_prefix="", response_time_s=0.25)
        assert json.loads(body) == {"title": title, "response_time": 0.25}


@pytest.fixture
async def it():
    it = Till()
    yield it
    await it.aclose()


class TestTill:
    """Requests are counted over one connection, batch after batch."""

    @pytest.fixture
    def grant(self, key):
        return authenticate(key)

    async def told(self, it, grant, count=1):
        told = asyncio.Queue()
        for number in range(count):
            it.charge(grant, f'{{"id":"test-{number}"}}', told.put_nowait)
        return [await told.get() for _ in range(count)]

    async def test_batches_follow_each_other_and_each_answer_comes_to_who_asked(self, it, monkeypatch):
        monkeypatch.setattr(till, "MAX_BATCH", 3)
        told = {}
        grants = [authenticate(create_key(name="one", limit_per_hour=100 + number).key) for number in range(20)]
        done = asyncio.Event()

        def is_told(number, state):
            told[number] = state.limit
            if len(told) == len(grants):
                done.set()

        for number, grant in enumerate(grants):
            it.charge(grant, "{}", partial(is_told, number))
        await done.wait()
        assert told == {number: 100 + number for number in range(20)}

    async def test_a_redis_that_was_started_since_counts_each_of_many_batches_once(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "MAX_BATCH", 2)
        before = (await self.told(it, grant))[0].remaining
        redis_client().script_flush()
        assert sorted(state.remaining for state in await self.told(it, grant, 9)) == list(range(before - 9, before))

    async def test_a_connection_that_redis_closed_while_nobody_needed_it_is_noticed_by_nobody(self, it, grant):
        before = (await self.told(it, grant))[0].remaining
        running = it._running
        redis_client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.wait([running])
        assert it.is_open
        assert [state.remaining for state in await self.told(it, grant)] == [before - 1]

    async def test_a_connection_to_a_redis_that_has_become_a_replica_is_given_up(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        before = (await self.told(it, grant))[0].remaining
        running = it._running
        redis_client().replicaof("127.0.0.1", 1)  # nobody is there
        try:
            assert await self.told(it, grant, 3) == [None] * 3
        finally:
            redis_client().replicaof("NO", "ONE")
        async with asyncio.timeout(10):
            await asyncio.wait([running])
        assert [state.remaining for state in await self.told(it, grant)] == [before - 1]

    async def test_those_that_wait_for_a_redis_that_says_nothing_share_one_time_out(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "MAX_BATCH", 1)
        await self.told(it, grant)
        monkeypatch.setattr(till, "ANSWER_TIMEOUT_S", 0.2)
        paused = redis_client()
        paused.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        try:
            assert await self.told(it, grant, 20) == [None] * 20
        finally:
            paused.execute_command("CLIENT", "UNPAUSE")
        assert not it.is_open
        assert await self.told(it, grant) == [None]  # it had come before the error

    async def test_what_is_refused_with_an_error_spoils_no_other_batch(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "MAX_BATCH", 1)
        await self.told(it, grant)
        scripts = iter([till.BATCH_SHA, "0" * 40, till.BATCH_SHA, "not a script"])
        command = till._command
        monkeypatch.setattr(till, "_command", lambda script, batch: command((script[0], next(scripts)), batch))
        states = await self.told(it, grant, 3)
        assert [state is None for state in states].count(True) == 1
        assert not it.is_open


class TestTillEarly:
    """Enough requests that wait are written to Redis while others of the same turn of the event loop are being read."""

    MANY = till.EARLY_BATCH * 5 + 1

    @pytest.fixture
    async def grant(self, it, key):
        """One request of it has been counted, so that the connection is there."""
        grant = authenticate(key)
        self.told, self.charged, self.all_told = {}, 0, asyncio.Event()
        await self.outcomes(self.charge(it, grant, 1))
        return grant

    def charge(self, it, grant, count, *, size=0):
        """In this turn of the event loop. The numbers of the requests."""
        numbers = range(self.charged, self.charged + count)
        self.charged += count
        for number in numbers:
            event = json.dumps({"id": f"early-{number}", "more": "x" * size})
            it.charge(grant, event, partial(self._tell, number))
        return numbers

    def _tell(self, number, state):
        self.told.setdefault(number, []).append(state)
        if len(self.told) == self.charged:
            self.all_told.set()

    async def outcomes(self, numbers):
        """How these went. All that were charged have been told, each once."""
        async with asyncio.timeout(60):
            await self.all_told.wait()
        self.all_told.clear()
        assert sorted(self.told) == list(range(self.charged))
        assert {len(states) for states in self.told.values()} == {1}
        return [self.told[number][0] for number in numbers]

    def appended(self):
        entries = redis_client().xrange(events.STREAM)
        return [json.loads(fields[events.FIELD])["id"] for _, fields in entries]

    async def ended(self, it):
        """Its talk with Redis is over."""
        if it._running is not None:
            async with asyncio.timeout(10):
                await asyncio.wait([it._running])

    @contextmanager
    def standing_redis(self):
        """It takes nothing from its sockets."""
        process = psutil.Process(redis_client().info("server")["process_id"])
        process.suspend()
        try:
            wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
            yield
        finally:
            process.resume()

    async def test_redis_has_them_before_the_turn_of_the_event_loop_ends(self, it, grant):
        numbers = self.charge(it, grant, till.EARLY_BATCH)
        wait_until(lambda: redis_client().xlen(events.STREAM) == 1 + till.EARLY_BATCH, timeout_s=10)
        states = await self.outcomes(numbers)
        assert [state.remaining for state in states] == list(range(998, 998 - till.EARLY_BATCH, -1))

    async def test_one_that_waits_alone_leaves_at_the_end_of_the_turn(self, it, grant):
        assert [state.remaining for state in await self.outcomes(self.charge(it, grant, 1))] == [998]
        assert self.appended() == ["early-0", "early-1"]

    async def test_each_is_counted_once_and_in_its_turn_also_before_there_is_a_connection(self, key):
        it, grant = Till(), authenticate(key)
        self.told, self.charged, self.all_told = {}, 0, asyncio.Event()
        states = await self.outcomes(self.charge(it, grant, self.MANY))
        assert [state.remaining for state in states] == list(range(999, 999 - self.MANY, -1))
        assert self.appended() == [f"early-{number}" for number in range(self.MANY)]
        await it.aclose()

    async def test_no_more_is_on_its_way_than_at_the_end_of_a_turn(self, it, grant):
        with self.standing_redis():
            numbers = self.charge(it, grant, 200)
            assert [len(batch) for batch in it._on_way] == [till.EARLY_BATCH] * till.MAX_ON_WAY
        assert [state.remaining for state in await self.outcomes(numbers)] == list(range(998, 798, -1))
        assert self.appended() == [f"early-{number}" for number in range(201)]

    async def test_nothing_more_is_written_while_the_connection_is_full(self, it, grant):
        with self.standing_redis():
            numbers = [*self.charge(it, grant, till.EARLY_BATCH, size=3_000_000), *self.charge(it, grant, self.MANY)]
            assert len(it._on_way) == 1
        states = await self.outcomes(numbers)
        assert [state.remaining for state in states] == list(range(998, 998 - len(numbers), -1))
        assert self.appended() == [f"early-{number}" for number in range(1 + len(numbers))]

    async def test_a_full_connection_is_left_when_the_time_is_over(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        with monkeypatch.context() as patch, self.standing_redis():
            patch.setattr(till, "ANSWER_TIMEOUT_S", 0.2)
            numbers = [*self.charge(it, grant, till.EARLY_BATCH, size=3_000_000), *self.charge(it, grant, self.MANY)]
            assert await self.outcomes(numbers) == [None] * len(numbers)
            await self.ended(it)
        assert None not in await self.outcomes(self.charge(it, grant, self.MANY))

    @pytest.mark.parametrize("turns", [0, 1, 2])
    async def test_it_can_be_closed_while_the_connection_is_full(self, it, grant, turns):
        with self.standing_redis():
            self.charge(it, grant, till.EARLY_BATCH, size=3_000_000)
            for _ in range(turns):
                await asyncio.sleep(0)
            await it.aclose()
            assert it._running is None
        assert list(self.told) == [0]  # the server has cut the connections of the others

    async def test_a_connection_that_was_cut_in_the_same_turn_is_not_made_again_by_writing(
        self, it, grant, monkeypatch
    ):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        redis_client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        made = redis_client().info("stats")["total_connections_received"]
        numbers = self.charge(it, grant, self.MANY)
        assert await self.outcomes(numbers) == [None] * self.MANY
        assert redis_client().info("stats")["total_connections_received"] == made
        assert self.appended() == ["early-0"]
        states = await self.outcomes(self.charge(it, grant, self.MANY))
        assert [state.remaining for state in states] == list(range(998, 998 - self.MANY, -1))

    async def test_what_comes_while_a_lost_connection_is_given_up_makes_no_other_one(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 60)
        redis_client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        made = redis_client().info("stats")["total_connections_received"]
        while it._line.is_connected:  # noqa: ASYNC110 - the very turn in which it is lost is meant
            await asyncio.sleep(0)
        assert it._running is not None
        assert await self.outcomes(self.charge(it, grant, self.MANY)) == [None] * self.MANY
        assert redis_client().info("stats")["total_connections_received"] == made
        assert self.appended() == ["early-0"]

    async def test_those_who_ask_again_when_they_are_refused_are_counted_over_a_new_connection(
        self, it, grant, monkeypatch
    ):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        refused = []

        def ask_again(state):
            refused.append(state)
            self.charge(it, grant, self.MANY)  # no turn of the event loop between

        redis_client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        it.charge(grant, '{"id": "refused"}', ask_again)
        states = await self.outcomes(range(1, 1 + self.MANY))
        assert refused == [None]
        assert [state.remaining for state in states] == list(range(998, 998 - self.MANY, -1))

    async def test_a_connection_that_redis_closes_half_way_counts_nobody_twice(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        numbers = self.charge(it, grant, till.EARLY_BATCH)
        wait_until(lambda: redis_client().xlen(events.STREAM) == 1 + till.EARLY_BATCH, timeout_s=10)
        redis_client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        numbers = [*numbers, *self.charge(it, grant, self.MANY)]
        states = await self.outcomes(numbers)
        assert states[till.EARLY_BATCH :] == [None] * self.MANY
        assert self.appended() == [f"early-{number}" for number in range(1 + till.EARLY_BATCH)]

    async def test_a_redis_that_says_nothing_is_written_to_no_more_when_the_time_is_over(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "ANSWER_TIMEOUT_S", 0.2)
        with self.standing_redis():
            numbers = self.charge(it, grant, till.EARLY_BATCH)
            while not it._patience.expired():  # noqa: ASYNC110 - the very turn in which it expires is meant
                await asyncio.sleep(0)
            later = self.charge(it, grant, self.MANY)  # the talk is being given up, and its connection still there
            assert len(it._on_way) <= 1
            assert await self.outcomes([*numbers, *later]) == [None] * (till.EARLY_BATCH + self.MANY)
            assert not it.is_open

    async def test_a_replica_refuses_each_of_them_once(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        redis_client().replicaof("127.0.0.1", 1)  # nobody is there
        try:
            assert await self.outcomes(self.charge(it, grant, self.MANY)) == [None] * self.MANY
        finally:
            redis_client().replicaof("NO", "ONE")
        await self.ended(it)
        states = await self.outcomes(self.charge(it, grant, self.MANY))
        assert [state.remaining for state in states] == list(range(998, 998 - self.MANY, -1))

    async def test_a_redis_without_memory_refuses_each_of_them_once(self, it, grant, monkeypatch):
        monkeypatch.setattr(till, "REDIS_PAUSE_S", 0)
        with full_redis():
            assert await self.outcomes(self.charge(it, grant, self.MANY)) == [None] * self.MANY
        await self.ended(it)
        assert self.appended() == ["early-0"]
        assert None not in await self.outcomes(self.charge(it, grant, self.MANY))

    async def test_a_redis_that_was_started_since_counts_each_of_them_once(self, it, grant):
        redis_client().script_flush()
        states = await self.outcomes(self.charge(it, grant, self.MANY))
        assert sorted(state.remaining for state in states) == list(range(999 - self.MANY, 999))
        assert sorted(self.appended()) == sorted(f"early-{number}" for number in range(1 + self.MANY))

    async def test_what_cannot_be_written_is_refused_and_raises_nothing(self, it, grant, monkeypatch, caplog):
        with monkeypatch.context() as patch:
            patch.setattr(till, "REDIS_PAUSE_S", 0)
            patch.setattr(till, "_command", lambda script, batch: 1 / 0)
            assert await self.outcomes(self.charge(it, grant, self.MANY)) == [None] * self.MANY
        assert "the till stopped" in caplog.text
        assert None not in await self.outcomes(self.charge(it, grant, self.MANY))


def test_a_dialect_that_was_switched_off_meanwhile_is_for_django_to_refuse():
    reader = Reader()
    assert reader.may_read("/song/abcdefghijk")
    set_tunable("dialect_song", 0, actor="sam")
    assert not reader.may_read("/song/abcdefghijk")
    assert reader.may_read("/api/track")
    set_tunable("dialect_song", None, actor="sam")
    assert reader.may_read("/song/abcdefghijk")
