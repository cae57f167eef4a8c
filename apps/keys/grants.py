"""What a good key may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from apps.core.addresses import IpNetwork
from apps.keys.documents import DEFAULT_LIMIT_PER_HOUR
from apps.keys.windows import (
    DAY_BUCKET_S,
    DAY_S,
    HOUR_BUCKET_S,
    HOUR_S,
    Arguments,
    Window,
    WindowKind,
    window_arguments,
)


@dataclass(frozen=True, kw_only=True)
class KeyGrant:
    """What a valid key may do. Never holds the secret."""

    prefix: str
    name: str
    owner: str
    scopes: frozenset[str]
    limit_per_hour: int = DEFAULT_LIMIT_PER_HOUR
    limit_per_day: int | None = None  # None, here and in what follows: no such limit
    bytes_per_day: int | None = None
    concurrent_streams: int | None = None
    concurrent_jobs: int | None = None
    longest_video_s: int | None = None
    largest_file_bytes: int | None = None
    allowed_networks: tuple[IpNetwork, ...] = ()  # empty: all
    bind_links: bool = False
    expires_at: datetime | None = None

    @property
    def is_authenticated(self) -> bool:
        """Django REST framework asks its users for this."""
        return True

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The limits that each request is checked against, requests in an hour first."""
        hour = Window(
            kind=WindowKind.HOUR,
            name=f"yt:limit:{self.prefix}",
            limit=self.limit_per_hour,
            window_s=HOUR_S,
            bucket_s=HOUR_BUCKET_S,
        )
        windows = [hour]
        for kind, limit, cost in ((WindowKind.DAY, self.limit_per_day, 1), (WindowKind.BYTES, self.bytes_per_day, 0)):
            if limit is not None:
                name = f"yt:limit:{self.prefix}:{kind}"
                window = Window(kind=kind, name=name, limit=limit, window_s=DAY_S, bucket_s=DAY_BUCKET_S, cost=cost)
                windows.append(window)
        return tuple(windows)

    @cached_property
    def script_arguments(self) -> Arguments:
        """``limits.script_arguments`` of this grant."""
        return window_arguments(self.windows)

    @property
    def actor(self) -> str:
        """Who this is in the audit log."""
        return f"key {self.prefix}"
