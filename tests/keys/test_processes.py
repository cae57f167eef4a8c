"""Keys and limits over several web processes that run, with a Redis of their own that goes away and comes back."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.core.embedded import redis_command, wait_for_redis
from apps.core.indexes import ensure_indexes
from apps.core.supervisor import end_with_us
from apps.keys.changes import rotate_key, update_key
from apps.keys.services import create_key, revoke_key
from tests.downloads.library import AUDIO, VIDEO_ID, known_info, put_hot
from tests.instance import Instance
from tests.ports import free_port
from tests.waiting import wait_until

PROCESSES = 2
CONTENT = bytes(range(256)) * (24 * 4096)  # 24 MiB: more than sockets hold
TAKES_EFFECT_S = 1.0


@dataclass
class OwnRedis:
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            end_with_us(redis_command(self.folder, port=self.port, log=self.folder / "redis.log")),
            stdout=subprocess.DEVNULL,
        )
        wait_for_redis(self.port)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=120)


@dataclass
class World:
    instance: Instance
    redis: OwnRedis

    def ask(self, key: str, *, times: int = 1) -> Counter[Any]:
        """Each time over a new connection, so that every process gets some."""
        answers: Counter[Any] = Counter()
        with httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            for _ in range(times):
                answer = client.get(
                    f"{self.instance.url}/api/v1/info", params={"url": VIDEO_ID}, headers={"X-API-Key": key}
                )
                answers[answer.status_code if answer.status_code == 200 else answer.json()["error"]] += 1
        return answers

    def link(self, key: str) -> str:
        answer = httpx.get(
            f"{self.instance.url}/api/v1/audio",
            params={"url": VIDEO_ID, "format": "m4a"},
            headers={"X-API-Key": key},
            timeout=60,
        )
        link: str = answer.json()["stream_url"]
        return self.instance.url + link[link.index("/stream/") :]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "redis").mkdir()
    redis = OwnRedis(folder / "redis")
    redis.start()
    settings = {"REDIS_URL": f"redis://127.0.0.1:{redis.port}/0", "WEB_WORKERS": str(PROCESSES)}
    instance = Instance(folder, settings, worker_threads=1, web_processes=PROCESSES)
    try:
        yield World(instance.start(), redis)
    finally:
        instance.stop()
        redis.kill()


@pytest.fixture(autouse=True)
def _media(mongo, hot_root) -> None:
    ensure_indexes()
    known_info()
    put_hot(AUDIO, CONTENT)


def after_it_takes_effect(changed_at: float) -> None:
    wait_until(lambda: time.monotonic() > changed_at + TAKES_EFFECT_S)


class TestChanges:
    def test_a_changed_a_rotated_and_a_revoked_key_is_so_in_every_process_a_second_later(self, world):
        new = create_key(name="bot", limit_per_hour=1000)
        prefix = new.document.prefix
        assert world.ask(new.key, times=12) == {200: 12}
        update_key(prefix, {"limit_per_hour": 5}, actor="tester")
        after_it_takes_effect(time.monotonic())
        assert world.ask(new.key, times=12) == {"rate_limited": 12}
        update_key(prefix, {"limit_per_hour": 1000, "scopes": ["search"]}, actor="tester")
        after_it_takes_effect(time.monotonic())
        assert world.ask(new.key, times=12) == {"scope_missing": 12}
        update_key(prefix, {"scopes": ["info"]}, actor="tester")
        rotated = rotate_key(prefix, grace_s=0, actor="tester")
        after_it_takes_effect(time.monotonic())
        assert world.ask(new.key, times=12) == {"key_invalid": 12}
        assert world.ask(rotated.key, times=12) == {200: 12}
        revoke_key(prefix)
        after_it_takes_effect(time.monotonic())
        assert world.ask(rotated.key, times=12) == {"key_disabled": 12}

    def test_running_streams_end_with_their_key_in_every_process(self, world):
        new, other = create_key(name="bot"), create_key(name="other")
        link, other_link = world.link(new.key), world.link(other.key)
        revoked_at = threading.Event()
        ends: list[float] = []
        begun = [threading.Event() for _ in range(8)]

        def read(number: int) -> None:
            with httpx.stream("GET", link, timeout=60) as answer:
                pieces = answer.iter_raw(65536)
                next(pieces)
                begun[number].set()
                revoked_at.wait(60)
                try:
                    for _ in pieces:  # no faster than this, or it would be over first
                        time.sleep(0.02)
                except httpx.RemoteProtocolError:
                    ends.append(time.monotonic())

        readers = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for reader in readers:
            reader.start()
        assert all(event.wait(60) for event in begun)
        revoke_key(new.document.prefix)
        revoked_at.set()
        for reader in readers:
            reader.join(60)
        assert len(ends) == 8
        assert httpx.get(link, timeout=60).json()["error"] == "key_disabled"
        assert httpx.get(other_link, timeout=60).content == CONTENT


class TestStreams:
    def test_streams_are_counted_over_the_processes_and_free_when_they_end(self, world):
        key = create_key(name="bot", concurrent_streams=4).key
        link = world.link(key)
        with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            open_now = [client.send(client.build_request("GET", link), stream=True) for _ in range(10)]
            refused = [answer for answer in open_now if answer.status_code == 429]
            assert [answer.status_code for answer in open_now].count(200) == 4
            assert len(refused) == 6
            assert refused[0].headers["Retry-After"] == "5"
            for answer in open_now:
                answer.close()
            wait_until(lambda: client.get(link, headers={"Range": "bytes=0-9"}).status_code == 206)

    def test_not_a_byte_more_than_the_day_allows_leaves_over_the_processes(self, world):
        limit = 5_000_000
        key = create_key(name="bot", bytes_per_day=limit).key
        link = world.link(key)
        got: list[int] = []

        def read() -> None:
            size = 0
            try:
                with httpx.stream("GET", link, timeout=60) as answer:
                    if answer.status_code == 200:
                        for piece in answer.iter_raw():
                            size += len(piece)
            except httpx.RemoteProtocolError:
                pass
            got.append(size)

        readers = [threading.Thread(target=read) for _ in range(6)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
        while sum(got) < limit:  # what was given back when others were refused
            read()
        assert sum(got) == limit
        assert httpx.get(link, timeout=60).json()["error"] == "quota_exceeded"


class TestRedisAway:
    def test_callers_go_on_being_served_and_limited_and_see_no_fault(self, world):
        key = create_key(name="bot", limit_per_hour=9).key
        wide = create_key(name="wide", limit_per_hour=100_000, concurrent_streams=30).key
        link = world.link(wide)
        world.redis.kill()
        try:
            seen = world.ask(key, times=40)
            assert set(seen) <= {200, "rate_limited"}
            assert 1 <= seen[200] <= 9
            assert world.ask(wide, times=12) == {200: 12}
            assert httpx.get(link, timeout=60).content == CONTENT
            assert (
                httpx.get(world.instance.url + "/api/v1/info?url=x&api_key=nonsense", timeout=60).json()["error"]
                == "key_invalid"
            )
        finally:
            world.redis.start()
        wait_until(lambda: world.ask(create_key(name="new", limit_per_hour=1).key, times=6)[200] == 1)
