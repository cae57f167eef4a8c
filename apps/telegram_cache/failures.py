"""What the bots said while one part was asked for, and which of them need not be asked again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from apps.streaming.hotstore import WrongBlock
from apps.telegram_cache.clients.errors import FileIdInvalid, FileTooBig, MessageNotFound, TelegramUnreachable

IN_A_ROW = 3


@dataclass
class Failures:
    """What the bots said while one part was asked for; ``said`` holds each one's last word."""

    said: dict[str, Exception] = field(default_factory=dict)
    _count: Counter[str] = field(default_factory=Counter)
    _bad: Counter[str] = field(default_factory=Counter)

    def add(self, bot_id: str, error: Exception) -> None:
        self.said[bot_id] = error
        self._count[bot_id] += 1
        self._bad[bot_id] = self._bad[bot_id] + 1 if isinstance(error, (WrongBlock, FileTooBig)) else 0

    def count_of(self, bot_id: str) -> int:
        """How often asking that bot failed: those who failed least are asked first."""
        return self._count[bot_id]

    @property
    def nobody_answered(self) -> bool:
        """Whether no bot got a connection."""
        return bool(self.said) and all(isinstance(error, TelegramUnreachable) for error in self.said.values())

    def is_final(self, bot_id: str) -> bool:
        """Whether asking that bot again cannot help. Wrong bytes may have been spoilt on the way, and a 413 may come
        from a proxy: they count when they come several times in a row.
        """
        return self._bad[bot_id] >= IN_A_ROW or isinstance(self.said.get(bot_id), (MessageNotFound, FileIdInvalid))
