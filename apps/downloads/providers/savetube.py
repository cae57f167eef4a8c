"""SaveTube: random CDN, encrypted info, download link. Every answer is hostile until it has been checked."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import httpx

from apps.core.errors import ApiError, QualityUnavailable, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from apps.core.loop_thread import LoopThread
from apps.core.outbound import check_url, resolves_only_to_allowed
from apps.core.outbound_async import guarded_async_httpx_client
from apps.downloads.links import watch_url
from apps.downloads.providers.base import FetchPlan, RemoteFile, VideoInfo
from apps.downloads.providers.savetube_cipher import decrypt_info
from apps.downloads.providers.savetube_heights import RefusedError
from apps.downloads.providers.savetube_info import (
    DEFAULT_AUDIO_KBPS,
    RateLimitedError,
    means_not_ready,
    read_info,
    refusal,
)
from apps.downloads.providers.savetube_sessions import Session, Sessions
from apps.downloads.stopping import pause, raise_if_stopped
from apps.downloads.variants import AudioVariant, VideoVariant, parse_audio_variant, parse_video_variant
from apps.telegram_cache.documents import AssetKey

CDN_TRIES = 5
CDN_RETRY_PAUSE_S = 0.1  # doubles each time
CALL_TIMEOUT_S = 12.0
READY_TRIES = 10
READY_PAUSE_S = 1.0
MAX_SMALL_ANSWER_BYTES = 64 * 1024
MAX_INFO_ANSWER_BYTES = 4 * 1024 * 1024
MAX_URL_CHARS = 8192
MIMES = {"mp4": "video/mp4", "mkv": "video/x-matroska", "mp3": "audio/mpeg"}
MAX_SCHEMES = 512
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=1000, keepalive_expiry=60.0)
BROWSER_HEADERS = {
    "Origin": "https://yt.savetube.me",
    "Referer": "https://yt.savetube.me/",
    "User-Agent": (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/141.0.0.0 Safari/537.36"
    ),
}
_CDN = re.compile(r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::(?P<port>[1-9][0-9]{0,4}))?", re.ASCII)
_WRONG_SCHEME = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)


class _CdnFailedError(Exception):
    """This CDN host is of no use now; another one may be. ``error`` is what to say when none is."""

    def __init__(self, error: ApiError) -> None:
        self.error = error


class SaveTubeProvider:
    """A MediaProvider. ``key_hex`` is 32 hex digits. Holds one pooled client; safe to use from many threads."""

    name = "savetube"
    tells_pictures = False

    def __init__(self, *, base_url: str, key_hex: str, cdn_suffixes: tuple[str, ...]) -> None:
        self._base_url = base_url
        self._key = bytes.fromhex(key_hex)
        self._suffixes = tuple(suffix.lower().strip(".") for suffix in cdn_suffixes)
        self._calls = LoopThread("savetube")  # sync calls could not be ended while SaveTube says nothing
        self._client = guarded_async_httpx_client(
            limits=LIMITS, headers={**BROWSER_HEADERS, "Accept-Encoding": "identity"}
        )
        self._lock = threading.Lock()
        self._sessions = Sessions(base_url)
        self._plain_base = base_url.startswith("http://")
        self._schemes: OrderedDict[str, str] = OrderedDict()

    def close(self) -> None:
        self._calls.run(self._client.aclose())
        self._calls.close()

    def resolve(self, video_id: str, *, timeout_s: float) -> VideoInfo:
        deadline = time.monotonic() + timeout_s
        session = self._open_session(video_id, deadline=deadline)
        info = session.info.as_video_info(video_id)
        if session.info.heights is None:  # not said: find the best one by asking for it
            heights = session.asked.find(lambda h: self._download_url(video_id, "video", h, session, deadline=deadline))
            info = info.model_copy(update={"video_heights": heights})
        return info

    def plan(self, key: AssetKey, *, timeout_s: float, fresh: bool = False) -> FetchPlan:
        variant = _promised(key)
        deadline = time.monotonic() + timeout_s
        session = None if fresh else self._sessions.find(key.video_id)
        if session is not None:
            try:
                return self._plan(key, variant, session, deadline=deadline)
            except RateLimitedError:
                raise
            except (UpstreamError, UpstreamUnreachable):  # its key may have run out: once more with a new one
                self._sessions.forget(key.video_id)
        session = self._open_session(key.video_id, deadline=deadline)
        try:
            return self._plan(key, variant, session, deadline=deadline)
        except RefusedError:
            if session.info.heights is None:  # it said of no height that it has it
                raise QualityUnavailable from None
            raise

    def _plan(
        self, key: AssetKey, variant: VideoVariant | AudioVariant, session: Session, *, deadline: float
    ) -> FetchPlan:
        info, has_tags = session.info, isinstance(variant, AudioVariant) and variant.tags
        if isinstance(variant, VideoVariant):
            height = variant.height
            if info.heights is not None and height not in info.heights:
                raise QualityUnavailable
            if info.heights is None:
                quality, url = session.asked.next_lower(
                    height, lambda h: self._download_url(key.video_id, "video", h, session, deadline=deadline)
                )
            else:
                quality, url = height, self._download_url(key.video_id, "video", height, session, deadline=deadline)
        else:
            if not info.audio_kbps:
                raise QualityUnavailable
            quality = max(info.audio_kbps, default=DEFAULT_AUDIO_KBPS)
            url = self._download_url(key.video_id, "audio", quality, session, deadline=deadline)
        headers = {"User-Agent": BROWSER_HEADERS["User-Agent"], "Referer": BROWSER_HEADERS["Referer"]}
        return FetchPlan(
            key=key,
            provider=self.name,
            files=(RemoteFile(url=url, source_id=f"savetube:{key.kind}:{quality}", headers=headers),),
            finish="direct" if key.variant == "mp3" else "remux",
            container=variant.container,
            mime=MIMES[variant.container],
            title=info.title,
            duration_s=variant.clip.length_s if variant.clip else info.duration_s,
            thumbnail=info.thumbnail,
            clip=variant.clip,
            cover=RemoteFile(url=info.thumbnail, source_id="savetube:thumbnail")
            if has_tags and info.thumbnail
            else None,
        )

    def _open_session(self, video_id: str, *, deadline: float) -> Session:
        """Ask for the info of a video: up to 5 CDNs, until one answers."""
        failure: ApiError = UpstreamError()
        for attempt in range(CDN_TRIES):
            if attempt:
                _pause(CDN_RETRY_PAUSE_S * 2 ** (attempt - 1), deadline=deadline)
            try:
                cdn = self._random_cdn(deadline=deadline)
                answer = self._ask_cdn(
                    cdn, "/v2/info", {"url": watch_url(video_id)}, max_bytes=MAX_INFO_ANSWER_BYTES, deadline=deadline
                )
            except _CdnFailedError as failed:
                failure = failed.error
                continue
            if answer.get("status") is not True:
                raise refusal(answer.get("message")) or UpstreamError()
            info = read_info(decrypt_info(answer.get("data"), self._key), video_id)
            session = Session(cdn=cdn, info=info)
            self._sessions.remember(video_id, session)
            return session
        raise failure

    def _random_cdn(self, *, deadline: float) -> str:
        answer = self._ask(
            "GET", f"{self._base_url}/random-cdn", None, max_bytes=MAX_SMALL_ANSWER_BYTES, deadline=deadline
        )
        cdn = answer.get("cdn")
        match = _CDN.fullmatch(cdn.lower()) if isinstance(cdn, str) else None
        if match is None or not any(match["host"] == s or match["host"].endswith(f".{s}") for s in self._suffixes):
            raise _CdnFailedError(UpstreamError())
        if match["port"] and not resolves_only_to_allowed(match["host"]):
            raise _CdnFailedError(UpstreamError())
        return match[0]

    def _ask_cdn(self, cdn: str, path: str, body: dict[str, str], *, max_bytes: int, deadline: float) -> dict[str, Any]:
        """POST to a CDN. A local one (SAVETUBE_URL is plain http) may speak http or https: tried once, then known."""
        if not self._plain_base:
            return self._ask("POST", f"https://{cdn}{path}", body, max_bytes=max_bytes, deadline=deadline)
        known = self._schemes.get(cdn)
        for scheme in (known,) if known else ("http", "https"):
            try:
                answer = self._ask("POST", f"{scheme}://{cdn}{path}", body, max_bytes=max_bytes, deadline=deadline)
            except _CdnFailedError as failed:
                if known or scheme == "https" or not isinstance(failed.__cause__, _WRONG_SCHEME):
                    raise
                continue
            with self._lock:
                self._schemes[cdn] = scheme
                while len(self._schemes) > MAX_SCHEMES:
                    self._schemes.popitem(last=False)
            return answer
        raise AssertionError("the last scheme either answers or raises")

    def _download_url(self, video_id: str, kind: str, quality: int, session: Session, *, deadline: float) -> str:
        body = {"id": video_id, "downloadType": kind, "quality": str(quality), "key": session.info.key}
        for _ in range(READY_TRIES):
            try:
                answer = self._ask_cdn(
                    session.cdn, "/download", body, max_bytes=MAX_SMALL_ANSWER_BYTES, deadline=deadline
                )
            except _CdnFailedError as failed:
                raise failed.error from None
            if answer.get("status") is True:
                return _checked_download_url(answer)
            if not means_not_ready(answer.get("message")):
                raise refusal(answer.get("message")) or RefusedError()
            _pause(READY_PAUSE_S, deadline=deadline)
        raise UpstreamTimeout

    def _ask(
        self, method: str, url: str, body: dict[str, str] | None, *, max_bytes: int, deadline: float
    ) -> dict[str, Any]:
        """One call, its answer a JSON object. Raises _CdnFailedError, or UpstreamTimeout when the time is up."""
        raise_if_stopped()
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise UpstreamTimeout
        sent = self._send(method, url, body, max_bytes=max_bytes, timeout_s=min(left_s, CALL_TIMEOUT_S))
        text = self._map_failures(lambda: self._calls.run(sent, check=raise_if_stopped))
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _CdnFailedError(UpstreamError()) from error
        if not isinstance(answer, dict):
            raise _CdnFailedError(UpstreamError())
        return answer

    async def _send(
        self, method: str, url: str, body: dict[str, str] | None, *, max_bytes: int, timeout_s: float
    ) -> bytes:
        received = bytearray()
        async with (
            asyncio.timeout(timeout_s),
            self._client.stream(method, url, json=body, timeout=timeout_s) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise _CdnFailedError(UpstreamError(retry_after_s=_retry_after_s(response)))
            async for piece in response.aiter_bytes():
                received += piece
                if len(received) > max_bytes:
                    raise _CdnFailedError(UpstreamError())
        return bytes(received)

    @staticmethod
    def _map_failures(send: Callable[[], bytes]) -> bytes:
        """The one place where httpx's errors become ours."""
        try:
            return send()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _CdnFailedError(UpstreamUnreachable()) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise _CdnFailedError(UpstreamTimeout()) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UpstreamError) as error:
            raise _CdnFailedError(UpstreamError()) from error


