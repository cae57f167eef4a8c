"""Subtitles of a video, in the formats that people use."""

from __future__ import annotations

from typing import Any

from apps.core.errors import NotFound
from apps.downloads.providers.ytdlp import ytdlp_provider
from apps.downloads.providers.ytdlp_subtitles import Cue, Subtitles
from apps.downloads.services.lookups import Lookup, LookupKind, wait_for_lookup

MIMES = {"vtt": "text/vtt", "srt": "application/x-subrip", "txt": "text/plain"}


def get_subtitles(video_id: str, language: str, *, waited_s: float) -> Subtitles:
    """Raises Suspend while they are asked for, NotFound (with the languages there are) when there are none.

    No language: only which there are.
    """
    lookup = Lookup(kind=LookupKind.SUBTITLES, subject=video_id, detail=language)
    subtitles = Subtitles.model_validate(wait_for_lookup(lookup, waited_s=waited_s))
    if language and subtitles.cues is None:
        there = sorted({track.language for track in subtitles.available})
        raise NotFound("This video has no subtitles in that language.", available=there)
    return subtitles


def ask_for_subtitles(lookup: Lookup, timeout_s: float) -> dict[str, Any]:
    """The answer to record. Raises what YtDlpProvider.find_subtitles raises."""
    return ytdlp_provider().find_subtitles(lookup.subject, lookup.detail, timeout_s=timeout_s).model_dump(mode="json")


def as_text(cues: tuple[Cue, ...], format: str) -> str:
    """The cues as a file: vtt, srt or txt."""
    if format == "vtt":
        blocks = [f"{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{_escaped(cue.text)}\n" for cue in cues]
        return "\n".join(["WEBVTT\n", *blocks])
    if format == "srt":
        return "\n".join(
            f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{cue.text}\n"
            for number, cue in enumerate(cues, start=1)
        )
    return "".join(f"{cue.text}\n" for cue in cues)


def _time(moment_ms: int, point: str) -> str:
    seconds, milliseconds = divmod(moment_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
