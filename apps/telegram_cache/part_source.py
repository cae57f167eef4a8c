"""Reads one part through one bot: its file_id (made by forwarding if need be), its link, its bytes."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import structlog

from apps.telegram_cache.administrators import ais_administrator
from apps.telegram_cache.clients.bot_files import BotFiles
from apps.telegram_cache.clients.errors import (
    BotBusy,
    FileIdInvalid,
    FileLinkGone,
    FileUnavailable,
    MessageNotFound,
    TelegramError,
    TelegramRefused,
    TelegramUncertain,
)
from apps.telegram_cache.clients.file_links import TakeBlock
from apps.telegram_cache.documents import Part
from apps.telegram_cache.roster import Bot
from apps.telegram_cache.services import copying
from apps.telegram_cache.services import upload_records as records
from apps.telegram_cache.services.orphan_records import add_lost_message, add_orphan
from apps.telegram_cache.services.pool import note_error, take_token

log = structlog.get_logger(__name__)
Value = TypeVar("Value")
LINK_LIFE_S = 50 * 60  # Bot API: a file link is valid for at least an hour
MAX_KEPT = 20_000
TOKEN_WAIT_S = 10.0  # a reader waits meanwhile
END_WITHIN_S = 5.0  # when the process ends: what is asked of Telegram is answered by then, or hardly ever


class _AnotherFile(MessageNotFound):
    """The message is there, but it is not the part's."""


