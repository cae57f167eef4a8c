"""Reads stored parts back from Telegram and compares them with the record, without keeping them."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from apps.streaming.hotstore import WrongBlock
from apps.telegram_cache.clients.bot_files import BotFiles
from apps.telegram_cache.clients.errors import TelegramError, TelegramUncertain
from apps.telegram_cache.documents import Asset, Part, PartState
from apps.telegram_cache.failures import IN_A_ROW, Failures
from apps.telegram_cache.judging import Verdict, judge
from apps.telegram_cache.part_source import PartSource
from apps.telegram_cache.reach import is_in_reach
from apps.telegram_cache.roster import Bot
from apps.telegram_cache.selectors import least_recently_verified
from apps.telegram_cache.services.care_records import (
    mark_part_bad,
    mark_part_well,
    note_out_of_reach,
    note_verified,
    note_verify_tried,
)
from apps.telegram_cache.services.pool import note_error, readers_in_turn

log = structlog.get_logger(__name__)
SAMPLE_ASSETS = 100  # a day
SAMPLE_BYTES = 4 * 1024**3
TOKEN_WAIT_S = 120.0  # nobody waits for it


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Parts of one asset. ``unread``: nobody could say (Telegram away, no bot may); nothing was changed for those."""

    asset_id: str
    good: int
    bad: tuple[int, ...]
    unread: tuple[int, ...]
    read_bytes: int = 0  # that came from Telegram

    @property
    def is_well(self) -> bool:
        return not self.bad and not self.unread


def verify_asset(asset: Asset) -> Verification:
    """Download every stored part once and check its SHA-256. Bad parts are marked, so that they are stored again."""
    return asyncio.run(_verify(asset))


def verify_sample(*, max_assets: int = SAMPLE_ASSETS, max_bytes: int = SAMPLE_BYTES) -> list[Verification]:
    """Verify those whose last try is longest ago, within both bounds (only what is read counts). Bad parts are stored
    again by the sweep.
    """
    done: list[Verification] = []
    left_bytes = max_bytes
    for asset in least_recently_verified(max_assets):
        if done and (asset.size_bytes or 0) > left_bytes:
            break
        result = verify_asset(asset)
        left_bytes -= result.read_bytes
        done.append(result)
        if result.bad:
            log.error("telegram_parts_bad", asset_id=asset.id, parts=list(result.bad))
    return done


def read_bad_part(asset: Asset, part: Part) -> bool:
    """Whether a part that was called bad gives the right bytes again; then it counts as stored."""
    return asyncio.run(_reads_right(asset.id, part)) and mark_part_well(
        asset.id, generation=asset.parts_generation, part=part
    )


async def _reads_right(asset_id: str, part: Part) -> bool:
    files = BotFiles()
    try:
        return await _Check(PartSource(files), asset_id).is_good(part) is True
    finally:
        await files.aclose()


async def _verify(asset: Asset) -> Verification:
    await asyncio.to_thread(note_verify_tried, asset.id)  # first: also when this process dies of it
    files = BotFiles()
    check = _Check(PartSource(files, token_wait_s=TOKEN_WAIT_S), asset.id)
    try:
        verdicts = [(part, await check.is_good(part)) for part in asset.parts if part.state == PartState.STORED]
    finally:
        await files.aclose()
    for part, verdict in verdicts:
        if verdict is False:
            mark_part_bad(asset.id, generation=asset.parts_generation, part=part, reason="found wrong when verified")
    if verdicts and all(verdict for _, verdict in verdicts):
        note_verified(asset.id, generation=asset.parts_generation)
    return Verification(
        asset_id=asset.id,
        good=sum(verdict is True for _, verdict in verdicts),
        bad=tuple(part.index for part, verdict in verdicts if verdict is False),
        unread=tuple(part.index for part, verdict in verdicts if verdict is None),
        read_bytes=check.read_bytes,
    )


class _Check:
    """Reads parts of one asset, and counts the bytes that come."""

    def __init__(self, source: PartSource, asset_id: str) -> None:
        self._source = source
        self._asset_id = asset_id
        self.read_bytes = 0

    async def is_good(self, part: Part) -> bool | None:
        """True: some bot reads the right bytes. False: every bot found them wrong three times, or gone. None: open.

        Wrong bytes may have been spoilt on the way: they are read again, by another link.
        """
        if not is_in_reach(part.size):
            await asyncio.to_thread(note_out_of_reach, self._asset_id)
            return None
        failures = Failures()

        async def ask(bot: Bot) -> None:
            self._source.forget_link(bot, part)
            if await self._sha256(bot, part) != part.sha256:
                raise WrongBlock("the part does not match the record")

        for number in range(IN_A_ROW):
            for bot in await asyncio.to_thread(readers_in_turn):
                if number and not isinstance(failures.said.get(bot.bot_id), WrongBlock):
                    continue
                try:
                    await ask(bot)
                except (TelegramError, WrongBlock) as error:
                    failures.add(bot.bot_id, error)
                    if isinstance(error, TelegramError):
                        await asyncio.to_thread(note_error, error, bot, channel_id=part.channel_id or "")
                else:
                    return True
        verdict = await judge(self._source, part, failures, ask)
        return None if verdict is Verdict.OPEN else verdict is Verdict.READ

    async def _sha256(self, bot: Bot, part: Part) -> str:
        digest = hashlib.sha256()
        size = 0
        async with aclosing(self._source.stream(bot, asset_id=self._asset_id, part=part, offset=0)) as pieces:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                self.read_bytes += len(piece)
        if size < part.size:
            raise TelegramUncertain("the file ended too early")
        return digest.hexdigest()
