"""Bots: small asynchronous clients, each written from one row of the table of dialects, reading only what it names."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

POLL_PAUSE_S = 0.3  # the real ones wait about 4 s
POLLS = 60


class BotError(Exception):
    """The bot gives up, with what it was told."""


@dataclass(frozen=True)
class Song:
    """What a bot ends up with: the file, under the name that the server gave it."""

    content: bytes
    file_name: str
    title: str = ""


@dataclass(frozen=True)
class BotClient:
    """Where the server is (API_URL) and the bot's key (API_KEY), as its settings have them."""

    url: str
    key: str
    session: aiohttp.ClientSession

    async def song(self, video_id: str, *, kind: str = "song") -> Song:
        """Polls; gives up on any HTTP status but 200. The file's extension is ``format``."""
        for _ in range(POLLS):
            async with self.session.get(f"{self.url}/{kind}/{video_id}?api={self.key}") as response:
                if response.status != 200:
                    raise BotError(response.status)
                data = await response.json()
            status = data.get("status", "").lower()
            if status == "done":
                content, _ = await self._download(data.get("link"))
                return Song(content, f"{video_id}.{data.get('format')}", data["title"])
            if status != "downloading":
                raise BotError(data.get("error") or data.get("message"))
            await asyncio.sleep(POLL_PAUSE_S)
        raise BotError("never done")

    async def track(self, text: str, *, video: bool = False, read: str = "cdnurl") -> Song:
        """One request, 10 s in all; reads one of the links; the file name is Content-Disposition's."""
        headers = {"X-API-Key": self.key}
        fields = {"url": text, "video": str(video).lower()}
        limit = aiohttp.ClientTimeout(total=10)
        async with self.session.get(f"{self.url}/api/track", params=fields, headers=headers, timeout=limit) as response:
            if response.status != 200:
                raise BotError(response.status)
            data = await response.json()
        content, file_name = await self._download(data[read])
        return Song(content, file_name, data["title"])

    async def v2(self, query: str, *, video: bool = False, read: str = "public_url", insist: bool = False) -> Song:
        """Orders, then asks for the job without a key. ``insist``: only takes ``queued`` with a ``job_id``."""
        fields = {"query": query, "isVideo": str(video).lower(), "api_key": self.key}
        url = f"{self.url}/queued" if insist else self.url
        async with self.session.get(f"{url}/youtube/v2/download", params=fields) as response:
            data = await response.json()
        if insist and data["status"] != "queued":
            raise BotError(data)
        result: Any = data.get("result")
        if data["status"] != "success":
            if not data.get("job_id"):
                raise BotError(data)
            result = await self._job_result(url, data["job_id"])
        content, file_name = await self._download(result[read])
        return Song(content, file_name)

    async def _job_result(self, url: str, job_id: str) -> Any:
        for _ in range(POLLS):
            async with self.session.get(f"{url}/youtube/jobStatus", params={"job_id": job_id}) as response:
                data = await response.json()
            job = data["job"]
            if job["status"] == "done" and job["result"].get("success"):
                return job["result"]
            if job["status"] not in {"queued", "processing"}:
                raise BotError(job)
            await asyncio.sleep(POLL_PAUSE_S)
        raise BotError("never done")

    async def query(self, words: str, *, download: bool = False) -> Song:
        """Words in; a stream's link out, or the bytes themselves. Follows no redirect."""
        fields = {"query": words, "api": self.key, **({"download": "true"} if download else {})}
        async with self.session.get(f"{self.url}/api/song", params=fields, allow_redirects=False) as response:
            if response.status != 200:
                raise BotError(response.status)
            if download:
                return Song(await response.read(), _file_name(response))
            data = await response.json()
        content, file_name = await self._download(data["stream"])
        return Song(content, file_name, data["title"])

    async def _download(self, link: Any) -> tuple[bytes, str]:
        if not isinstance(link, str) or not link.startswith("http"):
            raise BotError(link)
        async with self.session.get(link) as response:
            if response.status != 200:
                raise BotError(response.status)
            return await response.read(), _file_name(response)


def _file_name(response: aiohttp.ClientResponse) -> str:
    match = re.search(r'filename="([^"]+)"', response.headers.get("Content-Disposition", ""))
    return match[1] if match else ""
