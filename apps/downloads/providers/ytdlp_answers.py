"""What leaves yt-dlp's process: the parts of its answers that are read, bounded, and nothing secret."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

MAX_FORMATS = 400
MAX_LISTED = 300
MAX_TEXT_CHARS = 20_000
TOP_FIELDS = (
    "id", "title", "description", "duration", "thumbnail", "uploader", "channel", "uploader_id", "channel_id",
    "upload_date", "view_count", "live_status", "is_live", "chapters", "artist", "album",
)  # fmt: skip
FORMAT_FIELDS = (
    "format_id", "url", "protocol", "ext", "container", "width", "height", "fps", "vcodec", "acodec", "abr", "tbr",
    "filesize", "filesize_approx", "has_drm", "format_note", "language_preference", "dynamic_range", "http_headers",
    "available_at",
)  # fmt: skip
LIST_FIELDS = ("id", "title", "channel", "channel_id", "uploader", "playlist_count")
ENTRY_FIELDS = ("id", "title", "channel", "channel_id", "uploader", "duration", "view_count", "live_status")


def list_tracks(tracks: Any) -> dict[str, str]:
    found = {}
    for language, entries in list((tracks or {}).items())[:MAX_LISTED]:
        found[str(language)[:40]] = str((entries[0] if entries else {}).get("name") or "")[:200]
    return found


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
    reduced["subtitles"] = list_tracks(info.get("subtitles"))
    reduced["automatic_captions"] = list_tracks(info.get("automatic_captions"))
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


def parts_of_proxy(url: str | None) -> list[str]:
    """What must not be said of a proxy, longest first."""
    if not url:
        return []
    parts = urlsplit(url)
    found = {url, parts.netloc, parts.netloc.rpartition("@")[0], parts.password or "", parts.hostname or ""}
    return sorted((part for part in found if part), key=len, reverse=True)


def dump_cookies(jar: Any) -> str:
    """As a cookies.txt, in a fixed order. (The jar's own ``save`` would end the session cookies that it holds.)"""
    lines = sorted(
        "\t".join(
            (
                cookie.domain,
                "TRUE" if cookie.domain.startswith(".") else "FALSE",
                cookie.path,
                "TRUE" if cookie.secure else "FALSE",
                "" if cookie.expires is None else str(cookie.expires),
                cookie.name,
                cookie.value or "",
            )
        )
        for cookie in jar
    )
    return "# Netscape HTTP Cookie File\n" + "".join(f"{line}\n" for line in lines)
