"""What an operator has to know now, read from the record: shown by `telegram list`, `doctor`, the API and the admin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings

from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, BotState, TelegramBot, TelegramChannel
from apps.telegram_cache.selectors import all_bots, all_channels, assets_out_of_reach, uploads_given_up

MOST_UPLOADS = 20


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that does not mend itself. ``kind``: bot, channel or asset.

    ``todo``: what helps; ``command``: what does it where there is no page with a button.
    """

    kind: str
    id: str
    text: str
    todo: str
    command: str = ""

    @property
    def fix(self) -> str:
        return f"{self.todo}: {self.command}" if self.command else self.todo


def alerts() -> list[Alert]:
    """Every alert, bots first. Empty when all is well."""
    return [*_bot_alerts(), *_channel_alerts(), *_upload_alerts(), *_reach_alerts()]


def _bot_alerts() -> Iterator[Alert]:
    for bot in all_bots():
        if bot.state == BotState.DISABLED and bot.reason != DISABLED_BY_OPERATOR:
            name = f"@{bot.username or bot.bot_id}"
            yield Alert(
                kind="bot", id=bot.bot_id, text=f"{name} is not used: {bot.reason}", todo="Give its current token",
                command=f"manage.py telegram replace-token {bot.bot_id}",
            )  # fmt: skip


def _channel_alerts() -> Iterator[Alert]:
    bots = [bot for bot in all_bots() if bot.state != BotState.DISABLED]
    channels = all_channels()
    used = [channel for channel in channels if channel.state != BotState.DISABLED]
    if bots and used and not any(channel.is_default for channel in used):
        yield Alert(
            kind="channel", id=used[0].channel_id,
            text="New files are not stored in Telegram: no channel in use is the one for new parts",
            todo="Choose one", command=f"manage.py telegram set-default {used[0].channel_id}",
        )  # fmt: skip
    for channel in channels:
        yield from _barred_alerts(channel, bots)
        barred = [bot for bot in bots if channel.scratch_chat_id and channel.scratch_chat_id in bot.barred]
        if barred:
            names = ", ".join(f"@{bot.username or bot.bot_id}" for bot in barred)
            yield Alert(
                kind="channel", id=channel.channel_id,
                text=f"The scratch chat {channel.scratch_chat_id} takes no copies from {names}: "
                f"{barred[0].barred[channel.scratch_chat_id]}. They are made in {channel.title or channel.channel_id}.",
                todo="Let every bot post there, or use none",
                command=f"manage.py telegram set-scratch-chat {channel.channel_id} none",
            )  # fmt: skip


def _barred_alerts(channel: TelegramChannel, bots: list[TelegramBot]) -> Iterator[Alert]:
    """Bots in use that may not post in the channel. As it is now: an operator may have stopped the one that could."""
    name = channel.title or channel.channel_id
    barred = [(bot, bot.barred[channel.channel_id]) for bot in bots if channel.channel_id in bot.barred]
    is_used = channel.is_default and channel.state != BotState.DISABLED
    if channel.alert or (is_used and barred and len(barred) == len(bots)):
        reason = channel.alert or barred[0][1]
        yield Alert(
            kind="channel", id=channel.channel_id, text=f"Nothing can be stored in {name}: {reason}",
            todo="Make a bot its administrator again, or choose another channel for new parts",
            command="manage.py telegram set-default",
        )  # fmt: skip
    elif is_used:
        for bot, reason in barred:
            shown = f"@{bot.username or bot.bot_id}"
            yield Alert(
                kind="bot", id=bot.bot_id, text=f"{shown} stores nothing in {name}: {reason}",
                todo=f"In Telegram, let {shown} post messages there. Then check all",
                command="manage.py telegram check",
            )  # fmt: skip


def _upload_alerts() -> Iterator[Alert]:
    for asset in uploads_given_up(MOST_UPLOADS):
        yield Alert(
            kind="asset", id=asset.id, text=f"{asset.title or asset.video_id}: {asset.alert}",
            todo="Repair the upload", command=f"manage.py cache repair {asset.id}",
        )  # fmt: skip


def _reach_alerts() -> Iterator[Alert]:
    if settings.ENV.telegram_local_root is not None:
        return
    for asset in assets_out_of_reach(MOST_UPLOADS):
        yield Alert(
            kind="asset", id=asset.id,
            text=f"{asset.title or asset.video_id}: stored in parts that only a self-hosted Bot API server gives back",
            todo="Set TELEGRAM_API_URL and TELEGRAM_LOCAL_ROOT to that server again. Till then it is fetched anew when "
            "somebody asks for it; its stored parts stay until that is stored too",
        )  # fmt: skip
