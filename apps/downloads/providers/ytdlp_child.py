"""The process in which yt-dlp runs: one JSON line in, one out. A hostile page can hang or crash only this.

Started by ``ytdlp_pool`` as ``python -m``; imports nothing of Django. The first line in holds the options, each
further one asks for a video, a list or subtitles, and says with which cookies and through which proxy. Whatever
yt-dlp prints goes nowhere.
"""

from __future__ import annotations

import io
import ipaddress
import json
import os
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from apps.downloads.providers.ytdlp_answers import dump_cookies, list_tracks, parts_of_proxy, reduce_info, reduce_list
from apps.downloads.providers.ytdlp_arguments import parts_of_tokens, with_po_tokens
from apps.downloads.providers.ytdlp_jail import Guard, die_with_parent, kill_own_group, limit_resources

MAX_WAYS = 8
MAX_COOKIE_CHARS = 48 * 1024
MAX_WARNINGS = 20
MAX_SUBTITLE_BYTES = 4 * 1024 * 1024
TIMED_TEXT = "https://www.youtube.com/api/timedtext?"
EXTRACTOR_FAULT = "An extractor error has occurred"
COOKIES_REFUSED = "cookies are no longer valid"
HIDDEN = "[hidden]"


class _Quiet:
    """yt-dlp's logger: keeps the warnings of one extraction (a 429 is only said there), prints nothing."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, _message: str) -> None: ...

    def info(self, _message: str) -> None: ...

    def warning(self, message: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(message[:500])

    def error(self, message: str) -> None: ...


def _read_lines(lines: queue.Queue[bytes]) -> None:
    """Runs in a thread, so that the end of the parent is noticed also while yt-dlp is busy."""
    for line in sys.stdin.buffer:
        lines.put(line)
    kill_own_group()


def _json3_address(entries: Any) -> str | None:
    """Where a track is, as JSON; only ever YouTube's own address for that."""
    for entry in entries or []:
        if entry.get("ext") == "json3" and str(entry.get("url")).startswith(TIMED_TEXT):
            return str(entry["url"])
    return None