def _promised(key: AssetKey) -> VideoVariant | AudioVariant:
    """What is asked for. Raises QualityUnavailable for what SaveTube does not say of its files (codec, frames,
    bitrate) or does not have, before it is asked."""
    video, audio = parse_video_variant(key.variant), parse_audio_variant(key.variant)
    if key.kind == "video" and video and not (video.fps or video.codec) and video.container in MIMES:
        return video
    if key.kind == "audio" and audio and audio.format in MIMES and audio.bitrate_kbps is None:
        return audio
    raise QualityUnavailable


def _checked_download_url(answer: dict[str, Any]) -> str:
    data = answer.get("data")
    url = data.get("downloadUrl") if isinstance(data, dict) else None
    if not isinstance(url, str) or not 0 < len(url) <= MAX_URL_CHARS or not url.isprintable():
        raise UpstreamError
    try:
        url = str(httpx.URL(url))  # with spaces and letters such as ü percent-encoded, which is how it is sent
    except httpx.InvalidURL:
        raise UpstreamError from None
    check_url(url)
    return url


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(min(int(text), 3600)) if re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) else None


def _pause(seconds: float, *, deadline: float) -> None:
    """Wait before the next try. Raises UpstreamTimeout when there is no time left for one."""
    if time.monotonic() + seconds >= deadline:
        raise UpstreamTimeout
    pause(seconds)
