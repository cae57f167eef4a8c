"""An asset as a finished fetch leaves it. Import it only after Django is set up."""

from __future__ import annotations

import hashlib
import random

from django.conf import settings

from apps.streaming.hotstore import HotFile, HotStore
from apps.streaming.ports import StreamTarget
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind
from apps.telegram_cache.selectors import find_asset

MIB = 1024 * 1024


def make_asset(
    size_bytes: int, *, seed: int = 1, key: AssetKey | None = None, mime: str = "video/mp4", container: str = "mp4"
) -> str:
    """The id of an asset that is ready: on record with its hashes, and whole in the hot store."""
    key = key or AssetKey(f"bench{seed:06d}", MediaKind.VIDEO, "1080p")
    data = random.Random(seed).randbytes(MIB)  # noqa: S311 - test data
    whole = hashlib.sha256()
    with HotStore(settings.ENV.hot_root).create(key.asset_id, 1, resume=False) as writer:
        writer.set_size(size_bytes)
        for number, offset in enumerate(range(0, size_bytes, MIB)):
            block = (number.to_bytes(8, "big") + data[8:])[: size_bytes - offset]
            whole.update(block)
            writer.append(block)
        hashes = writer.finish()
    Asset(
        id=key.asset_id, video_id=key.video_id, kind=key.kind, variant=key.variant, title="Bench", mime=mime,
        container=container, size_bytes=size_bytes, sha256=whole.hexdigest(), block_sha256=b"".join(hashes),
        state=AssetState.READY,
    ).save()  # fmt: skip
    return key.asset_id


def make_audio(video_id: str, *, size_bytes: int = 3 * MIB) -> str:
    """As ``make_asset``, the m4a of this video, with metadata that says so."""
    from apps.downloads.providers.base import VideoInfo
    from apps.downloads.services.info import record_info

    record_info(VideoInfo(video_id=video_id, provider="bench", title="Bench", duration_s=180, audio_formats=("m4a",)))
    return make_asset(size_bytes, key=AssetKey(video_id, MediaKind.AUDIO, "m4a"), mime="audio/mp4", container="m4a")


def remove_hot(asset_id: str) -> None:
    HotStore(settings.ENV.hot_root).remove(asset_id, 1)


def target_of(asset_id: str) -> StreamTarget:
    asset = find_asset(asset_id)
    if asset is None:
        raise RuntimeError("the asset is not on record")
    return StreamTarget(
        asset_id=asset.id, generation=asset.generation, size_bytes=asset.size_bytes, mime=asset.mime,
        file_name="bench.mp4", attachment=False, block_hashes=tuple(asset.block_hashes), etag='"bench"',
        key_prefix="bench",
    )  # fmt: skip


def open_sparse(target: StreamTarget) -> HotFile:
    return HotStore(settings.ENV.hot_root).open_sparse(
        target.asset_id, target.generation, size_bytes=target.size_bytes or 0, block_hashes=target.block_hashes
    )
