"""What the bots said while one part was asked for, and which of them need not be asked again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from apps.streaming.hotstore import WrongBlock
from apps.telegram_cache.clients.errors import (
    BotForbidden,
    ChatNotFound,
    FileIdInvalid,
    FileTooBig,
    MessageNotFound,
    TelegramUnreachable,
)

IN_A_ROW = 3


@dataclass
class Failures:
    """What the bots said while one part was asked for; ``said`` holds each one's last word."""

    said: dict[str, Exception] = field(default_factory=dict)
    _count: Counter[str] = field(default_factory=Counter)
    _in_a_row: Counter[str] = field(default_factory=Counter)

    def add(self, bot_id: str, error: Exception) -> None:
        counts = isinstance(error, (WrongBlock, FileIdInvalid, FileTooBig))
        same = counts and isinstance(error, type(self.said.get(bot_id, error)))
        self.said[bot_id] = error
        self._count[bot_id] += 1
        self._in_a_row[bot_id] = int(counts) + (self._in_a_row[bot_id] if same else 0)

    def count_of(self, bot_id: str) -> int:
        """How often asking that bot failed: those who failed least are asked first."""
        return self._count[bot_id]

    @property
    def nobody_answered(self) -> bool:
        """Whether no bot got a connection."""
        return bool(self.said) and all(isinstance(error, TelegramUnreachable) for error in self.said.values())

    def is_final(self, bot_id: str) -> bool:
        """Whether asking that bot again cannot help now. Wrong bytes may have been spoilt on the way, and a 413 may
        come from a proxy: they count when they come several times in a row.
        """
        said = self.said.get(bot_id)
        return self._in_a_row[bot_id] >= IN_A_ROW or isinstance(said, (MessageNotFound, BotForbidden, ChatNotFound))

    def says_it_is_bad(self, bot_id: str) -> bool:
        """Whether that bot found, for good, that the message is gone or holds other bytes. "Too big" is the server's
        limit and says nothing of the bytes.
        """
        said = self.said.get(bot_id)
        in_a_row = self._in_a_row[bot_id] >= IN_A_ROW and isinstance(said, (WrongBlock, FileIdInvalid))
        return in_a_row or isinstance(said, MessageNotFound)

    def sees_nothing(self, bot_id: str) -> bool:
        """Whether that bot is not let into the channel, so that it can neither say yes nor no."""
        return isinstance(self.said.get(bot_id), (BotForbidden, ChatNotFound))
