"""How a fetch can end early, and how hard it tries."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.errors import UpstreamError

KIB = 1024
GIB = 1024**3


class AddressRefused(UpstreamError):
    """The source no longer honours this media address: plan again. Reaches callers as ``upstream_error``."""

    default_message = "The outside source refused to give the file."


class SourceChanged(UpstreamError):
    """What arrives is not the file that was begun: start over, under a new generation."""

    default_message = "The outside source changed the file while it was being fetched."


class NotMedia(UpstreamError):
    """What arrived is not the media that was asked for (an error page, a wrong length, a broken file)."""

    default_message = "The outside source gave something that is not the media that was asked for."


class JobCancelled(Exception):
    """Somebody ended the job: stop and give the asset back."""


class ServerStopping(Exception):
    """This worker is being shut down: stop, so that another attempt can go on from here."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how hard one file is tried for; ``retry_delays_s`` is about the whole fetch."""

    connect_s: float = 10.0
    stall_s: float = 20.0  # no byte for so long: the connection counts as cut
    total_s: float = 4 * 3600.0
    failures_in_a_row: int = 5  # without at least ``progress_bytes`` in between
    failures_in_all: int = 60
    progress_bytes: int = 64 * KIB
    backoff_s: float = 0.3
    backoff_max_s: float = 15.0
    overlap_bytes: int = 64 * KIB  # asked for again on a resume, and compared
    file_max_bytes: int = 20 * GIB
    room_bytes: int | None = None  # what a fetch leaves free on the disk; None: as is right for the disk
    plans_again: int = 2  # how often a refused address is asked for anew
    retry_delays_s: tuple[float, ...] = (2.0, 8.0)  # when every source has failed for a passing reason
    room_delays_s: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, *(60.0,) * 28)  # while the disk is full: half an hour
