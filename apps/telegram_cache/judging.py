"""When a stored part may be called bad: only after everybody who could still have its bytes was asked in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from enum import StrEnum

from apps.core.secrets import SecretUnreadable, decrypt_secret
from apps.streaming.hotstore import WrongBlock
from apps.telegram_cache.clients.errors import TelegramError, TokenRefused
from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, BotState, Part
from apps.telegram_cache.failures import Failures
from apps.telegram_cache.part_source import PartSource
from apps.telegram_cache.roster import Bot
from apps.telegram_cache.selectors import all_bots
from apps.telegram_cache.services.pool import readers_in_turn


class Verdict(StrEnum):
    READ = "read"  # a bot that is not in use could still read it
    BAD = "bad"
    OPEN = "open"  # nobody can say: nothing may be changed


async def judge(source: PartSource, part: Part, failures: Failures, ask: Callable[[Bot], Awaitable[None]]) -> Verdict:
    """What to make of a part that no usable bot gave. ``ask`` reads it through one bot, or raises.

    BAD takes that every usable bot that sees the channel or has a file_id found it gone or wrong, and that no other
    bot has a file_id that still works: not one that Telegram refused a while ago either. Bots that an operator
    disabled, and those whose token is dead, are left out.
    """
    usable = await asyncio.to_thread(readers_in_turn)  # without those parked meanwhile
    count = [bot for bot in usable if source.has_file_id(bot, part) or not failures.sees_nothing(bot.bot_id)]
    if not count or not all(failures.says_it_is_bad(bot.bot_id) for bot in count):
        return Verdict.OPEN
    for bot in await asyncio.to_thread(_parked_holders, part, {bot.bot_id for bot in usable}):
        verdict = await _ask_again(bot, failures, ask)
        if verdict is not Verdict.BAD:
            return verdict
    return Verdict.BAD


async def _ask_again(bot: Bot, failures: Failures, ask: Callable[[Bot], Awaitable[None]]) -> Verdict:
    if not bot.token:
        return Verdict.OPEN
    while not failures.is_final(bot.bot_id):
        try:
            await ask(bot)
        except TokenRefused:
            return Verdict.BAD  # its file_ids are of no use to anybody
        except (TelegramError, WrongBlock) as error:
            failures.add(bot.bot_id, error)
            if not (isinstance(error, WrongBlock) or failures.is_final(bot.bot_id)):
                return Verdict.OPEN
        else:
            return Verdict.READ
    return Verdict.BAD if failures.says_it_is_bad(bot.bot_id) else Verdict.OPEN


def _parked_holders(part: Part, usable: Collection[str]) -> list[Bot]:
    """Bots with a file_id of the part that are not in use for Telegram's or our reasons; an empty token: unreadable."""
    holders = []
    for document in all_bots():
        by_operator = document.state == BotState.DISABLED and document.reason == DISABLED_BY_OPERATOR
        if by_operator or document.bot_id in usable or document.bot_id not in part.file_ids:
            continue
        try:
            token = decrypt_secret(document.token_encrypted)
        except SecretUnreadable:
            token = ""
        holders.append(
            Bot(bot_id=document.bot_id, username=document.username, token=token, cooling_until=None, barred=frozenset())
        )
    return holders