class PartSource:
    """Knows the file links and file_ids of this process. One event loop only.

    ``token_wait_s``: how long a bot waits for its turn to send a message, where it has to make a copy.
    """

    def __init__(self, files: BotFiles, *, token_wait_s: float = TOKEN_WAIT_S) -> None:
        self.files = files
        self._token_wait_s = token_wait_s
        self._paths: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._file_ids: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._distrusted: set[tuple[str, str]] = set()
        self._at_work: set[asyncio.Task[Any]] = set()  # copies that are being made, used and deleted
        self._invalid: OrderedDict[tuple[str, str], str] = OrderedDict()  # file_ids that are good for nothing

    async def aclose(self) -> None:
        """Let what is at work come to its end, for a while; then end it. Before the connections are closed."""
        if self._at_work:
            _, late = await asyncio.wait(self._at_work, timeout=END_WITHIN_S)
            for task in late:
                task.cancel()

    def knows_link(self, bot: Bot, part: Part) -> bool:
        """Whether the bytes can be asked for without calling a method."""
        path, expires_at = self._paths.get((bot.bot_id, part.file_unique_id), ("", 0.0))
        return bool(path) and expires_at > time.monotonic()

    def has_file_id(self, bot: Bot, part: Part) -> bool:
        return bool(self._file_id(bot, part))

    def _file_id(self, bot: Bot, part: Part) -> str:
        name = (bot.bot_id, part.file_unique_id)
        file_id = self._file_ids.get(name) or str(part.file_ids.get(bot.bot_id) or "")
        return "" if file_id == self._invalid.get(name) else file_id

    def forget_link(self, bot: Bot, part: Part) -> None:
        """Next time a fresh link is asked for: what came by this one was wrong."""
        self._paths.pop((bot.bot_id, part.file_unique_id), None)

    def distrust(self, bot: Bot, part: Part) -> None:
        """Next time this bot's file_id of the part is said to be unavailable, a new one is made by forwarding."""
        self.forget_link(bot, part)
        self._distrusted.add((bot.bot_id, part.file_unique_id))

    async def stream(self, bot: Bot, *, asset_id: str, part: Part, offset: int) -> AsyncGenerator[bytes, None]:
        """The part's bytes as they come, from ``offset`` within the part on. A link that has expired is renewed once.

        Raises a TelegramError. Nothing is verified here.
        """
        for is_last in (False, True):
            path = await self._path(bot, asset_id, part)
            try:
                async with aclosing(self.files.read_file(bot.token, path, offset=offset)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except FileLinkGone:
                self.forget_link(bot, part)
                if is_last:
                    raise

    async def read_blocks(self, bot: Bot, *, asset_id: str, part: Part, sizes: list[int], take: TakeBlock) -> None:
        """The part's blocks, each given to ``take`` in a thread. Links, renewal and errors are those of ``stream``."""
        for is_last in (False, True):
            path = await self._path(bot, asset_id, part)
            try:
                await self.files.read_blocks(bot.token, path, sizes=sizes, take=take)
                return
            except FileLinkGone:
                self.forget_link(bot, part)
                if is_last:
                    raise

    async def _path(self, bot: Bot, asset_id: str, part: Part) -> str:
        name = (bot.bot_id, part.file_unique_id)
        if self.knows_link(bot, part):
            return self._paths[name][0]
        file_id = self._file_id(bot, part)
        path = await self._path_by(bot, part, file_id) if file_id else None
        if path is None:
            path = await self._path_by_copy(bot, asset_id, part)
        _keep(self._paths, name, (path, time.monotonic() + LINK_LIFE_S))
        return path

    async def _path_by(self, bot: Bot, part: Part, file_id: str) -> str | None:
        """None when another file_id is needed."""
        try:
            return await self.files.get_file_path(bot.token, file_id)
        except FileIdInvalid:
            _keep(self._invalid, (bot.bot_id, part.file_unique_id), file_id)
            return None
        except FileUnavailable:
            if (bot.bot_id, part.file_unique_id) not in self._distrusted:
                raise
            return None

    async def _path_by_copy(self, bot: Bot, asset_id: str, part: Part) -> str:
        """By this bot's own new file_id, from a forwarded copy of the stored message; the copy is deleted at once.

        MessageNotFound comes only from an administrator of the channel: others are refused what is there.
        """
        self._distrusted.discard((bot.bot_id, part.file_unique_id))
        if part.message_id is None:
            raise MessageNotFound("the part has no message")
        try:
            path, file_id = await self._use_copy(bot, asset_id, part)
        except _AnotherFile:
            raise
        except MessageNotFound as error:
            if await ais_administrator(self.files, bot, part.channel_id or ""):
                raise
            raise TelegramRefused(f"{error} (the bot is no administrator of the channel)") from None
        _keep(self._file_ids, (bot.bot_id, part.file_unique_id), file_id)
        await asyncio.to_thread(
            records.set_file_id, asset_id, index=part.index, file_unique_id=part.file_unique_id,
            bot_id=bot.bot_id, file_id=file_id,
        )  # fmt: skip
        return path

    async def _use_copy(self, bot: Bot, asset_id: str, part: Part) -> tuple[str, str]:
        """Path and file_id of a copy. In which chats it is tried: see ``copying.make_copy``."""
        refusal, channel_id = None, part.channel_id or ""
        for chat_id in await asyncio.to_thread(copying.chats_for_copies, bot, channel_id):
            await self._wait_for_token(bot, chat_id)
            try:
                used = await self._to_its_end(self._copy_and_remove(bot, asset_id, part, chat_id))
            except copying.REFUSED as error:
                if chat_id == channel_id:
                    raise
                refusal = error
                continue
            await asyncio.to_thread(copying.note_refusal, refusal, bot, channel_id)
            return used
        raise RuntimeError("the channel itself is always the last one")

    async def _to_its_end(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Wait for it. When the reader leaves, it goes on: each of its few calls has a time limit of its own."""
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._at_work.discard(task)
        if not task.cancelled():
            task.exception()  # it went to the reader, if there still is one

    async def _copy_and_remove(self, bot: Bot, asset_id: str, part: Part, chat_id: str) -> tuple[str, str]:
        """Forward the message there, ask for the copy's path, delete it. To be run to its end, or the copy is left."""
        try:
            copy = await self.files.forward_message(
                bot.token, to_chat_id=chat_id, from_chat_id=part.channel_id or "", message_id=part.message_id or 0
            )
        except TelegramUncertain:
            await asyncio.to_thread(add_lost_message, asset_id, part, channel_id=chat_id, reason="copy")
            raise
        try:
            if copy.file is None or copy.file.file_unique_id != part.file_unique_id:
                raise _AnotherFile("the message holds another file")
            return await self.files.get_file_path(bot.token, copy.file.file_id), copy.file.file_id
        finally:
            await self._remove_copy(bot, asset_id, part, chat_id, copy.message_id)

    async def _wait_for_token(self, bot: Bot, chat_id: str) -> None:
        """The asynchronous twin of ``copying.wait_for_token``."""
        waited_s = 0.0
        while True:
            needed_s = await asyncio.to_thread(take_token, bot.bot_id, chat_id)
            if not needed_s:
                return
            waited_s += needed_s
            if waited_s > self._token_wait_s:
                raise BotBusy(copying.TOO_MANY, retry_after_s=needed_s)
            await asyncio.sleep(needed_s)

    async def _remove_copy(self, bot: Bot, asset_id: str, part: Part, chat_id: str, message_id: int) -> None:
        if chat_id == part.channel_id:
            await asyncio.to_thread(records.note_message_id, chat_id, message_id)
        try:
            await self.files.delete_message(bot.token, chat_id=chat_id, message_id=message_id)
        except MessageNotFound:
            return
        except TelegramError as error:
            log.warning("telegram_copy_not_deleted", asset_id=asset_id, message_id=message_id, error=str(error))
            await asyncio.to_thread(note_error, error, bot)
            await asyncio.to_thread(
                add_orphan, asset_id, part, channel_id=chat_id, message_id=message_id, reason="copy"
            )


def _keep(kept: OrderedDict[tuple[str, str], Value], name: tuple[str, str], value: Value) -> None:
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)
