"""Which bot may call next: slots and token buckets in Redis, cool-downs and parking in MongoDB, for all processes."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

import redis
import structlog

from apps.core.owners import is_owner_dead, make_owner
from apps.core.redis import redis_client
from apps.telegram_cache.clients.errors import (
    BotBusy,
    BotForbidden,
    ChatNotFound,
    TelegramError,
    TelegramRateLimited,
    TokenRefused,
)
from apps.telegram_cache.documents import BotState, TelegramBot
from apps.telegram_cache.roster import Bot, Channel, forget_roster, roster
from apps.telegram_cache.services.bot_records import bar_bot, park_bot

log = structlog.get_logger(__name__)
MAX_UPLOADS_PER_BOT = 4  # Bot API: simultaneous uploads of one bot are spaced; a backlog over 5 s is refused with 429
RENEW_EVERY_S = 15.0
SLOT_S = 60.0  # a slot that is not renewed comes free: its process died (on this machine the sweep sees it sooner)
BURST_MESSAGES = 20  # what a channel takes at once before messages_per_min counts
DELETES_PER_MIN = 600  # removing takes no turn from what is sent; 30 calls a second are the most that a bot may make
MESSAGES_PER_MIN_ELSEWHERE = 20  # in a chat that is no channel of ours: what Telegram lets a bot send to a group
EVERY_BOT_IS_BUSY = "every bot is sending other files, or has to pause before it may send more"
NO_BOT_WAIT_S = 5.0  # the sweep looks again soon after an operator has mended it

# KEYS[1] is set while Telegram lets the bot rest, KEYS[2] is its bucket in a chat. ARGV: a minute, burst.
_BUCKET = """
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
local rest_ms = redis.call('PTTL', KEYS[1])
if rest_ms > 0 then return rest_ms end
local per_ms, burst = tonumber(ARGV[1]) / 60000, tonumber(ARGV[2])
local kept = redis.call('HMGET', KEYS[2], 'tokens', 'at')
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + (now - (tonumber(kept[2]) or now)) * per_ms)
if tokens < 1 then return math.ceil((1 - tokens) / per_ms) end
"""
_SPEND = """
redis.call('HSET', KEYS[2], 'tokens', tokens - 1, 'at', now)
redis.call('PEXPIRE', KEYS[2], math.ceil(burst / per_ms) + 1000)
"""
_TAKE_ONE = f"{_BUCKET}{_SPEND}return 0"
# KEYS[3] holds the slots of the bot. ARGV goes on: name of the slot, how many there are, ms until it comes free.
_TAKE_SLOT = f"""{_BUCKET}
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4]) then return 250 end
{_SPEND}
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[5]), ARGV[3])
redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[5]) + 1000)
return 0
"""
_REST = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
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


class NoBotThere(NoBotNow):
    """No bot may send in that channel until somebody mends it. The reason names the channel."""

    def __init__(self, reason: str) -> None:
        super().__init__(NO_BOT_WAIT_S, reason)


class Slot:
    """The right to send one message. A context manager: leaving it gives the slot back."""

    def __init__(self, bot: Bot, channel: Channel) -> None:
        self.bot = bot
        self.channel = channel
        self._name = f"{make_owner()}:{secrets.token_hex(8)}"

    def take(self) -> float:
        """0 when it is taken, else how many seconds to wait. One Redis script call: exact over all processes."""
        wait_ms = redis_client().eval(
            _TAKE_SLOT,
            3,
            _rest_key(self.bot.bot_id),
            _bucket_key(self.bot.bot_id, self.channel.channel_id),
            _slots_key(self.bot.bot_id),
            self.channel.messages_per_min,
            BURST_MESSAGES,
            self._name,
            MAX_UPLOADS_PER_BOT,
            int(SLOT_S * 1000),
        )
        return int(wait_ms) / 1000

    def renew(self) -> None:
        redis_client().eval(_RENEW, 1, _slots_key(self.bot.bot_id), self._name, int(SLOT_S * 1000))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it in a thread of its own while the block runs: what takes longer than SLOT_S needs that."""
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(ended,), name="telegram-slot", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(RENEW_EVERY_S):
            try:
                self.renew()
            except redis.RedisError as error:
                log.warning("telegram_slot_not_renewed", bot_id=self.bot.bot_id, error=type(error).__name__)

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


