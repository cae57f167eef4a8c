"""yt-dlp's failures in our words: the one table, from its texts (shared facts: ytdlp.md)."""

from __future__ import annotations

import re
from typing import Any

import structlog

from apps.core.errors import (
    AgeRestricted,
    ApiError,
    BotCheck,
    DrmProtected,
    GeoBlocked,
    LiveNotSupported,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    VideoPrivate,
    VideoUnavailable,
)
from apps.downloads.errors import VIDEO_ERRORS

MAX_UNKNOWN_REMEMBERED = 200
RATE_LIMITED_RETRY_AFTER_S = 60.0

# In some texts YouTube puts words that others chose (a channel's, a level's, an owner's name). Those texts come first.
_TABLE: tuple[tuple[re.Pattern[str], type[ApiError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), error)
    for pattern, error in (
        (r"members-only|join this channel|members on level|exclusive members", VideoPrivate),
        (
            r"(available|blocked|block it) (it )?in your (country|location|region)|not available from your location",
            GeoBlocked,
        ),
        (r"who has blocked it\b", VideoUnavailable),
        (
            r"premieres? (in|will begin)|premieres? shortly|live event will begin|live event has ended|is offline",
            LiveNotSupported,
        ),
        (r"not a bot|requiring a captcha|your IP is likely being blocked|please sign in\.", BotCheck),
        (r"has been rate-limited|HTTP Error 429|Too Many Requests|available on this app", UpstreamError),
        (r"confirm your age|age.restricted|inappropriate|suicide or self-harm", AgeRestricted),
        (r"private video|this video is private", VideoPrivate),
        (r"live stream recording is not available|scheduled|not currently live|premiere will begin", LiveNotSupported),
        (r"\bDRM\b", DrmProtected),
        (r"requires payment|requires purchase|rent or buy|Music Premium|registered users|login details", VideoPrivate),
        (r"video unavailable|video is unavailable|has been removed|account associated.*terminated", VideoUnavailable),
        (
            r"video is no longer available|(video|content) (is not|isn't) available|incomplete youtube id|"
            r"does not exist|does the playlist exist|playlist type is unviewable|does not have a .* tab|"
            r"without video ID",
            VideoUnavailable,
        ),
        (r"timed out|timeout", UpstreamTimeout),
        (
            r"connection refused|name or service not known|failed to resolve|name resolution|no route to host|"
            r"network is unreachable|unable to connect to proxy|certificate.verify.failed|connection reset|"
            r"connection aborted|remote end closed|EOF occurred|tunnel connection failed|socks|refused to connect",
            UpstreamUnreachable,
        ),
        (
            r"failed to (extract|resolve|parse)|unable to (extract|recognize|find|download)|cannot (identify|extract)|"
            r"HTTP Error [45]\d\d|requested format is not available|no video formats|incomplete (yt initial )?data|"
            r"page needs to be reloaded|an error occurred|something went wrong|processing this video|youtube said|"
            r"playback on other websites|no player clients|an extractor error|invalid url|unsupported language|"
            r"no longer supported|authcheck|does not take its cookies",
            UpstreamError,
        ),
    )
)
_BEGINNING = re.compile(r"^\s*(?:(?:ERROR|WARNING): )?\[[^\]]*\] \S+: ")
_TOO_MANY = re.compile(r"HTTP Error 429\b|Too Many Requests", re.IGNORECASE)
_unknown_seen: set[str] = set()
log = structlog.get_logger(__name__)


def map_failure(failure: Any) -> ApiError:
    """The error for a child's ``failure``. One that the table lacks is an UpstreamError, logged once for each text."""
    kind, text, warnings = _parts(failure)
    if kind == "GeoRestrictedError":
        return GeoBlocked()
    if (error := _find(text)) is not None:
        return error(retry_after_s=RATE_LIMITED_RETRY_AFTER_S if _says_rate_limited(text, warnings) else None)
    key = re.sub(r"[A-Za-z0-9_-]{11}:|\d+", "", text)[:200]
    if key not in _unknown_seen and len(_unknown_seen) < MAX_UNKNOWN_REMEMBERED:
        _unknown_seen.add(key)
        log.warning("ytdlp_unknown_failure", kind=kind, text=text[:500])
    return UpstreamError()


def spoils_session(answer: dict[str, Any]) -> bool:
    """Whether YouTube has taken against this process's session, so that a fresh one should go on."""
    if "failure" not in answer:
        return False
    _kind, text, warnings = _parts(answer["failure"])
    return _find(text) is BotCheck or _says_rate_limited(text, warnings)


def blame(answer: dict[str, Any]) -> str | None:
    """Why the cookies and the proxy of this question should rest; None when YouTube did answer."""
    if "failure" not in answer:
        return None
    _kind, text, warnings = _parts(answer["failure"])
    if _find(text) is BotCheck:
        return "bot_check"
    if _says_rate_limited(text, warnings):
        return "rate_limited"
    return "upstream_unreachable" if isinstance(map_failure(answer["failure"]), UpstreamUnreachable) else None


def _find(text: str) -> type[ApiError] | None:
    return next((error for pattern, error in _TABLE if pattern.search(text)), None)


def _says_rate_limited(text: str, warnings: str) -> bool:
    if _TOO_MANY.search(warnings):
        return True
    is_about_the_video = _find(text) in VIDEO_ERRORS  # then the words may be anybody's
    return not is_about_the_video and ("has been rate-limited" in text or bool(_TOO_MANY.search(text)))


def _parts(failure: Any) -> tuple[str, str, str]:
    """Kind, text and warnings, without the id that each text begins with: callers choose ids, YouTube the words."""
    failure = failure if isinstance(failure, dict) else {}
    warnings = failure.get("warnings")
    told = [_without_id(str(warning)) for warning in warnings] if isinstance(warnings, list) else []
    return str(failure.get("kind", "")), _without_id(str(failure.get("text", ""))), " ".join(told)


def _without_id(text: str) -> str:
    return _BEGINNING.sub("", text.replace("\u2019", "'"))
