"""Files that are made from another one that is stored: clips, MP3s and tagged files need no second download."""

from __future__ import annotations

from dataclasses import dataclass, replace

from apps.core.errors import ApiError
from apps.core.outbound import check_url
from apps.downloads.providers.base import FetchPlan, Finish, RemoteFile, VideoInfo
from apps.downloads.providers.ytdlp import ytdlp_provider
from apps.downloads.providers.ytdlp_formats import MIMES
from apps.downloads.quality import asked_height
from apps.downloads.services.info import get_info
from apps.downloads.variants import (
    AudioVariant,
    Clip,
    MediaOptions,
    VideoVariant,
    is_clip,
    make_clip,
    parse_audio_variant,
    parse_video_variant,
)
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from apps.telegram_cache.selectors import find_asset, find_finished_assets
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


def find_makeable(
    kind: MediaKind, video_id: str, wish: str | None, options: MediaOptions, store: HotStore
) -> AssetKey | None:
    """What a clip, or a sound in another form, is called by what is stored alone: for when the sources cannot say.

    None: it cannot be made from what is stored. Raises InvalidParameter for a clip that cannot be.
    """
    whole = [asset for asset in find_finished_assets(video_id, kind) if not is_clip(asset.variant)]
    lengths = [asset.duration_s for asset in whole if asset.duration_s]  # measured
    if not lengths:
        return None
    clip = make_clip(options, duration_s=max(lengths))
    variants: list[VideoVariant] | list[AudioVariant]
    if kind is MediaKind.AUDIO:
        formats = [wish.strip().lower()] if wish else ["m4a", "opus", "mp3"]
        tags, bitrate = options.tags, options.bitrate_kbps
        variants = [AudioVariant(format=name, bitrate_kbps=bitrate, tags=tags, clip=clip) for name in formats]
    elif clip is None:
        return None
    else:
        variants = [replace(one, clip=clip) for one in _pictures(whole, wish, options)]
    keys = (AssetKey(video_id, kind, str(variant)) for variant in variants)
    return next((key for key in keys if _is_name(key) and find_original(key, store) is not None), None)


def _pictures(whole: list[Asset], wish: str | None, options: MediaOptions) -> list[VideoVariant]:
    """The stored pictures that fit the wish, highest first."""
    asked = (wish or "best").strip().lower()
    highest = asked_height(asked)
    if highest is None and asked != "best":
        return []
    stored = [parsed for asset in whole if (parsed := parse_video_variant(asset.variant)) is not None]
    shape = (options.codec, options.container or "mp4", options.fps)
    fitting = [
        one
        for one in stored
        if (one.codec, one.container, one.fps) == shape and (highest is None or one.height <= highest)
    ]
    return sorted(fitting, key=lambda one: -one.height)


def _is_name(key: AssetKey) -> bool:
    return key.kind is MediaKind.VIDEO or parse_audio_variant(key.variant) is not None


def info_of_original(key: AssetKey, store: HotStore) -> VideoInfo | None:
    """As much metadata as the stored file says that this one is made from; None when there is none."""
    original = find_original(key, store)
    if original is None:
        return None
    asset = original.asset
    return VideoInfo(
        video_id=key.video_id,
        provider=PROVIDER,
        title=asset.title,
        uploader=asset.uploader,
        duration_s=asset.duration_s,
        thumbnail=asset.thumbnail,
        audio_formats=("m4a",),  # what is made from another file is never the best there is
    )
