"""A SaveTube as its public clients know it (shared facts: savetube.md): random-cdn, v2/info, download, the file.

One server plays the API and the CDN. ``info`` answers are AES-128-CBC, IV first, base64; a download link is given only
for the key that ``info`` gave. Fault routes: random-cdn, info, download, file; fault names: bad_ciphertext (info),
no_range and no_length (file).
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import ssl
from dataclasses import dataclass, field, replace
from typing import Any

import trustme
from aiohttp import web
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from tests.standins.faults import Fault, answer_instead, send_bytes
from tests.standins.media import Media, make_media
from tests.standins.server import StandIn

TEST_KEY = "00112233445566778899aabbccddeeff"
AUDIO_QUALITIES = (64, 128, 320)
_VIDEO_ID = re.compile(r"(?:v=|/)([A-Za-z0-9_-]{11})$")


def encrypt(payload: bytes, key: str = TEST_KEY, iv: bytes | None = None) -> str:
    """What ``data`` of an info answer holds."""
    iv = iv or os.urandom(16)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(bytes.fromhex(key)), modes.CBC(iv)).encryptor()
    text = encryptor.update(padder.update(payload) + padder.finalize()) + encryptor.finalize()
    return base64.b64encode(iv + text).decode()


@dataclass(frozen=True, kw_only=True)
class SaveTubeVideo:
    """One video. ``refusal``: the message with which info says no. ``drop``: fields missing from the info answer."""

    title: str
    size: str = "small"  # of the media: small or large
    faststart: bool = True
    refusal: str = ""
    drop: frozenset[str] = frozenset()
    extra: dict[str, Any] = field(default_factory=dict)


class SaveTubeStandIn(StandIn):
    """``videos`` holds the ones it knows; with ``know_all`` it makes up one for any other id ("large..." is large)."""

    def __init__(self, *, tls: trustme.CA | None = None, know_all: bool = True) -> None:
        super().__init__()
        self.key = TEST_KEY
        self.tls = tls
        self.know_all = know_all
        self.cdn_hosts: list[str] = []
        self.videos: dict[str, SaveTubeVideo] = {
            "removed0001": SaveTubeVideo(title="", refusal="Video unavailable"),
            "private0001": SaveTubeVideo(title="", refusal="This video is private"),
        }
        self._keys: dict[str, str] = {}

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def api_url(self) -> str:
        """The value of SAVETUBE_URL."""
        return f"{self.url}/api"

    @property
    def settings(self) -> dict[str, str]:
        return {"SAVETUBE_URL": self.api_url, "SAVETUBE_KEY": self.key, "SAVETUBE_CDN_SUFFIXES": "127.0.0.1"}

    def server_ssl(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/random-cdn", self._random_cdn)
        app.router.add_post("/v2/info", self._info)
        app.router.add_post("/download", self._download)
        app.router.add_get("/files/{video_id}/{name}", self._file)
        return app

    def find_video(self, video_id: str) -> SaveTubeVideo | None:
        if video_id in self.videos or not self.know_all:
            return self.videos.get(video_id)
        return SaveTubeVideo(title=f"Video {video_id}", size="large" if video_id.startswith("large") else "small")

    def file_of(self, video_id: str, kind: str, height: int | None = None) -> bytes:
        """The bytes that a download of this video gives."""
        video = self.find_video(video_id)
        assert video is not None
        return _media(video).read(_file_name(video, kind, height), video_id)

    async def _random_cdn(self, _request: web.Request) -> web.StreamResponse:
        self.counts["random-cdn"] += 1
        if (instead := await answer_instead(self.faults.take("random-cdn"))) is not None:
            return instead
        hosts = self.cdn_hosts or [f"127.0.0.1:{self.port}"]
        return web.json_response({"cdn": hosts[self.counts["random-cdn"] % len(hosts)]})

    async def _info(self, request: web.Request) -> web.StreamResponse:
        self.counts["info"] += 1
        fault = self.faults.take("info")
        if (instead := await answer_instead(fault)) is not None:
            return instead
        match = _VIDEO_ID.search(str((await request.json()).get("url", "")))
        video = self.find_video(match.group(1)) if match else None
        if match is None or video is None:
            return web.json_response({"status": False, "message": "Invalid video url"})
        self.counts[f"info:{match.group(1)}"] += 1
        if video.refusal:
            return web.json_response({"status": False, "code": 400, "message": video.refusal})
        data = encrypt(json.dumps(self._describe(match.group(1), video)).encode(), self.key)
        if fault is not None and fault.name == "bad_ciphertext":
            data = data[:-8] + "AAAAAAA="
        wrapped = "\n".join(data[at : at + 76] for at in range(0, len(data), 76))
        return web.json_response({"status": True, "code": 200, "message": "200", "data": wrapped})

    def _describe(self, video_id: str, video: SaveTubeVideo) -> dict[str, Any]:
        media = _media(video)
        key = self._keys.setdefault(video_id, secrets.token_hex(16))
        shapes = [file for file in media.files.values() if file.kind == "video"]
        minutes, seconds = divmod(int(media.seconds), 60)
        everything = {
            "id": video_id, "key": key, "title": video.title, "titleSlug": "video",
            "thumbnail": f"https://i.ytimg.com/vi/{video_id}/maxresdefault.jpg", "duration": int(media.seconds),
            "durationLabel": f"{minutes}:{seconds:02}", "fromCache": False,
            "video_formats": [
                {"quality": file.height, "height": file.height, "width": file.width, "label": f"{file.height}p"}
                for file in shapes
            ],
            "audio_formats": [{"quality": rate, "label": f"{rate}kbps"} for rate in AUDIO_QUALITIES],
            **video.extra,
        }  # fmt: skip
        return {name: value for name, value in everything.items() if name not in video.drop}

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self.counts["download"] += 1
        if (instead := await answer_instead(self.faults.take("download"))) is not None:
            return instead
        asked = await request.json()
        video = self.find_video(str(asked.get("id")))
        if video is None or asked.get("key") != self._keys.get(asked["id"]):
            return web.json_response({"status": False, "message": "Invalid key"})
        kind, quality = asked.get("downloadType"), str(asked.get("quality"))
        name = _file_name(video, kind, int(quality)) if quality.isdigit() else ""
        if name not in _media(video).files or (kind == "audio" and int(quality) not in AUDIO_QUALITIES):
            return web.json_response({"status": False, "message": "This quality is not available"})
        link = f"{self.url}/files/{asked['id']}/{name}"
        return web.json_response({"status": True, "data": {"downloadUrl": link, "downloaded": True}})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        video_id, name = request.match_info["video_id"], request.match_info["name"]
        self.counts["file"] += 1
        self.counts[f"file:{video_id}"] += 1
        fault = self.faults.take("file") or Fault()
        if (instead := await answer_instead(fault)) is not None:
            return instead
        video = self.find_video(video_id)
        if video is None:
            raise web.HTTPNotFound
        media = _media(video)

        def count(sent: int) -> None:
            self.counts["bytes"] += sent
            self.counts[f"bytes:{video_id}"] += sent

        return await send_bytes(
            request,
            media.read(name, video_id),
            content_type=media.files[name].mime,
            fault=replace(fault, delay_s=0),
            ranges=fault.name not in {"no_range", "no_length"},
            send_length=fault.name != "no_length",
            on_sent=count,
        )


def _media(video: SaveTubeVideo) -> Media:
    return make_media(video.size)


def _file_name(video: SaveTubeVideo, kind: str, height: int | None) -> str:
    if kind == "audio":
        return "audio.mp3"
    return f"{'fast' if video.faststart else 'muxed'}{height}.mp4"
