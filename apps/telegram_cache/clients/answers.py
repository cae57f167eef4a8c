"""Reads Bot API answers: the one place where status codes and descriptions become values or errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.telegram_cache.clients.errors import (
    BotForbidden,
    ChatNotFound,
    FileIdInvalid,
    FileTooBig,
    FileUnavailable,
    MessageNotFound,
    TelegramError,
    TelegramRateLimited,
    TelegramRefused,
    TelegramUncertain,
    TokenRefused,
)

MAX_ANSWER_BYTES = 1024 * 1024
MAX_RETRY_AFTER_S = 24 * 3600
DEFAULT_RETRY_AFTER_S = 5.0
MAX_NUMBER = 2**53  # Bot API: ids have at most 52 significant bits; sizes too
_MAX_DESCRIPTION = 300
_NO_NUMBER = (TypeError, ValueError, OverflowError)
_BY_DESCRIPTION: tuple[tuple[str, type[TelegramRefused]], ...] = (
    ("chat not found", ChatNotFound),
    ("file is too big", FileTooBig),
    ("request entity too large", FileTooBig),
    ("temporarily unavailable", FileUnavailable),
    ("file_id", FileIdInvalid),
    ("file identifier", FileIdInvalid),
    ("message to forward not found", MessageNotFound),
    ("message to delete not found", MessageNotFound),
    ("message_id_invalid", MessageNotFound),
    ("not enough rights", BotForbidden),
    ("need administrator rights", BotForbidden),
    ("bot is not a member", BotForbidden),
)


@dataclass(frozen=True, kw_only=True)
class BotIdentity:
    bot_id: str
    username: str


@dataclass(frozen=True, kw_only=True)
class Chat:
    chat_id: str
    title: str
    username: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What a bot may do in a channel."""

    status: str  # creator, administrator, member, left, kicked...
    can_post: bool
    can_delete: bool
    can_post_in_groups: bool = False  # every member of a group may, unless it is restricted

    @property
    def is_administrator(self) -> bool:
        """Only administrators see every message of a channel."""
        return self.status in {"creator", "administrator"}


@dataclass(frozen=True, kw_only=True)
class StoredMessage:
    """A message with a file in it, as the bot that asked sees it: ``file_id`` is good for that bot only."""

    message_id: int
    chat_id: str  # the channel's number, also when it was sent to its @name; empty when the answer does not say
    file_id: str
    file_unique_id: str
    file_size: int | None
    caption: str


@dataclass(frozen=True, kw_only=True)
class ForwardedCopy:
    """What forwardMessage made. ``file`` is None when the original is not a file."""

    message_id: int
    file: StoredMessage | None


def read_answer(*, status: int, headers: Mapping[str, str], body: bytes, token: str) -> Any:
    """The ``result`` of a Bot API answer. Raises a TelegramError; a body that is not JSON never hides the status."""
    payload = _read_json(body)
    if payload is not None and 200 <= status < 300 and payload.get("ok") is True and "result" in payload:
        return payload["result"]
    raise _error_for(status=status, headers=headers, payload=payload, token=token)


def _read_json(body: bytes) -> dict[str, Any] | None:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _error_for(*, status: int, headers: Mapping[str, str], payload: dict[str, Any] | None, token: str) -> TelegramError:
    said = payload or {}
    if 200 <= status < 300:
        code = said.get("error_code")
        if said.get("ok") is not False or not isinstance(code, int):
            return TelegramUncertain(f"Telegram answered {status} without a result")
        status = code
    text = str(said.get("description", ""))
    text = (text.replace(token, "[token]") if token else text)[:_MAX_DESCRIPTION]
    text = text or f"Telegram answered with status {status}"
    if status == 429:
        return TelegramRateLimited(text, retry_after_s=_retry_after_s(headers, said))
    if status == 413:
        return FileTooBig(text)
    if status == 401:
        return TokenRefused(text)
    if status == 403:
        return BotForbidden(text)
    if 400 <= status < 500:
        lowered = text.lower()
        return next((kind for words, kind in _BY_DESCRIPTION if words in lowered), TelegramRefused)(text)
    return TelegramUncertain(text)


