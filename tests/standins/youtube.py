"""A YouTube behind a forward proxy that answers CONNECT by terminating TLS itself (shared facts: ytdlp.md).

yt-dlp's unmodified extractor runs against it: the watch page and ``/youtubei/v1/player`` with plain media addresses,
``*.googlevideo.com/videoplayback`` with Range (header or parameter), ``i.ytimg.com`` thumbnails, and the lists of
``youtube_lists``. Fault routes: watch, embed, player, search, browse, playlist, channel, timedtext, thumbnail,
media, media:<id>, media:<id>:<itag>. ``cookies_sent`` holds the cookies of each watch page's request; ``set_cookie``
is what the watch page sets. ``tokens_sent`` and ``visitors_sent`` hold the PO token and the visitor of each player
request.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import trustme
from aiohttp import web

from tests.standins.faults import Fault, answer_instead, send_bytes
from tests.standins.media import Media, make_media
from tests.standins.server import StandIn
from tests.standins.youtube_lists import GONE, browse_response, channel_data, playlist_data, search_response
from tests.standins.youtube_videos import VIDEOS, YouTubeVideo, file_of_itag, initial_data, player_response, timed_text

HOSTS = ("youtube.com", "*.youtube.com", "*.googlevideo.com", "i.ytimg.com", "youtubei.googleapis.com")
PIXEL = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


class YouTubeStandIn(StandIn):
    """``videos`` holds those with a special state; with ``know_all`` any other id is an ordinary video."""

    def __init__(self, *, know_all: bool = True) -> None:
        super().__init__()
        self.authority = trustme.CA()
        self.know_all = know_all
        self.videos: dict[str, YouTubeVideo] = dict(VIDEOS)
        for video_id, video in self.videos.items():
            for fault in video.media_faults:
                self.faults.add(f"media:{video_id}", fault)
        self.set_cookie: dict[str, str] = {}
        self.cookies_sent: list[dict[str, str]] = []
        self.tokens_sent: list[str | None] = []
        self.visitors_sent: list[str | None] = []
        self._generations: dict[str, int] = {}
        self._tls_port = 0
        self._proxy: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[Any]] = set()

    @property
    def settings(self) -> dict[str, str]:
        return {"YTDLP_OPTIONS": json.dumps({"proxy": self.url, "nocheckcertificate": True})}

    def find_video(self, video_id: str) -> YouTubeVideo | None:
        if video_id in self.videos or not self.know_all:
            return self.videos.get(video_id)
        return YouTubeVideo(title=f"Video {video_id}", size="large" if video_id.startswith("large") else "small")

    def media_of(self, video_id: str) -> Media:
        video = self.find_video(video_id)
        assert video is not None
        return make_media(video.size)

    def file_of(self, video_id: str, itag: int) -> bytes:
        """The bytes that a download of this format gives."""
        media = self.media_of(video_id)
        return media.read(file_of_itag(media, itag).name, f"{video_id}:{itag}")

    def downloads(self, video_id: str, itag: int | None = None) -> int:
        """How often somebody asked for the first byte of a video's media (of all formats, or of one)."""
        return self.counts[f"starts:{video_id}" if itag is None else f"starts:{video_id}:{itag}"]

    async def serve(self) -> int:
        self._tls_port = await self.serve_app(self.make_app(), ssl_context=self._make_context())
        self._proxy = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._proxy.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        await super().close()

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*HOSTS).configure_cert(context)
        return context

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client left, or the stand-in stops
        finally:
            self._pipes.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n")[0].split(" ", 2)
        self.counts["connects"] += 1
        host = target.rpartition(":")[0]
        if method != "CONNECT" or not any(host == name or host.endswith(name.lstrip("*")) for name in HOSTS):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        near_reader, near_writer = await asyncio.open_connection("127.0.0.1", self._tls_port)
        try:
            ways = [
                asyncio.ensure_future(_pump(reader, near_writer)),
                asyncio.ensure_future(_pump(near_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            near_writer.close()

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/watch", self._watch)
        app.router.add_get("/embed/{video_id}", self._embed)
        app.router.add_post("/youtubei/v1/player", self._player)
        app.router.add_post("/youtubei/v1/next", self._next)
        app.router.add_get("/", self._home)
        app.router.add_post("/youtubei/v1/search", self._search)
        app.router.add_post("/youtubei/v1/browse", self._browse)
        app.router.add_get("/playlist", self._playlist)
        app.router.add_get("/{path:(?:channel/|c/|user/|@)[^/]+}/videos", self._channel)
        app.router.add_get("/api/timedtext", self._timed_text)
        app.router.add_get("/videoplayback", self._media)
        app.router.add_get("/hls/{name}", self._live_playlist)
        app.router.add_get("/vi/{video_id}/{name}", self._thumbnail)
        return app

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        video_id = request.query.get("v", "")
        self.counts["watch"] += 1
        self.counts[f"watch:{video_id}"] += 1
        self.cookies_sent.append(dict(request.cookies))
        self._generations[video_id] = self._generations.get(video_id, 0) + 1
        if (instead := await answer_instead(self.faults.take("watch"))) is not None:
            return instead
        video = self.find_video(video_id)
        page = (
            f"{_config_script('WEB', '2.20260114.08.00')}"
            f"<script>var ytInitialPlayerResponse = {json.dumps(self._describe(video_id))};</script>"
            f"<script>var ytInitialData = {json.dumps(initial_data(video.channel if video else ''))};</script>"
        )
        answer = _page(page)
        for name, value in self.set_cookie.items():
            answer.set_cookie(name, value, domain=".youtube.com", path="/", max_age=10_000_000, secure=True)
        return answer

    async def _embed(self, _request: web.Request) -> web.StreamResponse:
        self.counts["embed"] += 1
        if (instead := await answer_instead(self.faults.take("embed"))) is not None:
            return instead
        return _page(_config_script("WEB_EMBEDDED_PLAYER", "1.20260115.01.00"))

    async def _player(self, request: web.Request) -> web.StreamResponse:
        self.counts["player"] += 1
        if (instead := await answer_instead(self.faults.take("player"))) is not None:
            return instead
        question = await request.json()
        self.tokens_sent.append((question.get("serviceIntegrityDimensions") or {}).get("poToken"))
        self.visitors_sent.append(request.headers.get("X-Goog-Visitor-Id"))
        video_id = str(question.get("videoId", ""))
        self.counts[f"player:{video_id}"] += 1
        return web.json_response(self._describe(video_id))

    async def _next(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(initial_data(""))

    async def _home(self, _request: web.Request) -> web.StreamResponse:
        return _page(_config_script("WEB", "2.20260114.08.00"))

    async def _search(self, request: web.Request) -> web.StreamResponse:
        self.counts["search"] += 1
        if (instead := await answer_instead(self.faults.take("search"))) is not None:
            return instead
        question = await request.json()
        if "continuation" not in question:
            self.counts[f"search:{question.get('query')}"] += 1
        return web.json_response(search_response(question))

    async def _browse(self, request: web.Request) -> web.StreamResponse:
        self.counts["browse"] += 1
        if (instead := await answer_instead(self.faults.take("browse"))) is not None:
            return instead
        return web.json_response(browse_response(await request.json()))

    async def _playlist(self, request: web.Request) -> web.StreamResponse:
        self.counts["playlist"] += 1
        if (instead := await answer_instead(self.faults.take("playlist"))) is not None:
            return instead
        return _data_page(playlist_data(request.query.get("list", "")))

    async def _channel(self, request: web.Request) -> web.StreamResponse:
        self.counts["channel"] += 1
        if (instead := await answer_instead(self.faults.take("channel"))) is not None:
            return instead
        path = request.match_info["path"]
        if GONE in path:
            raise web.HTTPNotFound
        return _data_page(channel_data(path))

    def _describe(self, video_id: str) -> dict[str, Any]:
        video = self.find_video(video_id) or YouTubeVideo(title="", state="removed")
        generation = self._generations.get(video_id, 0)
        return player_response(video_id, video, make_media(video.size), generation=generation)

    async def _media(self, request: web.Request) -> web.StreamResponse:
        video_id, itag = request.query.get("id", ""), int(request.query.get("itag", "0"))
        video = self.find_video(video_id)
        if video is None:
            raise web.HTTPNotFound
        for name in ("media", f"media:{video_id}", f"media:{video_id}:{itag}"):
            self.counts[name] += 1
        fault = self.faults.take(f"media:{video_id}:{itag}") or self.faults.take(f"media:{video_id}")
        fault = fault or self.faults.take("media") or Fault()
        if (instead := await answer_instead(fault)) is not None:
            return instead
        expired = int(request.query.get("expire", "0")) < time.time()
        if expired or int(request.query.get("gen", "0")) <= video.forbidden_generations:
            self.counts[f"forbidden:{video_id}"] += 1
            raise web.HTTPForbidden
        asked = request.headers.get("Range", "")
        if asked in {"", "bytes=0-"} or asked.startswith("bytes=0-"):
            self.counts[f"starts:{video_id}"] += 1
            self.counts[f"starts:{video_id}:{itag}"] += 1

        def count(sent: int) -> None:
            for name in ("bytes", f"bytes:{video_id}", f"bytes:{video_id}:{itag}"):
                self.counts[name] += sent

        mime = file_of_itag(self.media_of(video_id), itag).mime
        data = self.file_of(video_id, itag)
        return await send_bytes(request, data, content_type=mime, fault=replace(fault, delay_s=0), on_sent=count)

    async def _live_playlist(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["name"] == "live.m3u8":
            text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=500000,RESOLUTION=640x360\npart.m3u8\n"
        else:
            text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:1\n#EXTINF:5,\n1.ts\n"
        return web.Response(text=text, content_type="application/x-mpegURL")

    async def _timed_text(self, request: web.Request) -> web.StreamResponse:
        self.counts["timedtext"] += 1
        if (instead := await answer_instead(self.faults.take("timedtext"))) is not None:
            return instead
        return web.json_response(timed_text(request.query["lang"]))

    async def _thumbnail(self, request: web.Request) -> web.StreamResponse:
        self.counts["thumbnail"] += 1
        self.counts[f"thumbnail:{request.match_info['name']}"] += 1
        if (instead := await answer_instead(self.faults.take("thumbnail"))) is not None:
            return instead
        return web.Response(body=PIXEL, content_type="image/jpeg")


def _page(scripts: str) -> web.Response:
    text = f"<!DOCTYPE html><html><head><title>YouTube</title></head><body>{scripts}</body></html>"
    return web.Response(text=text, content_type="text/html")


def _data_page(data: dict[str, Any]) -> web.Response:
    return _page(f"{_config_script('WEB', '2.20260114.08.00')}<script>var ytInitialData = {json.dumps(data)};</script>")


def _config_script(client: str, version: str) -> str:
    context = {"client": {"clientName": client, "clientVersion": version, "hl": "en", "visitorData": "test"}}
    config = {"INNERTUBE_API_KEY": "test", "INNERTUBE_CONTEXT": context, "VISITOR_DATA": "test"}
    return f"<script>ytcfg.set({json.dumps(config)});</script>"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(64 * 1024):
            writer.write(piece)
            await writer.drain()
        writer.close()
