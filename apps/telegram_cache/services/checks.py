"""Asks Telegram about bots and channels, and says in plain words what to fix."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.secrets import SecretUnreadable, decrypt_secret
from apps.telegram_cache.clients.answers import Chat, Rights
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import (
    BotForbidden,
    ChatNotFound,
    TelegramError,
    TelegramRefused,
    TokenRefused,
)
from apps.telegram_cache.documents import TelegramBot
from apps.telegram_cache.roster import UNREADABLE
from apps.telegram_cache.services.bot_records import bar_bot, set_bot, set_channel

GROUPS = ("group", "supergroup")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found about one bot, one channel, or a bot in a channel. ``fix`` is empty when all is well."""

    bot_id: str = ""
    channel_id: str = ""
    ok: bool
    text: str
    fix: str = ""
    asked: bool = True  # Telegram was asked and answered


def look_up(channel: str, bots: list[TelegramBot]) -> tuple[Chat | None, list[Finding]]:
    """Ask each bot for the channel and for its own rights in it. Raises nothing: failures are findings."""
    found: Chat | None = None
    findings = []
    for bot in bots:
        try:
            api = BotApi(decrypt_secret(bot.token_encrypted))
            chat = api.get_chat(channel)
            rights = api.get_chat_member(chat.chat_id, bot.bot_id)
        except (TelegramError, SecretUnreadable) as error:
            findings.append(failed_finding(bot, channel, error))
            continue
        found = chat
        findings.append(_rights_finding(bot, chat, rights))
    return found, findings


def _rights_finding(bot: TelegramBot, chat: Chat, rights: Rights) -> Finding:
    name = f"@{bot.username or bot.bot_id}"
    where = chat.title or chat.chat_id
    if not (rights.can_post or (chat.type in GROUPS and rights.can_post_in_groups)):
        return Finding(
            bot_id=bot.bot_id, channel_id=chat.chat_id, ok=False, text=f"{name} may not post in {where}.",
            fix=f"In Telegram, open the channel's administrators, add {name} and allow it to post messages.",
        )  # fmt: skip
    if not rights.can_delete:
        return Finding(
            bot_id=bot.bot_id, channel_id=chat.chat_id, ok=True,
            text=f"{name} can post in {where}, but cannot delete messages.",
            fix="Allow it to delete messages, so that leftovers can be removed.",
        )  # fmt: skip
    return Finding(bot_id=bot.bot_id, channel_id=chat.chat_id, ok=True, text=f"{name} can post in {where}.")


def failed_finding(bot: TelegramBot, channel_id: str, error: Exception) -> Finding:
    """What an error means, in plain words. ``asked`` is False when Telegram gave no answer."""
    name = f"@{bot.username or bot.bot_id}"
    text, fix = f"{name}: Telegram could not be asked.", "Check TELEGRAM_API_URL and the connection, then try again."
    if isinstance(error, SecretUnreadable):
        text, fix = f"{name}: {UNREADABLE}", ""
    elif isinstance(error, ChatNotFound):
        text, fix = f"{name} does not see the channel.", f"Add {name} to it as an administrator, and check the id."
    elif isinstance(error, BotForbidden):
        text, fix = f"{name} is not in the channel.", f"Add {name} to it as an administrator that may post messages."
    elif isinstance(error, TokenRefused):
        text, fix = f"{name}: Telegram refuses its token.", "Give it its current token."
    elif isinstance(error, TelegramRefused):
        text, fix = f"{name}: {error}.", ""
    asked = isinstance(error, TelegramRefused)
    return Finding(bot_id=bot.bot_id, channel_id=channel_id, ok=False, text=text, fix=fix, asked=asked)


def note_rights(finding: Finding, channel_id: str) -> None:
    """Store whether a bot may post in a channel. Only what Telegram said counts: a failed connection bars nobody."""
    if finding.ok:
        set_bot(finding.bot_id, unset=(f"barred.{channel_id}",))
        set_channel(channel_id, {"alert": ""})
    elif finding.asked:
        bar_bot(finding.bot_id, channel_id, reason=finding.text)
