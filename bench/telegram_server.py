"""The Bot API stand-in as a process of its own: ``python -m bench.telegram_server <folder> <number of bots>``.

Prints one JSON line (address, tokens, channel) and runs until its standard input closes. A line there, such as
``{"bytes_per_s": 25000000, "delay_s": 0.05}``, makes each file link that slow and getFile that late; 0: at once. Each
line is answered with how many messages have been stored, and how many getFile calls and file links were answered.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.standins.faults import FOREVER
from tests.standins.telegram import TelegramStandIn

CHANNEL_ID = -1001234567890


def main() -> None:
    folder, bots = Path(sys.argv[1]), int(sys.argv[2])
    with TelegramStandIn(folder=folder) as telegram:
        channel = telegram.add_channel(CHANNEL_ID)
        tokens = []
        for number in range(bots):
            bot = telegram.add_bot(1001 + number)
            telegram.make_admin(bot, channel)
            tokens.append(bot.token)
        sys.stdout.write(json.dumps({"url": telegram.url, "tokens": tokens, "channel": str(CHANNEL_ID)}) + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            _slow_down(telegram, **json.loads(line))
            sys.stdout.write(json.dumps({name: telegram.counts[name] for name in ("stored", "getFile", "file")}) + "\n")
            sys.stdout.flush()


def _slow_down(telegram: TelegramStandIn, *, bytes_per_s: float, delay_s: float) -> None:
    telegram.faults.clear()
    if bytes_per_s:
        telegram.faults.add("file", bytes_per_s=bytes_per_s, times=FOREVER)
    if delay_s:
        telegram.faults.add("getFile", delay_s=delay_s, times=FOREVER)


if __name__ == "__main__":
    main()