def _bucket_key(bot_id: str, chat_id: str) -> str:
    return f"yt:tg:bucket:{bot_id}:{chat_id}"


def _rest_key(bot_id: str) -> str:
    return f"yt:tg:rest:{bot_id}"


def take_token(bot_id: str, chat_id: str) -> float:
    """The right to send one small message (a copy) there now: 0, else how many seconds to wait. No upload slot."""
    channel = roster().channel(chat_id)
    per_min = channel.messages_per_min if channel else MESSAGES_PER_MIN_ELSEWHERE
    keys = _rest_key(bot_id), _bucket_key(bot_id, chat_id)
    return int(redis_client().eval(_TAKE_ONE, 2, *keys, per_min, BURST_MESSAGES)) / 1000


def take_delete(bot_id: str, chat_id: str) -> float:
    """The right to remove one message there now: 0, else how many seconds to wait."""
    keys = _rest_key(bot_id), f"{_bucket_key(bot_id, chat_id)}:deletes"
    return int(redis_client().eval(_TAKE_ONE, 2, *keys, DELETES_PER_MIN, BURST_MESSAGES)) / 1000


def take_slot(channel_id: str = "") -> Slot:
    """A slot of some usable bot in a channel (default: where new parts go); bots take turns.

    Raises NoBotNow: they are busy; NoBotThere: no bot can be used in that channel.
    """
    known = roster()
    channel = known.channel(channel_id) if channel_id else known.default_channel
    if channel is None:
        raise NoBotThere("there is no usable channel")
    bots = [bot for bot in known.bots if channel.channel_id not in bot.barred]
    if not bots:
        raise NoBotThere(f"no bot may post in the channel {channel.name}")
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
    """Record what an error says about a bot or its place in a chat, for every process. Others: nothing.

    ``channel_id`` is the chat that the refused call was about.
    """
    if isinstance(error, BotBusy):
        return
    if isinstance(error, TelegramRateLimited):
        cool_down(bot.bot_id, error.retry_after_s)
    elif isinstance(error, TokenRefused):
        park_bot(bot.bot_id, token_encrypted=bot.token_encrypted, reason=f"Telegram refuses the token: {error}")
    elif isinstance(error, (BotForbidden, ChatNotFound)) and channel_id:
        bar_bot(bot.bot_id, channel_id, reason=str(error))


def cool_down(bot_id: str, seconds: float) -> None:
    """Let the bot rest; a longer rest that is already recorded stays. A disabled bot stays disabled."""
    until = datetime.now(UTC) + timedelta(seconds=seconds + 0.05)  # MongoDB keeps whole milliseconds
    TelegramBot._get_collection().update_one(
        {"_id": bot_id, "state": {"$ne": BotState.DISABLED.value}},
        {"$max": {"until": until}, "$set": {"state": BotState.COOLING.value, "reason": "Telegram asked it to wait"}},
    )
    try:  # every process sees it there at its very next try; MongoDB's word reaches them within a second
        redis_client().eval(_REST, 1, _rest_key(bot_id), int(seconds * 1000) + 50)
    except redis.RedisError as error:
        log.warning("telegram_rest_not_told", bot_id=bot_id, error=type(error).__name__)
    forget_roster()
    log.warning("telegram_bot_cooling", bot_id=bot_id, seconds=seconds)


def end_rest(bot_id: str) -> None:
    """An operator has set the bot up anew: it may try at once."""
    try:
        redis_client().delete(_rest_key(bot_id))
    except redis.RedisError as error:
        log.warning("telegram_rest_not_ended", bot_id=bot_id, error=type(error).__name__)
