"""The asynchronous side of the Bot API, for readers: getFile, re-keying, and the bytes of files over aiohttp."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings

from apps.telegram_cache.clients.answers import (
    MAX_ANSWER_BYTES,
    ForwardedCopy,
    Rights,
    read_answer,
    read_file_path,
    read_forwarded_copy,
    read_rights,
)
from apps.telegram_cache.clients.errors import (
    FileLinkGone,
    TelegramRefused,
    TelegramUncertain,
    TelegramUnreachable,
)
from apps.telegram_cache.clients.file_links import FileLinks, TakeBlock
from apps.telegram_cache.clients.link_status import check_link_status

if TYPE_CHECKING:
    import aiohttp  # where it runs, in functions: see apps.core.imports

READ_BUFFER_BYTES = 256 * 1024
LOCAL_READ_BYTES = 1024 * 1024
MAX_CONNECTIONS = 256
_CALL_LIMITS = {"total": 60, "connect": 10, "sock_connect": 5, "sock_read": 45}
_FILE_LIMITS = {"total": 600, "connect": 10, "sock_connect": 5, "sock_read": 20}


class BotFiles:
    """Calls and files of any bot, over one session of one event loop. Close it with ``aclose``."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._api_url = settings.ENV.telegram_api_url
        self._file_url = settings.ENV.telegram_file_url
        self._local_root: Path | None = settings.ENV.telegram_local_root
        self._links: FileLinks | None = None

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=15)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=READ_BUFFER_BYTES)
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._links is not None:
            self._links.close()

    @property
    def reads_local_files(self) -> bool:
        """Whether files lie on this machine (a self-hosted Bot API server), where any stretch can be read alone."""
        return self._local_root is not None

    async def get_file_path(self, token: str, file_id: str) -> str:
        """Bot API: answers once the server has the whole file; files up to 20 MiB."""
        return read_file_path(await self._call(token, "getFile", file_id=file_id))

    async def forward_message(
        self, token: str, *, to_chat_id: str, from_chat_id: str, message_id: int
    ) -> ForwardedCopy:
        """The copy, with this bot's own file_id."""
        fields = {"chat_id": to_chat_id, "from_chat_id": from_chat_id, "message_id": str(message_id)}
        return read_forwarded_copy(await self._call(token, "forwardMessage", **fields, disable_notification="true"))

    async def delete_message(self, token: str, *, chat_id: str, message_id: int) -> None:
        await self._call(token, "deleteMessage", chat_id=chat_id, message_id=str(message_id))

    async def get_chat_member(self, token: str, *, chat_id: str, user_id: str) -> Rights:
        return read_rights(await self._call(token, "getChatMember", chat_id=chat_id, user_id=user_id))

    async def _call(self, token: str, method: str, **fields: str) -> Any:
        import aiohttp

        url = f"{self._api_url}/bot{token}/{method}"
        limits = aiohttp.ClientTimeout(**_CALL_LIMITS)
        try:
            async with self._open_session().post(url, data=fields, timeout=limits, allow_redirects=False) as response:
                body = await _read_bounded(response.content)
                return read_answer(status=response.status, headers=response.headers, body=body, token=token)
        except aiohttp.ClientConnectorError:
            raise TelegramUnreachable(f"{method}: Telegram cannot be reached") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TelegramUncertain(f"{method}: no answer ({type(error).__name__})") from None

    async def read_file(self, token: str, file_path: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, in pieces of any size, from ``offset`` on (0 unless ``reads_local_files``).

        Raises FileLinkGone (ask getFile again), TelegramRefused, TelegramUncertain (cut, slow, 5xx).
        """
        source = self._read_local(file_path, offset) if self.reads_local_files else self._read_link(token, file_path)
        async with aclosing(source) as pieces:
            async for piece in pieces:
                yield piece

    async def read_blocks(self, token: str, file_path: str, *, sizes: list[int], take: TakeBlock) -> None:
        """A file by its link, block by block, each given to ``take`` in a thread. See FileLinks.read."""
        if self._links is None:
            self._links = FileLinks(self._file_url)
        await self._links.read(token, file_path, sizes=sizes, take=take)

    async def _read_link(self, token: str, file_path: str) -> AsyncGenerator[bytes, None]:
        import aiohttp

        url = f"{self._file_url}/bot{token}/{file_path}"
        limits = aiohttp.ClientTimeout(**_FILE_LIMITS)
        try:
            async with self._open_session().get(url, timeout=limits, allow_redirects=False) as response:
                check_link_status(response.status, response.headers)
                async for piece in response.content.iter_any():
                    yield piece
        except aiohttp.ClientConnectorError:
            raise TelegramUnreachable("the file link cannot be reached") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TelegramUncertain(f"the file link broke off ({type(error).__name__})") from None

    async def _read_local(self, file_path: str, offset: int) -> AsyncGenerator[bytes, None]:
        path = await asyncio.to_thread(self.locate, file_path)
        while True:
            piece = await asyncio.to_thread(_pread, path, offset)
            if not piece:
                return
            offset += len(piece)
            yield piece

    def locate(self, file_path: str) -> Path:
        """The local file behind ``file_path``. Refuses everything that is not under TELEGRAM_LOCAL_ROOT."""
        if self._local_root is None:
            raise TelegramRefused("TELEGRAM_LOCAL_ROOT is not set")
        try:
            root = self._local_root.resolve(strict=True)
            path = (root / file_path).resolve(strict=True)
        except (OSError, ValueError):
            raise FileLinkGone("the local file is not there") from None
        if not path.is_relative_to(root) or not path.is_file():
            raise TelegramRefused("the local file lies outside TELEGRAM_LOCAL_ROOT")
        return path


def _pread(path: Path, offset: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        raise FileLinkGone("the local file is not there") from None
    try:
        return os.pread(descriptor, LOCAL_READ_BYTES, offset)
    finally:
        os.close(descriptor)


async def _read_bounded(stream: aiohttp.StreamReader) -> bytes:
    answer = bytearray()
    async for piece in stream.iter_any():
        answer += piece
        if len(answer) > MAX_ANSWER_BYTES:
            raise TelegramUncertain("the answer is too long")
    return bytes(answer)
