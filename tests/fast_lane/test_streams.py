"""Ranges answered from memory are those of the stream application, and nothing that it would not send."""

import json
import time

import pytest
from django.conf import settings as django_settings

from apps.analytics import events
from apps.analytics.counting import LivePublisher
from apps.analytics.documents import UsageEvent
from apps.downloads import stream_backend
from apps.downloads.services.media import hot_store
from apps.keys import key_cache
from apps.keys.services import create_key, revoke_key
from apps.streaming.links import sign_link
from apps.telegram_cache.documents import Asset
from tests.downloads.library import AUDIO, CONTENT, VIDEO_ID, put_hot
from tests.fast_lane.test_lane import Server, comparable
from ytserver.fast_lane.reading import MAX_LINE_BYTES

PATH = f"/stream/audio/{VIDEO_ID}"
SOME = {"Range": "bytes=100-199"}


class StreamServer(Server):
    """``in_app`` counts what got past the lane."""

    def __init__(self) -> None:
        super().__init__()
        self.in_app = 0
        parts = self.entrance._running_parts()
        app = parts._streams

        async def counted(scope, receive, send):
            self.in_app += 1
            await app(scope, receive, send)

        parts._streams = counted

    async def warm(self, key, path):
        """What is remembered is fresh from here on, for a while."""
        async with self.client() as client:
            await client.get(path, headers=SOME)


@pytest.fixture(autouse=True)
def _everything(mongo, redis_server, hot_root):
    put_hot(AUDIO)


@pytest.fixture
async def lane():
    server = StreamServer()
    yield server
    await server.close()


