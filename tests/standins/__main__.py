"""``python -m tests.standins``: Telegram, SaveTube and YouTube in one process, for a server run by hand or by a test.

Prints one JSON line: ``environment`` (settings that point a server here) and ``control`` (an address: GET /counts,
POST /faults {"site", "route", ...fields of Fault}, POST /clear, GET /original?site=&id=&kind=&height=&itag=).
Ends when standard input closes, or at SIGTERM.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from contextlib import ExitStack
from typing import Any

from aiohttp import web

from tests.standins.savetube import SaveTubeStandIn
from tests.standins.server import StandIn
from tests.standins.telegram import TelegramStandIn
from tests.standins.youtube import YouTubeStandIn

BOT_ID = 5550001
CHANNEL_ID = -1001234567890


class Control(StandIn):
    """Counters, faults and originals of the three over HTTP."""

    def __init__(self, *, savetube: SaveTubeStandIn, youtube: YouTubeStandIn, telegram: TelegramStandIn) -> None:
        super().__init__()
        self.savetube, self.youtube = savetube, youtube
        self.sites: dict[str, StandIn] = {"savetube": savetube, "youtube": youtube, "telegram": telegram}

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/counts", self._counts)
        app.router.add_post("/faults", self._add_fault)
        app.router.add_post("/clear", self._clear)
        app.router.add_get("/original", self._original)
        return app

    async def _counts(self, _request: web.Request) -> web.Response:
        return web.json_response({name: dict(site.counts) for name, site in self.sites.items()})

    async def _add_fault(self, request: web.Request) -> web.Response:
        fields: dict[str, Any] = await request.json()
        try:
            self.sites[fields.pop("site")].faults.add(fields.pop("route"), **fields)
        except (KeyError, TypeError) as error:
            return web.json_response({"ok": False, "error": str(error)}, status=400)
        return web.json_response({"ok": True})

    async def _clear(self, _request: web.Request) -> web.Response:
        for site in self.sites.values():
            site.faults.clear()
            site.counts.clear()
        return web.json_response({"ok": True})

    async def _original(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            if query["site"] == "youtube":
                data = self.youtube.file_of(query["id"], int(query["itag"]))
            else:
                height = int(query["height"]) if "height" in query else None
                data = self.savetube.file_of(query["id"], query.get("kind", "audio"), height)
        except (KeyError, ValueError) as error:
            return web.json_response({"ok": False, "error": str(error)}, status=400)
        return web.json_response({"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})


def main() -> None:
    finished = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: finished.set())
    signal.signal(signal.SIGINT, lambda *_: finished.set())
    with ExitStack() as running:
        savetube = running.enter_context(SaveTubeStandIn())
        youtube = running.enter_context(YouTubeStandIn())
        telegram = running.enter_context(TelegramStandIn())
        control = running.enter_context(Control(savetube=savetube, youtube=youtube, telegram=telegram))
        bot = telegram.add_bot(BOT_ID)
        telegram.make_admin(bot, telegram.add_channel(CHANNEL_ID))
        environment = {
            **telegram.environment(),
            **savetube.settings,
            **youtube.settings,
            "OUTBOUND_ALLOW": "127.0.0.0/8",
            "TELEGRAM_BOT_TOKENS": bot.token,
            "TELEGRAM_CHANNEL_ID": str(CHANNEL_ID),
        }
        sys.stdout.write(json.dumps({"environment": environment, "control": control.url}) + "\n")
        sys.stdout.flush()
        threading.Thread(target=_wait_for_end_of_input, args=(finished,), daemon=True).start()
        finished.wait()


def _wait_for_end_of_input(finished: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    finished.set()


if __name__ == "__main__":
    main()
