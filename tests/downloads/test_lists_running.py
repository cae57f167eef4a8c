"""Lists, batches, subtitles and pictures over a running server and worker, with the YouTube stand-in outside."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from apps.keys.services import create_key
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.youtube import PIXEL, YouTubeStandIn
from tests.standins.youtube_lists import CHANNEL_ID, channel_ids, playlist_ids, search_ids
from tests.waiting import wait_until

PLAYLIST = "PLrunningserver01"


@dataclass
class World:
    instance: Instance
    youtube: YouTubeStandIn
    api: httpx.Client

    def get(self, path: str, **fields: Any) -> dict[str, Any]:
        response = self.api.get(f"/api/v1/{path}", params=fields)
        assert response.status_code == 200, response.text
        return response.json()

    def ids(self, path: str, **fields: Any) -> list[str]:
        return [video["video_id"] for video in self.get(path, **fields)["videos"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    empty_everything()
    with YouTubeStandIn() as youtube:
        instance = Instance(
            tmp_path_factory.mktemp("lists"), {"PUBLIC_URL": "", "PROVIDERS": "ytdlp", **youtube.settings}
        )
        try:
            instance.start()
            headers = {"X-API-Key": create_key(name="lists", limit_per_hour=100_000).key}
            with httpx.Client(base_url=instance.url, headers=headers, timeout=60) as api:
                yield World(instance, youtube, api)
        finally:
            instance.stop()


def test_lists_come_page_by_page(world):
    assert world.ids("search", q="a song", page=2, page_size=10) == search_ids("a song")[10:20]
    assert world.ids("playlist", url=PLAYLIST, page=3, page_size=50) == playlist_ids(PLAYLIST)[100:]
    assert (
        world.ids("channel", url=f"https://www.youtube.com/channel/{CHANNEL_ID}")
        == channel_ids(f"channel/{CHANNEL_ID}")[:20]
    )


def test_a_crowd_with_one_question_asks_youtube_once(world):
    async def crowd() -> set[str]:
        async with httpx.AsyncClient(base_url=world.instance.url, headers=world.api.headers, timeout=60) as api:
            answers = await asyncio.gather(*(api.get("/api/v1/search", params={"q": "crowd"}) for _ in range(40)))
        return {answer.json()["videos"][0]["video_id"] for answer in answers}

    assert asyncio.run(crowd()) == {search_ids("crowd")[0]}
    assert world.youtube.counts["search:crowd"] == 1


def test_a_batch_fetches_each_of_its_files_and_tells_what_is_wrong_with_the_others(world):
    links = ["batch000001", "https://youtu.be/batch000002", "private0001", "nonsense"]
    batch_id = world.api.post("/api/v1/batch", json={"urls": links}).json()["id"]
    wait_until(lambda: world.get(f"batch/{batch_id}")["state"] == "done", timeout_s=60)
    answer = world.get(f"batch/{batch_id}")
    assert answer["counts"] == {"queued": 0, "running": 0, "done": 2, "failed": 2, "cancelled": 0}
    for entry, video_id in zip(answer["entries"], ("batch000001", "batch000002"), strict=False):
        assert httpx.get(entry["file"]["download_url"], timeout=60).content == world.youtube.file_of(video_id, 140)
    failures = [entry["failure"]["code"] for entry in answer["entries"][2:]]
    assert failures == ["video_private", "invalid_url"]


def test_subtitles_and_pictures_come(world):
    response = world.api.get("/api/v1/subtitles", params={"url": "captions001", "lang": "en"})
    assert response.text.startswith("WEBVTT\n\n00:00:01.000 --> ")
    assert world.api.get("/api/v1/thumbnail/captions001").content == PIXEL
