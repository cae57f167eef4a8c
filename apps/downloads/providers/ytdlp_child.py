"""The process in which yt-dlp runs: one JSON line in, one out. A hostile page can hang or crash only this.

Started by ``ytdlp_pool`` as ``python -m``; imports nothing of Django. The first line in holds the options, each
further one asks for a video, a list or subtitles. Whatever yt-dlp prints goes nowhere.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from apps.core.addresses import IpNetwork, is_allowed_private, is_public

PR_SET_PDEATHSIG = 1
MAX_FILE_BYTES = 64 * 1024 * 1024  # of what yt-dlp keeps in its cache folder
MAX_FORMATS = 400
MAX_LISTED = 300
MAX_TEXT_CHARS = 20_000
MAX_WARNINGS = 20
MAX_SUBTITLE_BYTES = 4 * 1024 * 1024
TIMED_TEXT = "https://www.youtube.com/api/timedtext?"
EXTRACTOR_FAULT = "An extractor error has occurred"
TOP_FIELDS = (
    "id", "title", "description", "duration", "thumbnail", "uploader", "channel", "uploader_id", "channel_id",
    "upload_date", "view_count", "live_status", "is_live", "chapters",
)  # fmt: skip
FORMAT_FIELDS = (
    "format_id", "url", "protocol", "ext", "container", "width", "height", "fps", "vcodec", "acodec", "abr", "tbr",
    "filesize", "filesize_approx", "has_drm", "format_note", "language_preference", "dynamic_range", "http_headers",
    "available_at",
)  # fmt: skip
LIST_FIELDS = ("id", "title", "channel", "channel_id", "uploader", "playlist_count")
ENTRY_FIELDS = ("id", "title", "channel", "channel_id", "uploader", "duration", "view_count", "live_status")


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


def _kill_own_group(*_: Any) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _die_with_parent(parent_pid: int) -> None:
    signal.signal(signal.SIGTERM, _kill_own_group)  # takes Node along
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        _kill_own_group()


def _limit_resources(memory_bytes: int) -> None:
    """RLIMIT_DATA, not RLIMIT_AS: Node reserves far more address space than it uses."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _guard_connections(allow: tuple[IpNetwork, ...]) -> None:
    """Every connection of this process is to a public address or one of ``allow``, whatever a page says."""

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not isinstance(arguments[1], tuple):
            return
        address = ipaddress.ip_address(arguments[1][0])
        if not is_public(address) and not is_allowed_private(address, allow):
            raise PermissionError("refused to connect to a private address")

    sys.addaudithook(check)


def _read_lines(lines: queue.Queue[bytes]) -> None:
    """Runs in a thread, so that the end of the parent is noticed also while yt-dlp is busy."""
    for line in sys.stdin.buffer:
        lines.put(line)
    _kill_own_group()


def _listed(tracks: Any) -> dict[str, str]:
    found = {}
    for language, entries in list((tracks or {}).items())[:MAX_LISTED]:
        found[str(language)[:40]] = str((entries[0] if entries else {}).get("name") or "")[:200]
    return found


def _json3_address(entries: Any) -> str | None:
    """Where a track is, as JSON; only ever YouTube's own address for that."""
    for entry in entries or []:
        if entry.get("ext") == "json3" and str(entry.get("url")).startswith(TIMED_TEXT):
            return str(entry["url"])
    return None


def reduce_info(info: dict[str, Any]) -> dict[str, Any]:
    """The part of yt-dlp's answer that the provider reads, bounded."""
    reduced = {name: info.get(name) for name in TOP_FIELDS}
    for name, value in reduced.items():
        if isinstance(value, str):
            reduced[name] = value[:MAX_TEXT_CHARS]
    reduced["chapters"] = (info.get("chapters") or [])[:MAX_LISTED]
    formats = (info.get("formats") or [])[:MAX_FORMATS]
    reduced["formats"] = [
        {name: entry.get(name) for name in FORMAT_FIELDS if entry.get(name) is not None}
        for entry in formats
        if not entry.get("fragments")
    ]
    reduced["thumbnails"] = [entry.get("url") for entry in (info.get("thumbnails") or [])[-20:]]
    reduced["subtitles"] = _listed(info.get("subtitles"))
    reduced["automatic_captions"] = _listed(info.get("automatic_captions"))
    return reduced


def reduce_list(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a flat list that is read, bounded."""
    entries = [entry for entry in (found.get("entries") or [])[:MAX_LISTED] if entry]
    return {
        **_shortened(found, LIST_FIELDS),
        "entries": [_shortened(entry, ENTRY_FIELDS) for entry in entries],
    }


def _shortened(source: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: source.get(name) for name in names}
    return {name: value[:500] if isinstance(value, str) else value for name, value in values.items()}


class _Extractor:
    """yt-dlp, and beside it one that skips the optional pages: a fault of the extractor's own is often due to them.

    A third one gives lists, without looking at each video.
    """

    def __init__(self, make: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> None:
        self._logger = _Quiet()
        self._make = make
        self._options = {**options, "logger": self._logger}
        self._usual = make(self._options)
        self._sparing: Any = None
        self._lists: Any = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """To ``{"video_id"}``, ``{"list", "key", "items"}`` (an address, its extractor, which entries), or
        ``{"subtitles", "language"}`` (a video id; no language: only which there are)."""
        self._logger.warnings.clear()
        if "list" in question:
            return self._answer_list(question)
        if "subtitles" in question:
            return self._guarded(lambda: self._subtitles(question["subtitles"], question["language"]))
        return self._answer_video(question["video_id"])

    def _answer_list(self, question: dict[str, Any]) -> dict[str, Any]:
        flat = {"extract_flat": "in_playlist", "noplaylist": False}
        self._lists = self._lists or self._make({**self._options, **flat})
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
        answer: dict[str, Any] = {"manual": _listed(manual), "automatic": _listed(automatic), "track": None}
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
            self._sparing = self._sparing or self._make(self._sparing_options())
            answer = self._ask(self._sparing, video_id)
        return answer

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
            return {"failure": {"kind": kind, "text": str(error)[:4000], "warnings": list(self._logger.warnings)}}


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    _die_with_parent(int(sys.argv[1]))
    config = json.loads(sys.stdin.buffer.readline())
    _limit_resources(config["memory_bytes"])
    if not config["options"].get("proxy"):
        _guard_connections(tuple(ipaddress.ip_network(text) for text in config["allow"]))
    lines: queue.Queue[bytes] = queue.Queue(maxsize=8)
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()

    def answer(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what, default=str).encode() + b"\n")

    import yt_dlp  # after the limits; takes about half a second

    try:
        extractor = _Extractor(yt_dlp.YoutubeDL, config["options"])
    except Exception as error:  # noqa: BLE001 - whatever an option of YTDLP_OPTIONS makes it raise
        answer({"broken": f"{type(error).__name__}: {error}"[:500]})
        return
    answer({"ready": True})
    while True:
        answer(extractor.answer(json.loads(lines.get())))


if __name__ == "__main__":
    main()
