"""What the status of a file link's answer means."""

from __future__ import annotations

from collections.abc import Mapping

from apps.telegram_cache.clients.answers import read_answer
from apps.telegram_cache.clients.errors import FileLinkGone, TelegramRefused, TelegramUncertain

LINK_GONE = (400, 401, 403, 404, 410)  # getFile says what it is: an old link, another token, or worse


def check_link_status(status: int, headers: Mapping[str, str]) -> None:
    """Raises FileLinkGone (ask getFile again), TelegramRateLimited, TelegramUncertain, TelegramRefused."""
    if status == 200:
        return
    if status in LINK_GONE:
        raise FileLinkGone(f"the file link is no longer good ({status})")
    if status == 429:
        read_answer(status=429, headers=headers, body=b"", token="")
    if status >= 500:
        raise TelegramUncertain(f"the file link answered {status}")
    raise TelegramRefused(f"the file link answered {status}")
