"""Which errors mean that the video itself cannot be had, so that no other source need be asked."""

from __future__ import annotations

from apps.core.errors import (
    AgeRestricted,
    ApiError,
    DrmProtected,
    GeoBlocked,
    LiveNotSupported,
    QualityUnavailable,
    TooLarge,
    VideoPrivate,
    VideoUnavailable,
)

CONTENT_ERRORS: tuple[type[ApiError], ...] = (
    VideoUnavailable,
    VideoPrivate,
    AgeRestricted,
    GeoBlocked,
    LiveNotSupported,
    DrmProtected,
    QualityUnavailable,
    TooLarge,
)
"""Asking again soon gives the same answer: remembered for ten minutes."""