@pytest.fixture
async def app(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(django_settings, "ENV", django_settings.ENV.model_copy(update={"fast_lane": False}))
        server = StreamServer()
    yield server
    await server.close()


@pytest.fixture
def key():
    return create_key(name="test").key


@pytest.fixture
def _lasting(monkeypatch):
    """However slow the machine: what was read when the lane was warmed is still fresh."""
    monkeypatch.setattr(key_cache, "MAX_AGE_S", 300)
    monkeypatch.setattr(stream_backend, "RECORD_MAX_AGE_S", 300)


def link(key, path=PATH, **changes):
    fields = {
        "path": path, "asset_id": AUDIO.asset_id, "key_prefix": key[3:11], "attachment": False,
        "expires_at": int(time.time()) + 3600, **changes,
    }  # fmt: skip
    return sign_link(**fields)


async def ask(server, path, method="GET", **headers):
    async with server.client() as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.usefixtures("_lasting")
class TestAnswersFromMemory:
    @pytest.mark.parametrize(
        "asked", ["0-99", "5-", "-50", "1048570-1048580", "0-0", f"{len(CONTENT) - 1}-", "100-99999999"]
    )
    async def test_are_those_of_the_application(self, lane, app, key, asked):
        path = link(key)
        asked = asked if asked != "5-" else f"{len(CONTENT) - 5}-"
        asked = asked if asked != "100-99999999" else f"{len(CONTENT) - 100}-99999999"
        await lane.warm(key, path)
        before = lane.in_app
        fast = await ask(lane, path, Range=f"bytes={asked}")
        assert lane.in_app == before
        slow = await ask(app, path, Range=f"bytes={asked}")
        assert app.in_app == 1
        assert comparable(fast) == comparable(slow)
        assert fast.headers["content-length"] == slow.headers["content-length"]
        first, _, last = fast.headers["content-range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert fast.content == CONTENT[int(first) : int(last) + 1]

    @pytest.mark.parametrize("changes", [{"attachment": True}, {"bound_to": "127.0.0.1"}])
    async def test_follow_what_the_link_says(self, lane, app, key, changes):
        path = link(key, **changes)
        await lane.warm(key, path)
        before = lane.in_app
        fast = await ask(lane, path, **SOME)
        assert (fast.status_code, lane.in_app) == (206, before)
        assert comparable(fast) == comparable(await ask(app, path, **SOME))

    async def test_keep_the_caller_s_request_id(self, lane, key):
        path = link(key)
        await lane.warm(key, path)
        answer = await ask(lane, path, **SOME, **{"X-Request-Id": "given-by-caller"})
        assert answer.headers["X-Request-Id"] == "given-by-caller"

    async def test_leave_one_event_each_with_the_same_fields(self, lane, app, key):
        path = link(key)
        await ask(app, path, **SOME)
        await lane.warm(key, path)
        before = lane.in_app
        for _ in range(5):
            await ask(lane, path, **SOME)
        assert lane.in_app == before
        events.drain_events()
        found = [event.to_mongo().to_dict() for event in UsageEvent.objects]
        assert len(found) == 7
        assert len({tuple(sorted(event)) for event in found}) == 1
        alike = ("route", "method", "status", "bytes_sent", "key_prefix", "video_id", "asset_id", "tier")
        assert len({tuple(event[name] for name in alike) for event in found}) == 1
        assert (found[0]["status"], found[0]["bytes_sent"], found[0]["tier"]) == (206, 100, "hot")

    async def test_count_in_the_live_figures_as_the_application_s(self, lane, app, key, monkeypatch):
        async def nothing(*_: object, **__: object) -> None:
            """The publisher takes the figures away at each full second."""

        monkeypatch.setattr(LivePublisher, "publish", nothing)
        path = link(key)
        await lane.warm(key, path)
        counters = [server.entrance._running_parts().recorder.counters for server in (lane, app)]
        for each in counters:
            each.take()
        for server in (lane, app):
            await ask(server, path, **SOME)
        counted = []
        for each in counters:
            recent, totals = each.take()
            names = [{name for name in counts if not name.startswith(("h:", "hs:"))} for counts in (recent, totals)]
            counted.append([{n: c[n] for n in some} for c, some in zip((recent, totals), names, strict=True)])
        assert counted[0] == counted[1]
        assert counted[0][0]["b"] == 100

    async def test_are_logged_as_the_application_logs(self, lane, key, caplog):
        caplog.set_level("INFO", logger="ytserver.access")
        path = link(key)
        await lane.warm(key, path)
        await ask(lane, path, **SOME)
        await lane.close()
        slow, ready = (record for record in caplog.records if record.name == "ytserver.access")
        line = json.loads(ready.getMessage())
        assert line["event"] == slow.getMessage()
        for name in ("method", "path", "status", "outcome", "error", "sent_bytes", "key_prefix", "asset_id", "client"):
            assert line[name] == getattr(slow, name), name
        assert "sig=" not in ready.getMessage()


@pytest.mark.usefixtures("_lasting")
class TestEverythingElse:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 200),
            ({"Range": "bytes=0-1,5-6"}, 200),
            ({"Range": "bytes=0-999999"}, 206),
            ({"Range": "bytes=99999999-"}, 416),
            ({"Range": "lines=1-2"}, 200),
            ({**SOME, "If-Range": '"another"'}, 200),
            ({**SOME, "If-None-Match": "*"}, 304),
            ({**SOME, "If-Match": "*"}, 206),
            ({**SOME, "If-Match": '"another"'}, 412),
            ({"If-Match": '"another"'}, 412),
            ({**SOME, "Origin": "https://elsewhere.example"}, 206),
        ],
    )
    async def test_in_the_headers_is_the_application_s(self, lane, key, headers, status):
        path = link(key)
        await lane.warm(key, path)
        before = lane.in_app
        assert (await ask(lane, path, **headers)).status_code == status
        assert lane.in_app == before + 1

    async def test_in_the_link_is_the_application_s(self, lane, key):
        good, soon = link(key), int(time.time())
        await lane.warm(key, good)
        for path, error in (
            (good[:-1] + ("A" if good[-1] != "A" else "B"), "link_invalid"),
            (link(key, expires_at=soon - 60), "link_expired"),
            (link(key, bound_to="10.1.2.3"), "ip_not_allowed"),
            (link(key, path=f"/stream/video/{VIDEO_ID}"), "link_invalid"),
            (link(key, path="/stream/audio/anothervide"), "link_invalid"),
            (link(key, asset_id="unknown-asset"), "not_found"),
            (link("yt_nobodyhe_"), "key_invalid"),
            (PATH, "key_missing"),
        ):
            for _ in range(2):
                assert (await ask(lane, path, **SOME)).json()["error"] == error, path

    async def test_with_a_long_query_is_the_application_s_and_not_remembered(self, lane, key):
        longest = link(key, attachment=True, bound_to="2001:db8:1234:5678::/64")
        assert len(longest) < MAX_LINE_BYTES / 2
        path = f"{link(key)}&more={'A' * MAX_LINE_BYTES}"
        await lane.warm(key, path)
        before = lane.in_app
        assert (await ask(lane, path, **SOME)).status_code == 206
        assert lane.in_app == before + 1
        assert not lane.entrance._running_parts().streams._links

    @pytest.mark.parametrize("limit", ["concurrent_streams", "bytes_per_day", "largest_file_bytes"])
    async def test_a_key_whose_streams_count_or_files_are_limited(self, lane, limit):
        key = create_key(name="limited", **{limit: 10_000}).key
        path = link(key)
        await lane.warm(key, path)
        before = lane.in_app
        answer = await ask(lane, path, **SOME)
        assert answer.status_code == (403 if limit == "largest_file_bytes" else 206)
        assert lane.in_app == before + 1


class TestChanges:
    """What was remembered does not count for longer than the application would let it."""

    async def until_refused(self, lane, path):
        deadline = time.monotonic() + 30
        while (answer := await ask(lane, path, **SOME)).status_code == 206:
            assert time.monotonic() < deadline
        return answer.json()["error"]

    async def test_a_revoked_key(self, lane, key):
        path = link(key)
        await lane.warm(key, path)
        assert (await ask(lane, path, **SOME)).status_code == 206
        revoke_key(key[3:11])
        assert await self.until_refused(lane, path) == "key_disabled"

    async def test_a_deleted_asset(self, lane, key):
        path = link(key)
        await lane.warm(key, path)
        assert (await ask(lane, path, **SOME)).status_code == 206
        Asset.objects(id=AUDIO.asset_id).delete()
        hot_store().remove(AUDIO.asset_id, 1)
        assert await self.until_refused(lane, path) == "not_found"
