"""Subtitles through yt-dlp: its process's answer, checked. Pure functions."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from apps.downloads.providers.base import SubtitleTrack
from apps.downloads.providers.ytdlp_errors import map_failure

MAX_CUES = 20_000
MAX_CUE_CHARS = 2000


class Cue(BaseModel):
    """One piece of text, from when to when (milliseconds)."""

    model_config = ConfigDict(frozen=True)

    start_ms: int
    end_ms: int
    text: str


class Subtitles(BaseModel):
    """``cues`` is None when there is no such language."""

    model_config = ConfigDict(frozen=True)

    available: tuple[SubtitleTrack, ...] = ()
    automatic: bool = False
    cues: tuple[Cue, ...] | None = None


def make_subtitles(answer: dict[str, Any]) -> Subtitles:
    """Raises the error that yt-dlp's failure means."""
    found = answer.get("subtitles")
    if not isinstance(found, dict):
        raise map_failure(answer.get("failure"))
    available = [
        SubtitleTrack(language=language, name=str(name), automatic=automatic)
        for field, automatic in (("manual", False), ("automatic", True))
        for language, name in (found.get(field) or {}).items()
        if language != "live_chat"
    ]
    track = found.get("track")
    if not isinstance(track, dict):
        return Subtitles(available=tuple(available))
    cues = make_cues(track.get("events"))
    return Subtitles(available=tuple(available), automatic=bool(track.get("automatic")), cues=cues)


def make_cues(events: Any) -> tuple[Cue, ...]:
    """The cues of YouTube's json3 format, in order. A cue ends when the next begins: automatic ones overlap."""
    found = []
    for event in events[:MAX_CUES] if isinstance(events, list) else []:
        cue = _cue(event) if isinstance(event, dict) else None
        if cue is not None:
            found.append(cue)
    found.sort(key=lambda cue: cue.start_ms)
    ends = [cue.start_ms for cue in found[1:]]
    cut = [
        cue.model_copy(update={"end_ms": min(cue.end_ms, end)}) if end > cue.start_ms else cue
        for cue, end in zip(found, ends, strict=False)
    ]
    return (*cut, *found[-1:])


def _cue(event: dict[str, Any]) -> Cue | None:
    start, length, pieces = event.get("tStartMs"), event.get("dDurationMs"), event.get("segs")
    if not isinstance(start, int) or not isinstance(length, int) or start < 0 or length <= 0:
        return None
    texts = (
        [str(piece.get("utf8", "")) for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []
    )
    lines = (" ".join(line.split()) for line in "".join(texts)[:MAX_CUE_CHARS].splitlines())
    text = "\n".join(line for line in lines if line)
    return Cue(start_ms=start, end_ms=start + length, text=text) if text else None
