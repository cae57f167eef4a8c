"""Why sources could not do it, and which of several reasons says most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.core.errors import ApiError, NotReady, QualityUnavailable, UpstreamTimeout

_MOST_TELLING_FIRST = ("bot_check", "upstream_timeout", "upstream_error", "upstream_unreachable")


class OwnQueueFull(UpstreamTimeout):
    """The time went into waiting for a place among our own processes: that says nothing of a source or a proxy."""


@dataclass(frozen=True, kw_only=True)
class ProviderFailure:
    """Why one source could not do it. ``skipped``: it was not asked, because it kept failing before."""

    provider: str
    error: ApiError
    skipped: bool = False
    took_s: float | None = None

    def as_document(self) -> dict[str, Any]:
        """As it is kept on a job (``provider_errors``)."""
        said = {"provider": self.provider, "code": self.error.code, "message": self.error.message}
        return said if self.took_s is None else {**said, "took_s": round(self.took_s, 3)}


def most_telling(failures: Sequence[ProviderFailure]) -> ApiError:
    """The one error to show for all: QualityUnavailable only when every source said so."""
    if not failures:
        return NotReady(
            "No source of media is configured and switched on. Set SAVETUBE_KEY, or add ytdlp to PROVIDERS."
        )
    upstream = [failure.error for failure in failures if not isinstance(failure.error, QualityUnavailable)]
    if not upstream:
        return failures[0].error
    rank = {code: number for number, code in enumerate(_MOST_TELLING_FIRST)}
    return min(upstream, key=lambda error: rank.get(error.code, -1))
