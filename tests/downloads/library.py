"""Puts media into the cache the way the fetch does, for tests of what reads it."""

from __future__ import annotations

import hashlib

from apps.downloads.providers.base import FetchPlan, Format, VideoInfo
from apps.downloads.services.claims import claim_asset, commit_ready, ensure_asset, record_plan
from apps.downloads.services.info import record_info
from apps.downloads.services.media import hot_store
from apps.telegram_cache.documents import BLOCK_BYTES, Asset, AssetKey, AssetState, MediaKind, Part, PartState
from apps.telegram_cache.selectors import find_asset

VIDEO_ID = "dQw4w9WgXcQ"
TITLE = "A song: “live”"
AUDIO = AssetKey(VIDEO_ID, MediaKind.AUDIO, "m4a")
VIDEO = AssetKey(VIDEO_ID, MediaKind.VIDEO, "1080p")
CONTENT = bytes(range(256)) * 5000  # two blocks, the second one shorter


def known_info(video_id: str = VIDEO_ID) -> VideoInfo:
    """Recorded metadata: 1080p and 720p, m4a and opus."""
    info = VideoInfo(
        video_id=video_id,
        provider="sample",
        title=TITLE,
        uploader="Somebody",
        duration_s=212.4,
        thumbnail="https://i.ytimg.com/vi/x/hq.jpg",
        upload_date="20091025",
        formats=(Format(format_id="140", kind="audio", container="m4a", size_bytes=1234),),
        video_heights=(1080, 720),
        audio_formats=("m4a", "opus"),
    )
    record_info(info)
    return info


def begin_fetch(key: AssetKey, content: bytes = b"", *, size_bytes: int | None = None):
    """A fetch that has got ``content`` so far. Returns its claim and its open writer."""
    claim = claim_asset(key=key, owner="test", lease_s=600)
    assert claim.won
    is_audio = key.kind is MediaKind.AUDIO
    plan = FetchPlan(
        key=key,
        provider="sample",
        files=(),
        finish="direct",
        container="m4a" if is_audio else "mp4",
        mime="audio/mp4" if is_audio else "video/mp4",
        title=TITLE,
        duration_s=212.4,
    )
    record_plan(claim, plan, generation=claim.generation)
    writer = hot_store().create(key.asset_id, claim.generation, resume=False)
    if size_bytes is not None:
        writer.set_size(size_bytes)
    if content:
        writer.append(content)
    return claim, writer


def finish_fetch(claim, writer, content: bytes) -> Asset:
    """The rest of the bytes, and the commit."""
    writer.append(content[writer.frontier :])
    hashes = writer.finish()
    writer.close()
    digest = hashlib.sha256(content).hexdigest()
    commit_ready(claim, size_bytes=len(content), sha256=digest, block_hashes=hashes, duration_s=212.4)
    return find_asset(claim.asset_id)


def adopt_hot(claim, content: bytes) -> Asset:
    """What a fetch does that puts its file together first: the whole file at once, and the commit."""
    path = hot_store().scratch_dir(claim.asset_id, claim.attempt) / "finished"
    path.write_bytes(content)
    hashes = [hashlib.sha256(content[at : at + BLOCK_BYTES]).digest() for at in range(0, len(content), BLOCK_BYTES)]
    hot_store().adopt(claim.asset_id, claim.generation, path, block_hashes=hashes)
    digest = hashlib.sha256(content).hexdigest()
    commit_ready(claim, size_bytes=len(content), sha256=digest, block_hashes=hashes, duration_s=212.4)
    return find_asset(claim.asset_id)


def put_hot(key: AssetKey, content: bytes = CONTENT) -> Asset:
    """A finished asset in the hot store."""
    ensure_asset(key)
    return finish_fetch(*begin_fetch(key), content)


def put_in_telegram(key: AssetKey, content: bytes = CONTENT) -> Asset:
    """A finished asset whose only copy is one message."""
    asset = put_hot(key, content)
    part = Part(
        index=0,
        offset=0,
        size=len(content),
        sha256=asset.sha256,
        channel_id="-1001",
        message_id=7,
        file_unique_id="AgADunique",
        file_ids={"42": "file-id"},
        state=PartState.STORED.value,
    )
    link = "https://t.me/c/1/7"
    Asset.objects(id=asset.id).update_one(set__parts=[part], set__state=AssetState.CACHED.value, set__message_link=link)
    lose_hot(asset)
    return find_asset(asset.id)


def lose_hot(asset: Asset) -> None:
    hot_store().remove(asset.id, asset.generation)
