"""Pictures of videos."""

from __future__ import annotations

from dataclasses import dataclass

from apps.downloads.services.lookups import Lookup, LookupKind, wait_for_lookup


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    content: bytes
    mime: str


def get_thumbnail(video_id: str, *, waited_s: float) -> Thumbnail:
    """Raises Suspend while it is fetched, NotFound when there is none."""
    found = wait_for_lookup(Lookup(kind=LookupKind.THUMBNAIL, subject=video_id), waited_s=waited_s)
    return Thumbnail(content=bytes(found["content"]), mime=str(found["mime"]))
