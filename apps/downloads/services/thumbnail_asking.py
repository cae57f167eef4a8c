"""Workers ask for the picture of a video: YouTube's picture server and nowhere else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from apps.core.errors import NotFound, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from apps.core.outbound_aiohttp import guarded_aiohttp_session
from apps.core.socks import SOCKS_ERRORS, guarded_socks_session
from apps.downloads.providers.chain import UPSTREAM_ERRORS
from apps.downloads.providers.ways import Transport
from apps.downloads.providers.ytdlp import ytdlp_provider
from apps.downloads.services.lookups import Lookup

MAX_BYTES = 1024 * 1024
PROXIES_TRIED = 3
CONNECT_TIMEOUT_S = 8.0
RATE_LIMITED_WAIT_S = 60.0
PIECE_BYTES = 64 * 1024
NAMES = ("maxresdefault", "sddefault", "hqdefault")  # best first; only the last one is always there
_BEGINNINGS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


def ask_for_thumbnail(lookup: Lookup, timeout_s: float) -> dict[str, Any]:
    """The picture to record, in the best size there is; through a proxy of the pool for asking, when there are any, and
    through another one when the first is of no use. Raises NotFound, or an upstream failure."""
    provider, deadline = ytdlp_provider(), time.monotonic() + timeout_s
    for tries_left in range(PROXIES_TRIED - 1, -1, -1):
        transport = provider.choose_transport()
        try:
            content = asyncio.run(_fetch_best(lookup.subject, transport, deadline - time.monotonic()))
        except UPSTREAM_ERRORS as error:
            is_blamed = provider.note_proxies((transport.proxy_id,), error)
            if not (is_blamed and transport.proxy_id and tries_left and time.monotonic() < deadline):
                raise
        else:
            provider.note_proxies((transport.proxy_id,), None)
            return {"content": content, "mime": image_mime(content)}
    raise AssertionError("the last try returns or raises")


def image_mime(content: bytes) -> str:
    """What kind of picture it is, by its first bytes. Raises UpstreamError for what is none."""
    for beginning, mime in _BEGINNINGS:
        if content.startswith(beginning):
            return mime
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise UpstreamError


async def _fetch_best(video_id: str, transport: Transport, timeout_s: float) -> bytes:
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with asyncio.timeout(timeout_s), _session_for(transport, timeout) as session:
            for name in NAMES:
                content = await _fetch(session, transport, f"https://i.ytimg.com/vi/{video_id}/{name}.jpg")
                if content is not None:
                    return content
    except (aiohttp.ClientConnectionError, aiohttp.ClientHttpProxyError, *SOCKS_ERRORS):
        raise UpstreamUnreachable from None
    except TimeoutError:
        raise UpstreamTimeout from None
    except aiohttp.ClientError:
        raise UpstreamError from None
    raise NotFound("This video has no picture.")


def _session_for(transport: Transport, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    if _by_socks(transport):
        return guarded_socks_session(str(transport.proxy), timeout=timeout)
    return guarded_aiohttp_session(timeout=timeout)


def _by_socks(transport: Transport) -> bool:
    return transport.proxy is not None and transport.proxy.startswith("socks")


async def _fetch(session: aiohttp.ClientSession, transport: Transport, url: str) -> bytes | None:
    proxy = None if _by_socks(transport) else transport.proxy
    async with session.get(url, proxy=proxy, ssl=transport.verify_tls, allow_redirects=False) as response:
        if response.status == 404:
            return None
        if response.status == 429:
            raise UpstreamError(retry_after_s=RATE_LIMITED_WAIT_S)
        if response.status != 200:
            raise UpstreamError
        content = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            content += piece
            if len(content) > MAX_BYTES:
                raise UpstreamError
        return bytes(content)
