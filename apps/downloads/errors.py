"""Which errors are about the video itself: those that end a fetch at once, and those that last a while."""

from __future__ import annotations

from apps.core.errors import (
    AgeRestricted,
    ApiError,
    DrmProtected,
    GeoBlocked,
    LiveNotSupported,
    Overloaded,
    QualityUnavailable,
    TooLarge,
    VideoPrivate,
    VideoUnavailable,
)

VIDEO_ERRORS: tuple[type[ApiError], ...] = (
    VideoUnavailable,
    VideoPrivate,
    AgeRestricted,
    GeoBlocked,
    LiveNotSupported,
    DrmProtected,
)
"""The video cannot be had: no other source need be asked."""

CONTENT_ERRORS: tuple[type[ApiError], ...] = (*VIDEO_ERRORS, QualityUnavailable, TooLarge)
"""Asking again soon gives the same answer: remembered for ten minutes. Another source may do better at the last two."""


class NoRoom(Overloaded):
    """The server's disk is full. The fetch waits."""

    default_message = "The server's disk has no room for this video right now. Try again later."

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None, needs_free_bytes: int | None = None
    ) -> None:
        """``needs_free_bytes``: how much of the disk has to be free for the fetch to go on, where that is known."""
        self.needs_free_bytes = needs_free_bytes
        super().__init__(message, retry_after_s=retry_after_s)


class EarlierFetch(NoRoom):
    """An earlier fetch still writes the file, and is about to end. This one waits with the same patience."""

    default_message = "An earlier fetch of this video is just ending. Try again later."
