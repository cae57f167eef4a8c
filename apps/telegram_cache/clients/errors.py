"""Everything that can go wrong with the Bot API, as one exception tree. No text in it holds a token."""

from __future__ import annotations

from typing import ClassVar


class TelegramError(Exception):
    """Base. ``may_have_happened``: the call may have been carried out although there is no usable answer."""

    may_have_happened: ClassVar[bool] = False


class TelegramUnreachable(TelegramError):
    """No connection, or the request could not be sent in full: nothing was carried out."""


class TelegramUncertain(TelegramError):
    """The request was sent, but the answer is missing, a 5xx, or makes no sense."""

    may_have_happened = True


class TelegramRateLimited(TelegramError):
    """429. ``retry_after_s`` is the larger of ``parameters.retry_after`` and the Retry-After header."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class BotBusy(TelegramRateLimited):
    """Not asked at all: by our own count this bot has sent as many messages to that chat as it may for now."""


class TelegramRefused(TelegramError):
    """A 4xx. The text is Telegram's own description."""


class TokenRefused(TelegramRefused):
    """401: the token is wrong or was revoked."""


class BotForbidden(TelegramRefused):
    """403: the bot is not in the channel, was removed, or may not do that there."""


class ChatNotFound(TelegramRefused):
    """400 ``chat not found``: the channel does not exist, or this bot has never been in it."""


class FileTooBig(TelegramRefused):
    """413, or 400 ``file is too big``. Bot API: uploads to 50 MB, getFile to 20 MiB."""


class FileUnavailable(TelegramRefused):
    """400 ``wrong file_id or the file is temporarily unavailable``: may pass."""


class FileIdInvalid(TelegramRefused):
    """400 ``invalid file_id``: this bot will never get a file with it."""


class MessageNotFound(TelegramRefused):
    """400: the bot sees no such message: it was deleted, or never was, or the bot is no administrator there."""


class FileLinkGone(TelegramRefused):
    """404 on the file link: it has expired (they last at least an hour)."""
