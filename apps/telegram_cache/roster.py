"""Which bots and channels there are, as this process sees them: read from MongoDB at most once in 0.8 s."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from apps.core.secrets import SecretUnreadable, decrypt_secret
from apps.telegram_cache.documents import BotState
from apps.telegram_cache.selectors import all_bots, all_channels

MAX_AGE_S = 0.8
UNREADABLE = "The stored token cannot be decrypted: FIELD_KEYS has changed. Add the bot again."


@dataclass(frozen=True, kw_only=True)
class Bot:
    """A bot that is not disabled."""

    bot_id: str
    username: str
    token: str = field(repr=False)
    token_encrypted: str = field(default="", repr=False)  # as it is stored: tells an old token from its replacement
    cooling_until: datetime | None
    barred: frozenset[str]  # channels it cannot post in

    def cooling_s(self, now: datetime | None = None) -> float:
        """Seconds until Telegram lets this bot call again; 0 when it may now."""
        if self.cooling_until is None:
            return 0.0
        return max(0.0, (self.cooling_until - (now or datetime.now(UTC))).total_seconds())


@dataclass(frozen=True, kw_only=True)
class Channel:
    channel_id: str
    username: str
    is_default: bool
    is_active: bool
    messages_per_min: int
    scratch_chat_id: str
    playable: bool = False
    title: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.title} ({self.channel_id})" if self.title else self.channel_id


@dataclass(frozen=True, kw_only=True)
class Roster:
    bots: tuple[Bot, ...] = ()
    channels: tuple[Channel, ...] = ()

    @property
    def default_channel(self) -> Channel | None:
        """Where new parts go; None when there is none, or it is disabled."""
        return next((channel for channel in self.channels if channel.is_default and channel.is_active), None)

    @property
    def can_upload(self) -> bool:
        """Whether Telegram is on: there is a bot, and a channel it may post in."""
        channel = self.default_channel
        return channel is not None and any(channel.channel_id not in bot.barred for bot in self.bots)

    def channel(self, channel_id: str) -> Channel | None:
        return next((channel for channel in self.channels if channel.channel_id == channel_id), None)

    def bot(self, bot_id: str) -> Bot | None:
        return next((bot for bot in self.bots if bot.bot_id == bot_id), None)


class _Kept:
    """The roster of this process and when it was read."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.roster = Roster()
        self.read_at = float("-inf")
        self.version = 0


_kept = _Kept()


def roster() -> Roster:
    """Bots and channels, at most 0.8 s old. One thread reads, the others wait for it."""
    if time.monotonic() - _kept.read_at < MAX_AGE_S:
        return _kept.roster
    with _kept.lock:
        if time.monotonic() - _kept.read_at >= MAX_AGE_S:
            started_at, version = time.monotonic(), _kept.version
            _kept.roster = _read()
            if version == _kept.version:  # nobody has changed anything while it was being read
                _kept.read_at = started_at
        return _kept.roster


def forget_roster() -> None:
    """Read it again at the next use: this process has just changed it."""
    _kept.version += 1
    _kept.read_at = float("-inf")


def _read() -> Roster:
    bots = []
    for document in all_bots():
        if document.state == BotState.DISABLED:
            continue
        try:
            token = decrypt_secret(document.token_encrypted)
        except SecretUnreadable:
            continue  # `telegram list` says so
        bots.append(
            Bot(
                bot_id=document.bot_id,
                username=document.username,
                token=token,
                token_encrypted=document.token_encrypted,
                cooling_until=document.until if document.state == BotState.COOLING else None,
                barred=frozenset(document.barred),
            )
        )
    channels = tuple(
        Channel(
            channel_id=document.channel_id,
            username=document.username,
            is_default=document.is_default,
            is_active=document.state != BotState.DISABLED,
            messages_per_min=document.messages_per_min,
            scratch_chat_id=document.scratch_chat_id,
            playable=document.playable,
            title=document.title,
        )
        for document in all_channels()
    )
    return Roster(bots=tuple(bots), channels=channels)
