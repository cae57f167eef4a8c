"""The stream application over real sockets: what it answers, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core.asgi import Message, Scope
from apps.core.errors import UpstreamUnreachable
from apps.core.trace import noted
from apps.streaming.app import StreamApp
from apps.streaming.hotstore import BLOCK_BYTES, HotStore
from apps.streaming.ports import BytesGone, StreamTarget
from tests.streaming.media import ASSET, block_hashes, block_of, make_bytes
from tests.streaming.serving import (
    PATIENT,
    QUICK,
    VIDEO_ID,
    Running,
    TableBackend,
    TableMeter,
    connect_and_pause,
    run_curl,
    serve,
)
from tests.waiting import wait_until

SIZE = 3 * BLOCK_BYTES + 12345
DATA = make_bytes(SIZE, seed=9)
HASHES = block_hashes(DATA)


@pytest.fixture
def quick_server(store: HotStore) -> Iterator[Running]:
    """It soon gives up a source that says nothing."""
    with serve(store, TableBackend(), QUICK) as running:
        yield running


@pytest.fixture
def server(store: HotStore) -> Iterator[Running]:
    with serve(store, TableBackend()) as running:
        yield running


def put_whole(running: Running, data: bytes = DATA) -> None:
    running.backend.add(data)
    with running.store.create(ASSET, 1, resume=False) as writer:
        writer.append(data)
        writer.finish()


def mapped_files(running: Running) -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(running.store.root))


class TestFinishedFile:
    def test_the_whole_file_with_its_headers(self, server: Running) -> None:
        put_whole(server)
        answer = server.http.get(server.video, headers={"X-Request-Id": "my-request-1"})
        assert (answer.status_code, answer.content == DATA) == (200, True)
        headers = dict(answer.headers)
        assert headers.pop("date")
        assert headers.pop("server") == "uvicorn"
        assert headers == {
            "content-type": "video/mp4",
            "content-length": str(SIZE),
            "content-disposition": 'inline; filename="Unicode title.mp4"; '
            "filename*=UTF-8''%C3%9Cn%C3%AFcode%20title.mp4",
            "accept-ranges": "bytes",
            "cache-control": "private, no-cache",
            "etag": f'"{ASSET}-1"',
            "x-content-type-options": "nosniff",
            "x-request-id": "my-request-1",
        }
        assert server.backend.filler.filled == []

    def test_head_answers_the_same_headers_as_get(self, server: Running) -> None:
        put_whole(server)
        get, head = server.http.get(server.video), server.http.head(server.video, headers={"Range": "bytes=5-9"})
        varying = {"date", "x-request-id"}
        assert head.status_code == 200
        assert head.content == b""
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in get.headers.items() if k not in varying
        }

    def test_a_range_in_the_middle(self, server: Running) -> None:
        put_whole(server)
        answer = server.http.get(server.video, headers={"Range": "bytes=1048570-1048580"})
        assert (answer.status_code, answer.content) == (206, DATA[1048570:1048581])
        assert answer.headers["content-range"] == f"bytes 1048570-1048580/{SIZE}"
        assert answer.headers["content-length"] == "11"

    def test_a_range_outside_is_416_with_the_size(self, server: Running) -> None:
        put_whole(server)
        answer = server.http.get(server.video, headers={"Range": f"bytes={SIZE}-"})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
        body = answer.json()
        assert (body["status"], body["error"], body["request_id"]) == (
            False,
            "range_not_satisfiable",
            answer.headers["x-request-id"],
        )

    @pytest.mark.parametrize("header", ["bytes=0-1,5-6", "bytes=x", "seconds=1-2"])
    def test_several_or_bad_ranges_get_the_whole_file(self, server: Running, header: str) -> None:
        put_whole(server)
        answer = server.http.get(server.video, headers={"Range": header})
        assert (answer.status_code, len(answer.content)) == (200, SIZE)

    def test_if_range_and_if_none_match(self, server: Running) -> None:
        put_whole(server)
        etag = server.http.head(server.video).headers["etag"]
        for if_range, status in ((etag, 206), ('"other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)):
            answer = server.http.get(server.video, headers={"Range": "bytes=0-9", "If-Range": if_range})
            assert answer.status_code == status
        answer = server.http.get(server.video, headers={"If-None-Match": f'"x", {etag}'})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert "content-length" not in answer.headers

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_if_match_lets_only_that_file_through(self, server: Running, method: str) -> None:
        put_whole(server)
        etag = f'"{ASSET}-1"'
        for fits in (etag, f'"x", {etag}', "*"):
            answer = server.http.request(method, server.video, headers={"If-Match": fits})
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))
        for other in (f'"{ASSET}-2"', f"W/{etag}", f'"x", W/{etag}', ASSET):
            answer = server.http.request(method, server.video, headers={"If-Match": other})
            assert answer.status_code == 412, other
            assert answer.headers["content-type"] == "application/json"
        if method == "GET":
            body = answer.json()
            assert (body["status"], body["error"], body["retryable"]) == (False, "precondition_failed", False)
            assert body["request_id"] == answer.headers["x-request-id"]

    def test_if_match_counts_before_the_other_conditions_and_the_range(self, server: Running) -> None:
        put_whole(server)
        etag, some = f'"{ASSET}-1"', {"Range": "bytes=5-9"}
        for headers, status in (
            ({"If-Match": etag, **some}, 206),
            ({"If-Match": '"x"', **some}, 412),
            ({"If-Match": '"x"', "Range": f"bytes={SIZE}-"}, 412),
            ({"If-Match": etag, "If-None-Match": etag}, 304),
            ({"If-Match": '"x"', "If-None-Match": etag}, 412),
            ({"If-Match": etag, "If-Range": '"x"', **some}, 200),
        ):
            assert server.http.get(server.video, headers=headers).status_code == status, headers
        lines = [("If-Match", '"x"'), ("If-Match", etag)]
        assert server.http.get(server.video, headers=lines).status_code == 200

    def test_dates_are_no_conditions_where_no_date_is_sent(self, server: Running) -> None:
        put_whole(server)
        long_ago = "Wed, 21 Oct 2015 07:28:00 GMT"
        answer = server.http.get(server.video, headers={"If-Unmodified-Since": long_ago, "If-Modified-Since": long_ago})
        assert answer.status_code == 200
        assert "last-modified" not in answer.headers

    def test_what_does_not_fit_is_no_stream_of_the_key(self, server: Running) -> None:
        put_whole(server)
        server.backend.meter = TableMeter(limit=0)
        assert server.http.get(server.video, headers={"If-Match": '"x"'}).status_code == 412

    def test_attachment_when_the_target_says_so(self, server: Running) -> None:
        put_whole(server)
        answer = server.http.head(server.video, params={"download": "1"})
        assert answer.headers["content-disposition"].startswith("attachment; ")

    def test_curl_reads_ranges_and_goes_on_after_a_cut(self, server: Running, tmp_path: Path) -> None:
        put_whole(server)
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(DATA[:2_000_000])
        run_curl("-sf", "-C", "-", "-o", cut, server.video, check=True)
        assert cut.read_bytes() == DATA
        piece = run_curl("-sf", "-r", "-100", server.video, check=True)
        assert piece.stdout == DATA[-100:]

    def test_many_requests_on_one_connection(self, server: Running) -> None:
        put_whole(server)
        with httpx.Client(timeout=60) as client:
            for at in range(0, SIZE, 400_000):
                answer = client.get(server.video, headers={"Range": f"bytes={at}-{at + 99}"})
                assert answer.content == DATA[at : at + 100]


class TestRefusals:
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
    def test_other_methods_than_get_and_head_are_refused(self, server: Running, method: str) -> None:
        answer = server.http.request(method, server.video)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert answer.json()["error"] == "method_not_allowed"

    @pytest.mark.parametrize(
        "path",
        ["/stream/video/", "/stream/text/dQw4w9WgXcQ", "/stream/video/short", "/stream/video/dQw4w9WgXcQ/x", "/"],
    )
    def test_other_paths_are_not_found(self, server: Running, path: str) -> None:
        answer = server.http.get(server.url + path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")

    def test_a_bad_query_is_refused(self, server: Running) -> None:
        answer = server.http.get(server.video + "?" + "&".join("a=1" for _ in range(100)))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")

    def test_what_the_backend_refuses(self, server: Running) -> None:
        server.backend.add(DATA)
        server.backend.revoked.add("zzzzzzzz")
        answer = server.http.get(server.video, params={"key": "zzzzzzzz"})
        assert (answer.status_code, answer.json()["error"]) == (401, "key_invalid")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert server.http.head(server.video, params={"key": "zzzzzzzz"}).status_code == 401

    def test_an_unforeseen_fault_is_opaque(self, server: Running) -> None:
        server.backend.add(DATA)
        server.backend.filler.errors[0] = RuntimeError("secret detail")
        answer = server.http.get(server.video)
        assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
        assert "secret" not in answer.text


class TestBlocksFromElsewhere:
    def test_only_the_blocks_asked_for_are_brought(self, server: Running) -> None:
        server.backend.add(DATA)
        answer = server.http.get(server.video, headers={"Range": f"bytes={BLOCK_BYTES - 5}-{BLOCK_BYTES + 4}"})
        assert answer.content == DATA[BLOCK_BYTES - 5 : BLOCK_BYTES + 5]
        assert server.backend.filler.filled == [0, 1]
        assert server.http.get(server.video).content == DATA
        assert server.backend.filler.filled == [0, 1, 2, 3]
        assert server.http.get(server.video).content == DATA
        assert server.store.is_complete(ASSET, 1)

    def test_head_brings_nothing(self, server: Running) -> None:
        server.backend.add(DATA)
        assert server.http.head(server.video).headers["content-length"] == str(SIZE)
        assert server.backend.filler.filled == []

    def test_a_failure_before_the_first_byte_is_a_clean_error(self, server: Running) -> None:
        server.backend.add(DATA)
        server.backend.filler.errors[0] = UpstreamUnreachable(retry_after_s=7)
        answer = server.http.get(server.video)
        assert (answer.status_code, answer.json()["error"]) == (503, "upstream_unreachable")
        assert answer.headers["retry-after"] == "7"

    def test_bytes_that_are_gone_are_waited_for_as_the_new_generation(self, server: Running) -> None:
        old = server.backend.add(DATA)
        renewed = replace(old, generation=2, etag=f'"{ASSET}-2"')
        server.backend.renewals = [renewed]
        server.backend.filler.errors[0] = BytesGone("The stored copy is damaged.")
        answer = server.http.get(server.video, headers={"Range": "bytes=5-9"})
        assert (answer.status_code, answer.content) == (206, DATA[5:10])
        assert answer.headers["etag"] == renewed.etag
        assert server.backend.renewals == []

    def test_a_range_of_the_generation_that_is_gone_gets_the_new_one_whole(self, server: Running) -> None:
        old = server.backend.add(DATA)
        server.backend.renewals = [replace(old, generation=2, etag=f'"{ASSET}-2"')]
        server.backend.filler.errors[0] = BytesGone()
        answer = server.http.get(server.video, headers={"Range": "bytes=5-9", "If-Range": old.etag})
        assert (answer.status_code, answer.content) == (200, DATA)

    def test_if_match_brings_nothing_where_it_does_not_fit(self, server: Running) -> None:
        etag = server.backend.add(DATA).etag
        answer = server.http.get(server.video, headers={"If-Match": '"x"'})
        assert (answer.status_code, answer.json()["error"]) == (412, "precondition_failed")
        assert server.backend.filler.filled == []
        answer = server.http.get(server.video, headers={"If-Match": etag, "Range": "bytes=5-9"})
        assert (answer.status_code, answer.content) == (206, DATA[5:10])

    @pytest.mark.parametrize(("wanted", "status"), [(1, 412), (2, 206)])
    def test_if_match_means_the_generation_that_is_sent(self, server: Running, wanted: int, status: int) -> None:
        old = server.backend.add(DATA)
        renewed = replace(old, generation=2, etag=f'"{ASSET}-2"')
        server.backend.renewals = [renewed]
        server.backend.filler.errors[0] = BytesGone()
        both = {"If-Match": f'{old.etag}, "{ASSET}-{wanted}"', "Range": "bytes=5-9"}
        assert server.http.get(server.video, headers=both).status_code == status
        assert server.backend.renewals == []

    def test_bytes_that_are_gone_after_the_first_one_end_the_connection(self, server: Running) -> None:
        server.backend.add(DATA)
        server.backend.filler.errors[1] = BytesGone()
        with pytest.raises(httpx.RemoteProtocolError):
            server.http.get(server.video)

    def test_a_stuck_source_before_the_first_byte_is_a_time_out(self, quick_server: Running) -> None:
        server = quick_server
        server.backend.add(DATA)
        server.backend.filler.stuck.add(0)
        answer = server.http.get(server.video)
        assert (answer.status_code, answer.json()["error"]) == (504, "upstream_timeout")
        assert answer.headers["retry-after"] == "5"
        assert server.backend.filler.cancelled == [0]

    @pytest.mark.parametrize("fault", ["error", "stuck"])
    def test_a_failure_later_is_visible_to_the_client(self, quick_server: Running, fault: str) -> None:
        server = quick_server
        server.backend.add(DATA)
        if fault == "error":
            server.backend.filler.errors[2] = UpstreamUnreachable()
        else:
            server.backend.filler.stuck.add(2)
        received: list[bytes] = []
        with server.http.stream("GET", server.video) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                received.extend(answer.iter_raw())
        assert b"".join(received) == DATA[: 2 * BLOCK_BYTES]
        curl = run_curl("-sf", "-o", "/dev/null", server.video)
        assert curl.returncode == 18  # partial file
        server.wait_until_idle()

    def test_a_client_that_leaves_stops_the_filling_at_once(self, server: Running) -> None:
        server.backend.add(DATA)
        server.backend.filler.stuck.add(1)
        client = connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}", receive_buffer=4 * BLOCK_BYTES)
        received = 0
        while received < BLOCK_BYTES:
            received += len(client.recv(1 << 20))
        client.close()
        wait_until(lambda: server.backend.filler.cancelled == [1])
        server.wait_until_idle()
        wait_until(lambda: mapped_files(server) == 0, what="the release of the mapping")

    def test_a_file_evicted_while_it_is_read_is_opened_again(self, server: Running) -> None:
        server.backend.add(DATA)
        first = server.store.open_sparse(ASSET, 1, size_bytes=SIZE, block_hashes=HASHES)
        first.put_block(0, block_of(DATA, 0), sha256=HASHES[0])
        server.store.remove(ASSET, 1)
        with server.http.stream("GET", server.video) as answer:
            pieces = answer.iter_raw()
            got = next(pieces)
            server.store.remove(ASSET, 1)
            server.backend.filler.into = server.store.open_sparse(ASSET, 1, size_bytes=SIZE, block_hashes=HASHES)
            got += b"".join(pieces)
        assert got == DATA

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        present=st.sets(st.integers(0, 3)),
        first=st.integers(0, SIZE + 1000),
        last=st.one_of(st.none(), st.integers(0, SIZE + 1000)),
    )
    def test_any_range_over_any_blocks_gives_the_same_bytes(
        self, server: Running, present: set[int], first: int, last: int | None
    ) -> None:
        server.backend.add(DATA)
        server.store.remove(ASSET, 1)
        server.backend.filler.filled.clear()
        hot_file = server.store.open_sparse(ASSET, 1, size_bytes=SIZE, block_hashes=HASHES)
        for block in present:
            hot_file.put_block(block, block_of(DATA, block), sha256=HASHES[block])
        hot_file.close()
        answer = server.http.get(server.video, headers={"Range": f"bytes={first}-{'' if last is None else last}"})
        if last is not None and last < first:
            assert (answer.status_code, answer.content == DATA) == (200, True)
        elif first >= SIZE:
            assert answer.status_code == 416
        else:
            stop = SIZE if last is None else min(SIZE, last + 1)
            assert (answer.status_code, answer.content == DATA[first:stop]) == (206, True)
            wanted = set(range(first // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1))
            assert server.backend.filler.filled == sorted(wanted - present)


class TestWhatTheEventRecordLearns:
    @pytest.mark.parametrize(
        ("present", "tier"), [("all of it", "hot"), ("nothing", "telegram"), ("its beginning", "external")]
    )
    async def test_whose_stream_it_is_and_where_its_bytes_come_from(
        self, store: HotStore, present: str, tier: str
    ) -> None:
        data = DATA
        backend = TableBackend()
        target = backend.add(data, finished=present != "its beginning", size=len(data))
        if present != "nothing":
            with store.create(ASSET, 1, resume=False) as writer:
                writer.set_size(len(data))
                writer.append(data)
                if present == "all of it":
                    writer.finish()
                scope = await self.ask(store, backend)
        else:
            scope = await self.ask(store, backend)
        assert noted(scope) == {
            "key_prefix": target.key_prefix,
            "video_id": VIDEO_ID,
            "asset_id": ASSET,
            "tier": tier,
        }

    async def test_why_it_failed(self, store: HotStore) -> None:
        assert noted(await self.ask(store, TableBackend())) == {"error": "not_found"}

    @staticmethod
    async def ask(store: HotStore, backend: TableBackend) -> Scope:
        scope = {
            "type": "http", "method": "HEAD", "path": f"/stream/video/{VIDEO_ID}", "query_string": b"", "headers": [],
        }  # fmt: skip

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            pass

        await StreamApp(backend, store)(scope, receive, send)
        return scope


class TestKeys:
    def test_a_revoked_key_ends_its_running_streams_only(self, server: Running) -> None:
        server.backend.add(DATA)
        server.backend.filler.stuck.add(3)
        with (
            server.http.stream(
                "GET", server.video, params={"key": "goodgood"}, headers={"Range": "bytes=0-2000000"}
            ) as good,
            server.http.stream("GET", server.video, params={"key": "evilevil"}) as evil,
        ):
            pieces = evil.iter_raw()
            next(pieces)
            server.backend.revoked.add("evilevil")
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
            assert len(good.read()) == 2_000_001
        server.wait_until_idle()

    def test_a_caller_whose_network_is_no_longer_let_in_is_ended_and_others_of_the_key_go_on(
        self, server: Running
    ) -> None:
        server.backend.add(DATA)
        server.backend.filler.stuck.add(3)
        with (
            server.http.stream("GET", server.video, headers={"Range": "bytes=0-2000000"}) as good,
            server.http.stream("GET", server.video, params={"from": "192.0.2.7"}) as outside,
        ):
            pieces = outside.iter_raw()
            next(pieces)
            server.backend.networks_gone.add("192.0.2.7")
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
            assert len(good.read()) == 2_000_001
        server.wait_until_idle()

    def test_a_look_that_fails_is_not_the_last_one(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        server.backend.add(DATA)
        server.backend.filler.stuck.add(3)
        usual, failed = server.backend.still_allowed, asyncio.Event()

        async def fails_once(target: StreamTarget) -> bool:
            if not failed.is_set():
                failed.set()
                raise RuntimeError("nobody foresaw this")
            return await usual(target)

        monkeypatch.setattr(server.backend, "still_allowed", fails_once)
        with server.http.stream("GET", server.video, params={"key": "evilevil"}) as evil:
            pieces = evil.iter_raw()
            next(pieces)
            wait_until(failed.is_set)
            server.backend.revoked.add("evilevil")
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        server.wait_until_idle()

    def test_a_key_is_looked_at_once_for_all_its_streams(self, server: Running) -> None:
        put_whole(server)
        clients = [connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}") for _ in range(20)]
        start = len(server.backend.checked_at)
        wait_until(lambda: len(server.backend.checked_at) >= start + 5)
        looks = server.backend.checked_at[start:]
        assert min(after - before for before, after in pairwise(looks)) >= 0.9 * PATIENT.key_check_s
        for client in clients:
            client.close()
        server.wait_until_idle()

    def test_a_client_that_takes_nothing_for_too_long_is_let_go(self, store: HotStore) -> None:
        with serve(store, TableBackend(), replace(PATIENT, client_stall_s=0.3)) as server:
            put_whole(server)
            client = connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}")
            wait_until(lambda: len(server.app.running) == 1)
            server.wait_until_idle()
            client.close()


class TestMeter:
    """A limited stream. Its meter is closed also when it refused: a real one is one object for each stream."""

    def test_a_stream_counts_from_its_start_to_its_end(self, server: Running) -> None:
        put_whole(server)
        meter = server.backend.meter = TableMeter()
        client = connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}")
        wait_until(lambda: meter.open_now == 1)
        client.close()
        wait_until(lambda: meter.open_now == 0, what="the end of the stream that was left")
        assert server.http.get(server.video).content == DATA
        wait_until(lambda: meter.open_now == 0, what="the end of the stream")
        assert meter.left <= 10**9 - SIZE

    def test_one_too_many_is_a_clean_error_and_head_counts_nothing(self, server: Running) -> None:
        put_whole(server)
        meter = server.backend.meter = TableMeter(limit=0)
        answer = server.http.get(server.video)
        assert (answer.status_code, answer.json()["error"]) == (429, "too_many_streams")
        assert server.http.head(server.video).status_code == 200
        assert meter.left == 10**9

    def test_not_one_byte_more_than_the_limit_leaves(self, server: Running) -> None:
        put_whole(server)
        server.backend.meter = TableMeter(limit=9, left=700_001)
        got: list[bytes] = []
        with server.http.stream("GET", server.video) as answer, pytest.raises(httpx.RemoteProtocolError):
            got.extend(answer.iter_raw())
        assert b"".join(got) == DATA[:700_001]
        server.backend.meter = TableMeter(limit=9, left=1000)
        part = server.http.get(server.video, headers={"Range": "bytes=5-1004"})
        assert (part.status_code, part.content == DATA[5:1005]) == (206, True)
        server.wait_until_idle()


class TestManyClients:
    def test_paused_clients_share_one_mapping_and_free_it_when_they_go(self, server: Running) -> None:
        put_whole(server)
        clients = [connect_and_pause(server.port, f"/stream/video/{VIDEO_ID}") for _ in range(50)]
        wait_until(lambda: len(server.app.running) == 50)
        assert mapped_files(server) == 2
        for client in clients:
            client.close()
        server.wait_until_idle()
        wait_until(lambda: mapped_files(server) == 0, what="the release of the mapping")

    def test_removal_does_not_disturb_who_reads(self, server: Running) -> None:
        put_whole(server)
        with server.http.stream("GET", server.video) as answer:
            pieces = answer.iter_raw()
            got = next(pieces)
            server.store.remove(ASSET, 1)
            got += b"".join(pieces)
        assert got == DATA
