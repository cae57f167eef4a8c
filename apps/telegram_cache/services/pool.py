"""Which bot may call next: slots and token buckets in Redis, cool-downs and parking in MongoDB, for all processes."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import structlog

from apps.core.owners import is_owner_dead, make_owner
from apps.core.redis import redis_client
from apps.telegram_cache.clients.errors import (
    BotForbidden,
    ChatNotFound,
    TelegramError,
    TelegramRateLimited,
    TokenRefused,
)
from apps.telegram_cache.documents import BotState, TelegramBot
from apps.telegram_cache.roster import Bot, Channel, forget_roster, roster
from apps.telegram_cache.services.bot_records import park_bot, set_bot, set_channel

log = structlog.get_logger(__name__)
MAX_UPLOADS_PER_BOT = 4  # Bot API: simultaneous uploads of one bot are spaced; a backlog over 5 s is refused with 429
SLOT_S = 60.0  # a slot that is not renewed comes free: its process died (on this machine the sweep sees it sooner)
BURST_MESSAGES = 20  # what a channel takes at once before messages_per_min counts
EVERY_BOT_IS_BUSY = "every bot is sending other files, or has to pause before it may send more"
NO_BOT_WAIT_S = 5.0  # the sweep looks again soon after an operator has mended it

_TAKE = """
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 250 end
local per_ms, burst = tonumber(ARGV[4]) / 60000, tonumber(ARGV[5])
local kept = redis.call('HMGET', KEYS[2], 'tokens', 'at')
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + (now - (tonumber(kept[2]) or now)) * per_ms)
if tokens < 1 then return math.ceil((1 - tokens) / per_ms) end
redis.call('HSET', KEYS[2], 'tokens', tokens - 1, 'at', now)
redis.call('PEXPIRE', KEYS[2], math.ceil(burst / per_ms) + 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) + 1000)
return 0
"""
_RENEW = """
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) + 1000)
end
return 0
"""
_turn = itertools.count()


class NoBotNow(Exception):
    """No bot may send right now. ``wait_s``: when it is worth asking again."""

    def __init__(self, wait_s: float, reason: str) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class Slot:
    """The right to send one message. A context manager: leaving it gives the slot back."""

    def __init__(self, bot: Bot, channel: Channel) -> None:
        self.bot = bot
        self.channel = channel
        self._name = f"{make_owner()}:{secrets.token_hex(8)}"

    def take(self) -> float:
        """0 when it is taken, else how many seconds to wait. One Redis script call: exact over all processes."""
        wait_ms = redis_client().eval(
            _TAKE,
            2,
            _slots_key(self.bot.bot_id),
            f"yt:tg:bucket:{self.bot.bot_id}:{self.channel.channel_id}",
            self._name,
            MAX_UPLOADS_PER_BOT,
            int(SLOT_S * 1000),
            self.channel.messages_per_min,
            BURST_MESSAGES,
        )
        return int(wait_ms) / 1000

    def renew(self) -> None:
        redis_client().eval(_RENEW, 1, _slots_key(self.bot.bot_id), self._name, int(SLOT_S * 1000))

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        redis_client().zrem(_slots_key(self.bot.bot_id), self._name)


def free_dead_slots() -> None:
    """Give back what processes of this machine held that no longer run; those of other machines come free by time."""
    for bot in roster().bots:
        names = cast("list[bytes]", redis_client().zrange(_slots_key(bot.bot_id), 0, -1))
        dead = [name for name in names if is_owner_dead(name.decode())]
        if dead:
            redis_client().zrem(_slots_key(bot.bot_id), *dead)


def _slots_key(bot_id: str) -> str:
    return f"yt:tg:slots:{bot_id}"


def take_slot(channel_id: str = "") -> Slot:
    """A slot of some usable bot in a channel (default: where new parts go); bots take turns. Raises NoBotNow."""
    known = roster()
    channel = known.channel(channel_id) if channel_id else known.default_channel
    if channel is None:
        raise NoBotNow(NO_BOT_WAIT_S, "there is no usable channel")
    bots = [bot for bot in known.bots if channel.channel_id not in bot.barred]
    if not bots:
        raise NoBotNow(NO_BOT_WAIT_S, "no bot may post in the channel")
    waits = []
    for bot in _in_turn(bots):
        wait_s = bot.cooling_s()
        if not wait_s:
            slot = Slot(bot, channel)
            wait_s = slot.take()
            if not wait_s:
                return slot
        waits.append(wait_s)
    raise NoBotNow(min(waits), EVERY_BOT_IS_BUSY)


def _in_turn(bots: Sequence[Bot]) -> list[Bot]:
    start = next(_turn) % len(bots)
    return [*bots[start:], *bots[:start]]


def readers_in_turn() -> list[Bot]:
    """Bots that may be asked for files, those that are not cooling first."""
    bots = roster().bots
    return sorted(_in_turn(bots), key=lambda bot: bot.cooling_s() > 0) if bots else []


def note_error(error: TelegramError, bot: Bot, *, channel_id: str = "") -> None:
    """Record what an error says about a bot or its place in a channel, for every process. Others: nothing."""
    if isinstance(error, TelegramRateLimited):
        cool_down(bot.bot_id, error.retry_after_s)
    elif isinstance(error, TokenRefused):
        park_bot(bot.bot_id, token_encrypted=bot.token_encrypted, reason=f"Telegram refuses the token: {error}")
    elif isinstance(error, (BotForbidden, ChatNotFound)) and channel_id:
        set_bot(bot.bot_id, set_={f"barred.{channel_id}": str(error)})
        log.error("telegram_bot_barred", bot_id=bot.bot_id, channel_id=channel_id, reason=str(error))
        if all(channel_id in other.barred for other in roster().bots):
            set_channel(channel_id, {"alert": str(error)})
            log.error("telegram_channel_parked", channel_id=channel_id, reason=str(error))


def cool_down(bot_id: str, seconds: float) -> None:
    """Let the bot rest; a longer rest that is already recorded stays. A disabled bot stays disabled."""
    until = datetime.now(UTC) + timedelta(seconds=seconds + 0.05)  # MongoDB keeps whole milliseconds
    TelegramBot._get_collection().update_one(
        {"_id": bot_id, "state": {"$ne": BotState.DISABLED.value}},
        {"$max": {"until": until}, "$set": {"state": BotState.COOLING.value, "reason": "Telegram asked it to wait"}},
    )
    forget_roster()
    log.warning("telegram_bot_cooling", bot_id=bot_id, seconds=seconds)
