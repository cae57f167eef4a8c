"""Fills an empty database from the settings."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings

from apps.core.secrets import encrypt_secret
from apps.telegram_cache.clients.answers import Chat
from apps.telegram_cache.documents import BotState, TelegramBot
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.selectors import all_bots, all_channels
from apps.telegram_cache.services.channels import store_channel
from apps.telegram_cache.services.checks import look_up


def seed_from_settings() -> None:
    """Fill an EMPTY database from TELEGRAM_BOT_TOKENS and TELEGRAM_CHANNEL_ID. Idempotent, also in many processes.

    Never fails because of Telegram: the numeric id is part of the token, and what cannot be checked now is checked
    by the sweep. An @name is resolved to its number as soon as Telegram answers.
    """
    tokens = settings.ENV.telegram_bot_tokens
    channel = settings.ENV.telegram_channel_id
    if tokens and not all_bots():
        for token in tokens:
            _seed_bot(token)
    if channel and not all_channels():
        _seed_channel(channel)
    forget_roster()


def _seed_bot(token: str) -> None:
    now = datetime.now(UTC)
    made = {
        "token_encrypted": encrypt_secret(token), "state": BotState.ACTIVE.value, "username": "", "reason": "",
        "barred": {}, "created_at": now, "updated_at": now,
    }  # fmt: skip
    bot_id = token.partition(":")[0]
    TelegramBot._get_collection().update_one({"_id": bot_id}, {"$setOnInsert": made}, upsert=True)


def _seed_channel(channel: str) -> None:
    chat = Chat(chat_id=channel, title="", username="", type="channel")
    if channel.startswith("@"):
        found, _ = look_up(channel, all_bots())
        chat = found or chat
    store_channel(chat, make_default=True)
