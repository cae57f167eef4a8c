"""What a video that nobody has asked for before costs: questions to MongoDB and to Redis until its job is queued."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread, current_thread, main_thread
from typing import Any

import pytest
from pymongo.monitoring import CommandStartedEvent
from redis.connection import AbstractConnection

from apps.core.request_state import BRIDGE, REPLAYED
from apps.core.suspend import SUSPEND_HEADER
from apps.core.wake import publish, wake_hub
from apps.downloads import stream_backend
from apps.downloads.documents import MediaJob
from apps.downloads.stream_backend import make_backend
from apps.streaming.ports import StreamRequest
from tests.downloads.conftest import Api
from tests.downloads.library import known_info
from tests.scans import scans
from tests.waiting import wait_until

FIRST, NEW = "firstvideo0", "a-new-video"


@dataclass
class Sent:
    """What the requests of a test send. What other threads of this process do meanwhile is not theirs."""

    mongo: list[str] = field(default_factory=list)
    redis: list[bytes] = field(default_factory=list)

    def clear(self) -> None:
        self.mongo.clear()
        self.redis.clear()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    noted = Sent()

    def is_ours() -> bool:
        return current_thread() is main_thread() or current_thread().name.startswith("stream-backend")

    def note_mongo(event: CommandStartedEvent) -> None:
        if is_ours():
            noted.mongo.append(f"{event.command_name} {event.command[event.command_name]}")

    send: Callable[..., None] = AbstractConnection.send_packed_command

    def note_redis(connection: AbstractConnection, command: Any, **how: Any) -> None:
        if is_ours():
            noted.redis.append(command if isinstance(command, bytes) else b"".join(command))
        send(connection, command, **how)

    monkeypatch.setattr(scans, "started", note_mongo)
    monkeypatch.setattr(AbstractConnection, "send_packed_command", note_redis)
    return noted


def ask(api: Api, video_id: str, state: dict[str, Any]) -> Any:
    """One run of the view, as the bridge has it. ``state`` is what it keeps of a request between runs."""
    body, kind = json.dumps({"url": video_id}), "application/json"
    response = api.client.post("/api/v1/video", body, content_type=kind, **state)
    kept = response.wsgi_request.META
    state |= {name: kept[name] for name in REPLAYED if name in kept}
    return response


def ask_for_new(api: Api, video_id: str) -> None:
    """Until its job is queued: the view runs once before the metadata is known, and once after."""
    state: dict[str, Any] = {BRIDGE: True}
    assert ask(api, video_id, state).headers[SUSPEND_HEADER] == f"info:{video_id}"
    answer_in_worker(video_id)
    assert ask(api, video_id, state).json()["job"]["state"] == "queued"


def answer_in_worker(video_id: str) -> None:
    """The metadata comes, and whoever waits for it is woken: that is no part of the request."""
    worker = Thread(target=lambda: (known_info(video_id), publish(f"info:{video_id}")))
    worker.start()
    worker.join()


def test_a_request_asks_mongodb_and_redis_no_more_than_it_must(api, sent):
    ask_for_new(api, FIRST)  # connections are made, and some things are read, once
    sent.clear()
    ask_for_new(api, NEW)
    asked = sent.mongo.copy(), sent.redis.copy()
    assert 0 < len(asked[0]) <= 13, asked[0]
    assert 0 < len(asked[1]) <= 10, asked[1]
    assert MediaJob.objects(video_id=NEW).count() == 1


async def test_a_stream_asks_mongodb_and_redis_no_more_than_it_must(api, sent, monkeypatch):
    monkeypatch.setattr(stream_backend, "RECHECK_S", 600)  # it looks when it is woken
    backend = make_backend()

    async def until(condition: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, condition)

    async def stream(video_id: str) -> None:
        """Until its job is queued and it waits for the bytes."""
        path = f"/stream/audio/{video_id}"
        headers = {"x-api-key": api.key}
        of_video = {"kind": "audio", "video_id": video_id, "path": path, "query": {}}
        request = StreamRequest(**of_video, headers=headers, client_address="127.0.0.1", method="GET")
        opening = asyncio.create_task(backend.open_target(request))
        await until(lambda: backend.waiting)
        await asyncio.to_thread(answer_in_worker, video_id)
        await until(lambda: MediaJob.objects(video_id=video_id).count())
        await until(lambda: backend.waiting)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    try:
        await stream(FIRST)
        sent.clear()
        await stream(NEW)
        asked = sent.mongo.copy(), sent.redis.copy()
    finally:
        await wake_hub().aclose()
        await backend.aclose()
    assert 0 < len(asked[0]) <= 17, asked[0]
    assert 0 < len(asked[1]) <= 8, asked[1]
    assert MediaJob.objects(video_id=NEW).count() == 1
