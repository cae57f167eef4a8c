"""The stand-ins as ``manage.py demo`` uses them: a video source and a Telegram with one bot and one channel."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from tests.standins.media import make_media
from tests.standins.savetube import SaveTubeStandIn
from tests.standins.telegram import TelegramStandIn

BOT_ID = 5550001
CHANNEL_ID = -1001234567890


class StandInWorld:
    """Everything outside, in threads of this process. Use it as a context manager."""

    def __init__(self) -> None:
        self._savetube = SaveTubeStandIn()
        self._telegram = TelegramStandIn()
        self._stack = ExitStack()
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        for stand_in in (self._savetube, self._telegram):
            stand_in.start()
            self._stack.callback(stand_in.stop)
        make_media("large")  # takes a few seconds once; not a part of what is timed
        bot = self._telegram.add_bot(BOT_ID)
        channel = self._telegram.add_channel(CHANNEL_ID)
        self._telegram.make_admin(bot, channel)
        self._environment = {
            **self._savetube.settings,
            **self._telegram.environment(),
            "TELEGRAM_BOT_TOKENS": bot.token,
            "TELEGRAM_CHANNEL_ID": str(CHANNEL_ID),
            "PROVIDERS": "savetube",
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        return self._environment

    def slow_down(self, bytes_per_s: float, *, delay_s: float = 0.0) -> None:
        """The next file comes so slowly, and begins only after ``delay_s``."""
        self._savetube.faults.add("file", bytes_per_s=bytes_per_s, delay_s=delay_s)

    def original(self, video_id: str) -> bytes:
        return self._savetube.file_of(video_id, "audio")

    def downloads(self, video_id: str) -> int:
        return self._savetube.counts[f"file:{video_id}"]

    def sent_bytes(self, video_id: str) -> int:
        return self._savetube.counts[f"bytes:{video_id}"]

    def telegram_reads(self) -> int:
        return self._telegram.counts["file"]

    def delay_telegram(self, delay_s: float) -> None:
        """From now on Telegram thinks so long about each getFile and each file."""
        for route in ("getFile", "file"):
            self._telegram.faults.add(route, delay_s=delay_s, times=10_000)
