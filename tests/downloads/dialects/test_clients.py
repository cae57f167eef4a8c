"""Bots against a running server, with yt-dlp's own extractor and the YouTube stand-in behind it."""

import asyncio
import threading
from dataclasses import dataclass

import aiohttp
import httpx
import pytest

from apps.downloads.dialects import track
from apps.keys.services import create_key
from tests.downloads.dialects.clients import BotClient, BotError
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.youtube import YouTubeStandIn
from tests.standins.youtube_lists import search_ids

M4A, MP4_HEAD = 140, b"ftyp"
BOTS_WAIT_S = 10


@dataclass
class World:
    instance: Instance
    youtube: YouTubeStandIn
    key: str

    def run(self, use, *, key: str = ""):
        """What ``use(bot)`` gives."""

        async def go():
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
                return await use(BotClient(self.instance.url, key or self.key, session))

        return asyncio.run(go())

    def original(self, video_id: str) -> bytes:
        return self.youtube.file_of(video_id, M4A)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    empty_everything()
    with YouTubeStandIn() as youtube:
        instance = Instance(
            tmp_path_factory.mktemp("dialects"),
            {"PUBLIC_URL": "", "PROVIDERS": "ytdlp", "DIALECTS": "song,track,v2,query", **youtube.settings},
        )
        try:
            instance.start()
            yield World(instance, youtube, create_key(name="bot", limit_per_hour=100_000).key)
        finally:
            instance.stop()


class TestSong:
    def test_gets_a_cold_song_by_polling(self, world):
        song = world.run(lambda bot: bot.song("song0000001"))
        assert song.content == world.original("song0000001")
        assert (song.file_name, song.title) == ("song0000001.m4a", "Video song0000001")
        assert world.youtube.downloads("song0000001", M4A) == 1

    def test_gets_a_video(self, world):
        song = world.run(lambda bot: bot.song("song0000002", kind="video"))
        assert song.content[4:8] == MP4_HEAD
        assert song.file_name == "song0000002.mp4"

    def test_gives_up_on_one_that_is_private(self, world):
        with pytest.raises(BotError, match="video_private"):
            world.run(lambda bot: bot.song("private0001"))

    def test_is_told_of_a_wrong_key(self, world):
        with pytest.raises(BotError, match="401"):
            world.run(lambda bot: bot.song("song0000001"), key="wrong")


class TestTrack:
    @pytest.mark.parametrize("read", ["cdnurl", "url"])
    def test_gets_a_cold_song_whichever_link_it_reads(self, world, read):
        video_id = f"track{read:0>6}"
        song = world.run(lambda bot: bot.track(f"https://youtu.be/{video_id}", read=read))
        assert song.content == world.original(video_id)
        assert song.file_name == f"Video {video_id}.m4a"

    def test_gets_a_cold_video(self, world):
        song = world.run(lambda bot: bot.track("track000002", video=True))
        assert song.content[4:8] == MP4_HEAD
        assert song.file_name == "Video track000002.mp4"

    def test_has_its_answer_in_time_also_when_youtube_is_slow(self, world):
        assert max(track.INFO_WAIT_S, track.SEARCH_WAIT_S) < BOTS_WAIT_S
        youtube_speaks = threading.Event()
        world.youtube.faults.add("watch", until=youtube_speaks)
        try:
            link = world.run(_track_link)  # though YouTube has not said a word
        finally:
            youtube_speaks.set()
        assert httpx.get(link, timeout=60).content == world.original("track000003")

    def test_words_mean_the_first_result(self, world):
        song = world.run(lambda bot: bot.track("some words"))
        assert song.content == world.original(search_ids("some words")[0])


async def _track_link(bot):
    headers = {"X-API-Key": bot.key}
    async with bot.session.get(f"{bot.url}/api/track", params={"url": "track000003"}, headers=headers) as response:
        return (await response.json())["url"]


class TestV2:
    @pytest.mark.parametrize("read", ["cdn", "cdnurl", "public_url", "download_url", "url"])
    def test_gets_a_song_whichever_link_it_reads(self, world, read):
        song = world.run(lambda bot: bot.v2("v2song00001", read=read))
        assert song.content == world.original("v2song00001")
        assert song.file_name == "Video v2song00001.m4a"

    @pytest.mark.parametrize("video", [True, False])
    def test_one_that_insists_on_a_job_gets_one_each_time(self, world, video):
        for _ in range(2):
            song = world.run(lambda bot: bot.v2("v2song00002", video=video, insist=True))
            assert song.content[4:8] == MP4_HEAD

    def test_words_mean_the_first_result(self, world):
        song = world.run(lambda bot: bot.v2("other words"))
        assert song.content == world.original(search_ids("other words")[0])

    def test_gives_up_on_one_that_is_removed(self, world):
        with pytest.raises(BotError, match="video_unavailable"):
            world.run(lambda bot: bot.v2("removed0001"))


class TestQuery:
    def test_gets_a_stream_for_words(self, world):
        song = world.run(lambda bot: bot.query("more words"))
        video_id = search_ids("more words")[0]
        assert song.content == world.original(video_id)
        assert (song.title, song.file_name) == (f"Video {video_id}", f"Video {video_id}.m4a")

    def test_gets_the_bytes_themselves(self, world):
        song = world.run(lambda bot: bot.query("yet more words", download=True))
        video_id = search_ids("yet more words")[0]
        assert song.content == world.original(video_id)
        assert song.file_name == f"Video {video_id}.m4a"
        assert world.youtube.downloads(video_id, M4A) == 1


def test_a_crowd_of_bots_makes_one_search_and_one_download(world):
    words, count = "everybody wants this", 12

    async def crowd(bot):
        bots = [bot.track(words), bot.v2(words), bot.query(words), bot.query(words, download=True)]
        return await asyncio.gather(*bots, *(bot.query(words) for _ in range(count)))

    songs = world.run(crowd)
    video_id = search_ids(words)[0]
    assert {song.content for song in songs} == {world.original(video_id)}
    assert world.youtube.counts[f"search:{words}"] == 1
    assert world.youtube.downloads(video_id, M4A) == 1
