"""What the bots said while one part was asked for, and which of them need not be asked again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from apps.streaming.hotstore import WrongBlock
from apps.telegram_cache.clients.errors import FileIdInvalid, FileTooBig, MessageNotFound

WRONG_TWICE = 2


@dataclass
class Failures:
    """What the bots said while one part was asked for; ``said`` holds each one's last word."""

    said: dict[str, Exception] = field(default_factory=dict)
    _wrong: Counter[str] = field(default_factory=Counter)

    def add(self, bot_id: str, error: Exception) -> None:
        self.said[bot_id] = error
        self._wrong[bot_id] += isinstance(error, WrongBlock)

    def is_final(self, bot_id: str) -> bool:
        """Whether asking that bot again cannot help. Wrong bytes may have been spoilt on the way: once is no proof."""
        if self._wrong[bot_id] >= WRONG_TWICE:
            return True
        return isinstance(self.said.get(bot_id), (MessageNotFound, FileIdInvalid, FileTooBig))
