"""Files that are made from another one that is stored: clips, MP3s and tagged files need no second download."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.errors import ApiError
from apps.core.outbound import check_url
from apps.downloads.providers.base import FetchPlan, Finish, RemoteFile, VideoInfo
from apps.downloads.providers.ytdlp import ytdlp_provider
from apps.downloads.providers.ytdlp_formats import MIMES
from apps.downloads.services.info import get_info
from apps.downloads.variants import AudioVariant, Clip, VideoVariant, parse_audio_variant, parse_video_variant
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services.hot_bytes import can_be_read

PROVIDER = "cache"
"""What a job and its file name as their source, in place of an outside one."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """A stored file, and how the wanted one is made from it."""

    asset: Asset
    plan: FetchPlan


def find_original(key: AssetKey, store: HotStore) -> Original | None:
    """A stored file that is as good a source as the outside has; None when there is none, and the outside is asked.

    Never one that would have to be encoded a second time (an MP3 of another MP3), nor one of lower quality.
    """
    variant = parse_video_variant(key.variant) if key.kind == MediaKind.VIDEO else parse_audio_variant(key.variant)
    for name, finish in _sources(variant):
        asset = find_asset(AssetKey(key.video_id, MediaKind(key.kind), name).asset_id) if name != key.variant else None
        if asset is None or not asset.is_finished or variant is None:
            continue
        if store.is_complete(asset.id, asset.generation) or can_be_read(store, asset):
            return Original(asset=asset, plan=_plan(key, variant, asset, finish))
    return None


def _sources(variant: VideoVariant | AudioVariant | None) -> list[tuple[str, Finish]]:
    """The variants that this one can be made from, best first, and how."""
    if isinstance(variant, VideoVariant):
        whole = VideoVariant(height=variant.height, fps=variant.fps, codec=variant.codec, container=variant.container)
        return [(str(whole), "remux")]
    if variant is None:
        return []
    if variant.format != "mp3":  # m4a, opus: copied; flac loses nothing by being encoded again
        return [(variant.format, "flac" if variant.format == "flac" else "remux")]
    encoded: list[tuple[str, Finish]] = [("m4a", "mp3"), ("opus", "mp3")]
    return [*([("mp3", "remux")] if variant.bitrate_kbps is None else _same_bitrate(variant)), *encoded]


def _same_bitrate(variant: AudioVariant) -> list[tuple[str, Finish]]:
    return [(str(AudioVariant(format="mp3", bitrate_kbps=variant.bitrate_kbps)), "remux")]


def _plan(key: AssetKey, variant: VideoVariant | AudioVariant, asset: Asset, finish: Finish) -> FetchPlan:
    info = _known_info(key.video_id)
    clip: Clip | None = variant.clip
    thumbnail = asset.thumbnail or (info.thumbnail if info else "")
    has_cover = isinstance(variant, AudioVariant) and (variant.tags or finish in {"mp3", "flac"})
    return FetchPlan(
        key=key,
        provider=PROVIDER,
        files=(),
        finish=finish,
        container=variant.container,
        mime=MIMES[key.kind, variant.container],
        title=asset.title,
        uploader=asset.uploader,
        artist=info.artist if info else "",
        album=info.album if info else "",
        duration_s=clip.length_s if clip else asset.duration_s,
        thumbnail=thumbnail,
        clip=clip,
        bitrate_kbps=variant.bitrate_kbps if isinstance(variant, AudioVariant) else None,
        chapters=info.chapters if info and isinstance(variant, VideoVariant) else (),
        cover=_cover(thumbnail) if has_cover else None,
    )


def _known_info(video_id: str) -> VideoInfo | None:
    try:
        return get_info(video_id)
    except ApiError:  # removed by now, or the sources are down: the stored file says enough
        return None


def _cover(url: str) -> RemoteFile | None:
    try:
        check_url(url)
        transport = ytdlp_provider().choose_transport()
    except ApiError:
        return None
    return RemoteFile(url=url, source_id="cache:thumbnail", proxy=transport.proxy, verify_tls=transport.verify_tls)