class _Extractor:
    """yt-dlp, and beside it one that skips the optional pages: a fault of the extractor's own is often due to them.

    A third one gives lists, without looking at each video.
    """

    def __init__(self, make: Callable[[dict[str, Any]], Any], options: dict[str, Any], way: dict[str, Any]) -> None:
        self._logger = _Quiet()
        self._make = make
        self._options = {**options, "logger": self._logger}
        self._hidden = [*parts_of_proxy(way.get("proxy")), *parts_of_tokens(way)]
        if way.get("proxy"):
            self._options["proxy"] = way["proxy"]
        if way.get("cookies"):
            self._options["cookiefile"] = io.StringIO(way["cookies"])
        if way.get("po_tokens"):
            self._options["extractor_args"] = with_po_tokens(self._options.get("extractor_args") or {}, way)
        self._usual = make(self._options)
        self._keeps_cookies = bool(way.get("cookies"))
        self._cookies = dump_cookies(self._usual.cookiejar) if self._keeps_cookies else ""
        self._sparing: Any = None
        self._lists: Any = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """To ``{"video_id"}``, ``{"list", "key", "items"}`` (an address, its extractor, which entries), or
        ``{"subtitles", "language"}`` (a video id; no language: only which there are)."""
        self._logger.warnings.clear()
        answer = self._answer(question)
        if self._keeps_cookies:
            if any(COOKIES_REFUSED in warning for warning in self._logger.warnings):
                answer["cookies_refused"] = True
            elif (text := dump_cookies(self._usual.cookiejar)) != self._cookies and len(text) <= MAX_COOKIE_CHARS:
                self._cookies = answer["cookies"] = text
        return answer

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if "list" in question:
            return self._answer_list(question)
        if "subtitles" in question:
            return self._guarded(lambda: self._subtitles(question["subtitles"], question["language"]))
        return self._answer_video(question["video_id"])

    def _answer_list(self, question: dict[str, Any]) -> dict[str, Any]:
        flat = {"extract_flat": "in_playlist", "noplaylist": False}
        self._lists = self._lists or self._another({**self._options, **flat})
        self._lists.params["playlist_items"] = question["items"]

        def extract() -> dict[str, Any]:
            found = self._lists.extract_info(question["list"], download=False, ie_key=question["key"])
            return {"list": reduce_list(self._lists.sanitize_info(found))}

        return self._guarded(extract)

    def _subtitles(self, video_id: str, language: str) -> dict[str, Any]:
        info = self._usual.extract_info(
            f"https://www.youtube.com/watch?v={video_id}", download=False, ie_key="Youtube", process=False
        )
        manual, automatic = info.get("subtitles") or {}, info.get("automatic_captions") or {}
        answer: dict[str, Any] = {"manual": list_tracks(manual), "automatic": list_tracks(automatic), "track": None}
        for tracks, is_automatic in ((manual, False), (automatic, True)):
            for name in (language, f"{language}-orig"):
                address = _json3_address(tracks.get(name)) if language else None
                if address is not None:
                    with self._usual.urlopen(address) as response:
                        text = response.read(MAX_SUBTITLE_BYTES + 1)
                    if len(text) > MAX_SUBTITLE_BYTES:
                        raise ValueError("the subtitles are too long")
                    answer["track"] = {"automatic": is_automatic, "events": json.loads(text or b"{}").get("events")}
                    return {"subtitles": answer}
        return {"subtitles": answer}

    def _answer_video(self, video_id: str) -> dict[str, Any]:
        answer = self._ask(self._usual, video_id)
        if EXTRACTOR_FAULT in answer.get("failure", {}).get("text", ""):
            self._sparing = self._sparing or self._another(self._sparing_options())
            answer = self._ask(self._sparing, video_id)
        return answer

    def _another(self, options: dict[str, Any]) -> Any:
        """One more yt-dlp, with the same cookies."""
        if self._keeps_cookies:
            options = {**options, "cookiefile": io.StringIO(dump_cookies(self._usual.cookiejar))}
        return self._make(options)

    def _sparing_options(self) -> dict[str, Any]:
        arguments = self._options.get("extractor_args") or {}
        youtube = {**arguments.get("youtube", {}), "player_skip": ["configs"]}
        return {**self._options, "extractor_args": {**arguments, "youtube": youtube}}

    def _ask(self, ydl: Any, video_id: str) -> dict[str, Any]:
        def extract() -> dict[str, Any]:
            info = ydl.extract_info(f"https://www.youtube.com/watch?v={video_id}", download=False, ie_key="Youtube")
            return {"info": reduce_info(ydl.sanitize_info(info))}

        return self._guarded(extract)

    def _guarded(self, extract: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return extract()
        except Exception as error:  # noqa: BLE001 - yt-dlp raises anything; the parent maps it by its text
            cause = getattr(error, "exc_info", None)
            kind = type(cause[1] if cause and cause[1] else error).__name__
            text = self._without_secrets(str(error)[:4000])
            warnings = [self._without_secrets(warning) for warning in self._logger.warnings]
            return {"failure": {"kind": kind, "text": text, "warnings": warnings}}

    def _without_secrets(self, text: str) -> str:
        for part in self._hidden:
            text = text.replace(part, HIDDEN)
        return text


class _Extractors:
    """One extractor for each way that is used, the latest few."""

    def __init__(self, make: Callable[[dict[str, Any]], Any], options: dict[str, Any], guard: Guard) -> None:
        self._make = make
        self._options = options
        self._guard = guard
        self._kept: OrderedDict[str, _Extractor] = OrderedDict()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        way = question.get("way") or {}
        self._guard.use_proxies(
            way.get("proxy") or self._options.get("proxy"), self._options.get("geo_verification_proxy")
        )
        try:
            return self.find(way).answer(question)
        except Exception as error:  # noqa: BLE001 - whatever these cookies or this proxy make yt-dlp raise
            return {"failure": {"kind": type(error).__name__, "text": "yt-dlp does not take its cookies or its proxy"}}

    def find(self, way: dict[str, Any]) -> _Extractor:
        key = str(way.get("key", ""))
        if key not in self._kept:
            self._kept[key] = _Extractor(self._make, self._options, way)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_WAYS:
            self._kept.popitem(last=False)
        return self._kept[key]


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    die_with_parent(int(sys.argv[1]))
    config = json.loads(sys.stdin.buffer.readline())
    limit_resources(config["memory_bytes"])
    guard = Guard(ipaddress.ip_network(text) for text in config["allow"])
    guard.install()
    lines: queue.Queue[bytes] = queue.Queue(maxsize=8)
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()

    def answer(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what, default=str).encode() + b"\n")

    import yt_dlp  # after the limits; takes about half a second

    try:
        extractors = _Extractors(yt_dlp.YoutubeDL, config["options"], guard)
        extractors.find({})
    except Exception as error:  # noqa: BLE001 - whatever an option of YTDLP_OPTIONS makes it raise
        answer({"broken": f"{type(error).__name__}: {error}"[:500]})
        return
    answer({"ready": True})
    while True:
        answer(extractors.answer(json.loads(lines.get())))


if __name__ == "__main__":
    main()
