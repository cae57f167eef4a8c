"""Pictures of videos, from YouTube's picture server and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp

from apps.core.errors import NotFound, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from apps.core.outbound import guarded_aiohttp_session
from apps.downloads.providers.ytdlp import ytdlp_provider
from apps.downloads.services.lookups import Lookup, LookupKind, wait_for_lookup

MAX_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024
NAMES = ("maxresdefault", "sddefault", "hqdefault")  # best first; only the last one is always there
_BEGINNINGS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    content: bytes
    mime: str


def get_thumbnail(video_id: str, *, waited_s: float) -> Thumbnail:
    """Raises Suspend while it is fetched, NotFound when there is none."""
    found = wait_for_lookup(Lookup(kind=LookupKind.THUMBNAIL, subject=video_id), waited_s=waited_s)
    return Thumbnail(content=bytes(found["content"]), mime=str(found["mime"]))


def ask_for_thumbnail(lookup: Lookup, timeout_s: float) -> dict[str, Any]:
    """The picture to record, in the best size there is. Raises NotFound, or an upstream failure."""
    try:
        content = asyncio.run(_fetch_best(lookup.subject, timeout_s))
    except TimeoutError:
        raise UpstreamTimeout from None
    except aiohttp.ClientError:
        raise UpstreamUnreachable from None
    return {"content": content, "mime": image_mime(content)}


def image_mime(content: bytes) -> str:
    """What kind of picture it is, by its first bytes. Raises UpstreamError for what is none."""
    for beginning, mime in _BEGINNINGS:
        if content.startswith(beginning):
            return mime
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise UpstreamError


async def _fetch_best(video_id: str, timeout_s: float) -> bytes:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with asyncio.timeout(timeout_s), guarded_aiohttp_session(timeout=timeout) as session:
        for name in NAMES:
            content = await _fetch(session, f"https://i.ytimg.com/vi/{video_id}/{name}.jpg")
            if content is not None:
                return content
    raise NotFound("This video has no picture.")


async def _fetch(session: aiohttp.ClientSession, url: str) -> bytes | None:
    transport = ytdlp_provider().transport
    async with session.get(url, proxy=transport.proxy, ssl=transport.verify_tls, allow_redirects=False) as response:
        if response.status == 404:
            return None
        if response.status != 200:
            raise UpstreamError
        content = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            content += piece
            if len(content) > MAX_BYTES:
                raise UpstreamError
        return bytes(content)