def _retry_after_s(headers: Mapping[str, str], said: dict[str, Any]) -> float:
    parameters = said.get("parameters")
    given = [headers.get("Retry-After"), parameters.get("retry_after") if isinstance(parameters, dict) else None]
    seconds = []
    for value in given:
        try:
            seconds.append(float(value))  # type: ignore[arg-type]
        except _NO_NUMBER:
            continue
    usable = [value for value in seconds if 0 <= value < float("inf")]
    return min(max(usable), MAX_RETRY_AFTER_S) if usable else DEFAULT_RETRY_AFTER_S


def _number(given: Any) -> int:
    """Raises one of _NO_NUMBER."""
    number = int(given)
    if abs(number) >= MAX_NUMBER:
        raise ValueError("no id or size of Telegram")
    return number


def read_identity(result: Any) -> BotIdentity:
    try:
        return BotIdentity(bot_id=str(_number(result["id"])), username=str(result.get("username", "")))
    except (KeyError, AttributeError, *_NO_NUMBER):
        raise TelegramUncertain("getMe: the answer names no bot") from None


def read_chat(result: Any) -> Chat:
    try:
        return Chat(
            chat_id=str(_number(result["id"])),
            title=str(result.get("title", "")),
            username=str(result.get("username", "")),
            type=str(result.get("type", "")),
        )
    except (KeyError, AttributeError, *_NO_NUMBER):
        raise TelegramUncertain("getChat: the answer names no chat") from None


def read_rights(result: Any) -> Rights:
    """Bot API: a creator may do everything; an administrator what its ChatMemberAdministrator says."""
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        raise TelegramUncertain("getChatMember: the answer names no status")
    owner = result["status"] == "creator"
    return Rights(
        status=result["status"],
        can_post=owner or result.get("can_post_messages") is True,
        can_delete=owner or result.get("can_delete_messages") is True,
        can_post_in_groups=result["status"] in {"creator", "administrator", "member"},
    )


def read_file_path(result: Any) -> str:
    path = result.get("file_path") if isinstance(result, dict) else None
    if not isinstance(path, str) or not path:
        raise TelegramUncertain("getFile: the answer has no file_path")
    return path


def read_stored_message(result: Any) -> StoredMessage:
    """Looks at every media key: a document can come back as video, animation or audio."""
    try:
        media = next(_media_of(result))
        size, chat = media.get("file_size"), result.get("chat")
        return StoredMessage(
            message_id=read_message_id(result),
            chat_id=str(_number(chat["id"])) if isinstance(chat, dict) and "id" in chat else "",
            file_id=str(media["file_id"]),
            file_unique_id=str(media["file_unique_id"]),
            file_size=_number(size) if size is not None else None,
            caption=str(result.get("caption", "")),
        )
    except (KeyError, AttributeError, StopIteration, *_NO_NUMBER):
        raise TelegramUncertain("the answer holds no file") from None


def read_message_id(result: Any) -> int:
    """Bot API: 0 means that the message was only scheduled; it may be there later."""
    try:
        message_id = _number(result["message_id"])
    except (KeyError, *_NO_NUMBER):
        message_id = 0
    if message_id <= 0:
        raise TelegramUncertain("the answer names no message")
    return message_id


def read_forwarded_copy(result: Any) -> ForwardedCopy:
    message_id = read_message_id(result)
    has_file = next(_media_of(result), None) is not None
    return ForwardedCopy(message_id=message_id, file=read_stored_message(result) if has_file else None)


def _media_of(message: dict[str, Any]) -> Any:
    for name in ("document", "video", "animation", "audio", "voice", "video_note"):
        media = message.get(name)
        if isinstance(media, dict) and media.get("file_id") and media.get("file_unique_id"):
            yield media
