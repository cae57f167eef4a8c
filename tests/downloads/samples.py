"""Sample keys, metadata and plans for tests of downloads."""

from __future__ import annotations

from apps.downloads.providers.base import FetchPlan, RemoteFile, VideoInfo
from apps.keys.documents import ApiKey
from apps.telegram_cache.documents import AssetKey, MediaKind

VIDEO_ID = "dQw4w9WgXcQ"


def audio_key(video_id: str = VIDEO_ID) -> AssetKey:
    return AssetKey(video_id, MediaKind.AUDIO, "m4a")


def video_info(video_id: str = VIDEO_ID) -> VideoInfo:
    return VideoInfo(video_id=video_id, provider="sample", title="A song $5", uploader="Somebody", duration_s=12.0)


def audio_plan(url: str = "https://media.example/1", **changes: object) -> FetchPlan:
    fields = {
        "key": audio_key(),
        "provider": "sample",
        "files": (RemoteFile(url=url, source_id="sample:1"),),
        "finish": "direct",
        "container": "m4a",
        "mime": "audio/mp4",
        "title": "A song $5",
        "duration_s": 12.0,
    }
    return FetchPlan(**{**fields, **changes})  # type: ignore[arg-type]


def known_key(prefix: str) -> str:
    """The prefix of a key that may be used, made unless there is one."""
    about = {"set_on_insert__name": "test", "set_on_insert__secret_sha256": "0" * 64, "set_on_insert__active": True}
    ApiKey.objects(prefix=prefix).update_one(**about, upsert=True)
    return prefix
