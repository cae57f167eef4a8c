"""Bots: add, replace the token, disable, check. Changes reach every process within a second."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import structlog

from apps.core.errors import InvalidParameter, UpstreamUnreachable
from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import TelegramError, TelegramRefused, TokenRefused
from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, BotState, TelegramBot
from apps.telegram_cache.roster import UNREADABLE, forget_roster
from apps.telegram_cache.selectors import all_bots, all_channels
from apps.telegram_cache.services.bot_records import known_bot, park_bot, revive_bot, set_bot, set_channel
from apps.telegram_cache.services.channels import rename_channel
from apps.telegram_cache.services.checks import Finding, failed_finding, look_up, note_rights
from apps.telegram_cache.services.pool import end_rest

log = structlog.get_logger(__name__)
TOKEN_PATTERN = re.compile(r"\d{1,20}:[A-Za-z0-9_-]{3,128}", re.ASCII)


def replace_token(bot_id: str, token: str) -> TelegramBot:
    """Give a known bot its new token. Everything it stored stays readable. Raises NotFound, and what add_bot raises."""
    known_bot(bot_id)
    if token.strip().partition(":")[0] != bot_id:
        raise InvalidParameter("This is the token of another bot: its number before the colon differs.")
    return add_bot(token)


def enable_bot(bot_id: str) -> TelegramBot:
    """Use a bot again, if Telegram takes its token. Raises NotFound, and what add_bot raises."""
    try:
        token = decrypt_secret(known_bot(bot_id).token_encrypted)
    except SecretUnreadable:
        raise InvalidParameter(UNREADABLE) from None
    return add_bot(token)


def add_bot(token: str) -> TelegramBot:
    """As ``add_and_check_bot``, for callers that look at the bot only."""
    return add_and_check_bot(token)[0]


def add_and_check_bot(token: str) -> tuple[TelegramBot, list[Finding]]:
    """Check the token with getMe and store it, encrypted, under the bot's numeric id. Then ask for its rights.

    A new token of a bot that is known replaces the old one: everything that bot stored stays readable. The findings say
    what it may do in each channel; it is not used where it may not post. Raises InvalidParameter (with what to do) or
    UpstreamUnreachable; nothing is stored then.
    """
    token = token.strip()
    if not TOKEN_PATTERN.fullmatch(token):
        raise InvalidParameter("This is not a bot token. BotFather gives one that looks like 123456789:AbC...")
    try:
        identity = BotApi(token).get_me()
    except TokenRefused:
        raise InvalidParameter("Telegram refuses this token. Ask BotFather for the current one (/token).") from None
    except TelegramRefused as error:
        raise InvalidParameter(f"Telegram does not know this bot: {error}") from None
    except TelegramError:
        raise UpstreamUnreachable("Telegram cannot be reached, so the token could not be checked.") from None
    now = datetime.now(UTC)
    set_bot(
        identity.bot_id,
        set_={"username": identity.username, "token_encrypted": encrypt_secret(token), "state": BotState.ACTIVE.value,
              "reason": "", "barred": {}, "checked_at": now},
        unset=("until",),
        upsert=True,
    )  # fmt: skip
    end_rest(identity.bot_id)
    findings = _check_rights(known_bot(identity.bot_id))
    return known_bot(identity.bot_id), findings


def disable_bot(bot_id: str, *, reason: str = DISABLED_BY_OPERATOR) -> None:
    """Stop using a bot. What it stored stays readable through the others. Raises NotFound."""
    known_bot(bot_id)
    set_bot(bot_id, set_={"state": BotState.DISABLED.value, "reason": reason})
    log.info("telegram_bot_disabled", bot_id=bot_id, reason=reason)


def check_all() -> list[Finding]:
    """Ask Telegram about every bot and its rights in every channel, store what it says, and tell it in plain words.

    Parked bots and channels that are well again become usable; those an operator disabled stay disabled.
    """
    findings: list[Finding] = []
    for bot in all_bots():
        if bot.state == BotState.DISABLED and bot.reason == DISABLED_BY_OPERATOR:
            continue
        finding = _check_bot(bot)
        findings.append(finding)
        if not finding.ok:
            continue
        findings.extend(_check_rights(bot))
    forget_roster()
    return findings


def _check_rights(bot: TelegramBot) -> list[Finding]:
    """What the bot may do in every channel, stored."""
    findings: list[Finding] = []
    for channel in all_channels():
        chat, rights = look_up(channel.channel_id, [bot])
        if chat is not None and chat.chat_id != channel.channel_id:
            rename_channel(channel, chat)
        elif chat is not None:
            set_channel(channel.channel_id, {"title": chat.title, "username": chat.username,
                                              "checked_at": datetime.now(UTC)})  # fmt: skip
        for item in rights:
            note_rights(item, chat.chat_id if chat else channel.channel_id)
        findings.extend(rights)
    return [*findings, *_check_scratch_chats(bot)]


def _check_scratch_chats(bot: TelegramBot) -> list[Finding]:
    """What is wrong there. A scratch chat only holds copies for a moment: its channel works without it."""
    channels = all_channels()
    scratch_chats = {channel.scratch_chat_id for channel in channels} - {"", *(item.channel_id for item in channels)}
    findings = [finding for chat_id in sorted(scratch_chats) for finding in look_up(chat_id, [bot])[1]]
    for finding in findings:
        note_rights(finding, finding.channel_id)
    return [finding for finding in findings if not finding.ok]


def _check_bot(bot: TelegramBot) -> Finding:
    name = f"@{bot.username or bot.bot_id}"
    try:
        identity = BotApi(decrypt_secret(bot.token_encrypted)).get_me()
    except TokenRefused as error:
        park_bot(bot.bot_id, token_encrypted=bot.token_encrypted, reason=f"Telegram refuses the token: {error}")
        return failed_finding(bot, "", error)
    except (TelegramError, SecretUnreadable) as error:
        return failed_finding(bot, "", error)
    set_bot(bot.bot_id, set_={"username": identity.username, "checked_at": datetime.now(UTC)})
    revive_bot(bot.bot_id, token_encrypted=bot.token_encrypted)
    return Finding(bot_id=bot.bot_id, ok=True, text=f"{name}: the token is good.")
