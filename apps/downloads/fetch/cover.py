"""The picture that goes into an audio file: a decoration, so when it cannot be had the file is made without it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import structlog

from apps.core.errors import UpstreamError
from apps.core.socks import SOCKS_ERRORS
from apps.downloads.fetch.threads import in_thread
from apps.downloads.fetch.transfer import Connections
from apps.downloads.providers.base import RemoteFile

MAX_BYTES = 2 * 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=8.0)
PIECE_BYTES = 64 * 1024
_DEMUXERS = ((b"\xff\xd8\xff", "jpeg_pipe"), (b"\x89PNG\r\n\x1a\n", "png_pipe"), (b"RIFF", "webp_pipe"))

log = structlog.get_logger(__name__)


async def fetch_cover(session: Connections, source: RemoteFile | None, path: Path) -> Path | None:
    """The picture, written to ``path``; None when there is none that can be had."""
    if source is None:
        return None
    try:
        data = await _read(session, source)
    except (aiohttp.ClientError, TimeoutError, OSError, UpstreamError, *SOCKS_ERRORS) as error:
        log.info("no cover", reason=type(error).__name__)
        return None
    if data is None or demuxer_of(data) is None:
        log.info("no cover", reason="not a picture, or too large")
        return None
    await in_thread(lambda _: path.write_bytes(data))
    return path


async def _read(session: Connections, source: RemoteFile) -> bytes | None:
    received = bytearray()
    async with session.get(source.url, proxy=source.proxy, ssl=source.verify_tls, timeout=TIMEOUT) as response:
        if response.status != 200:
            return None
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            received += piece
            if len(received) > MAX_BYTES:
                return None
    return bytes(received)


def demuxer_of(head: bytes) -> str | None:
    """How ffmpeg reads this picture; None when it is not a JPEG, PNG or WebP."""
    return next((name for start, name in _DEMUXERS if head.startswith(start)), None)
