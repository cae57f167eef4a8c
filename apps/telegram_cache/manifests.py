"""What `cache export` writes and `cache import` reads: one JSON object a line, all that finding the bytes takes."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from apps.telegram_cache.documents import BLOCK_BYTES, SHA256_BYTES, Asset, AssetKey, MediaKind

FORMAT = "ytserver-cache"
VERSION = 1
MAX_LINE_BYTES = 16 * 1024 * 1024  # hashes and parts of a file of about 100 GB
MAX_SIZE_BYTES = 1 << 40
MAX_PARTS = 60_000

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Short = Annotated[str, StringConstraints(max_length=500)]
BotId = Annotated[str, StringConstraints(pattern=r"^\d{1,20}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Header(_Strict):
    """The first line of a file."""

    format: Literal["ytserver-cache"]
    version: Literal[1]


class PartManifest(_Strict):
    """Where one stretch of the bytes lies."""

    offset: int = Field(ge=0)
    size: int = Field(ge=1, le=2_100_000_000)
    sha256: Hash
    channel_id: str = Field(pattern=r"^-\d{1,20}$")
    message_id: int = Field(ge=1, lt=1 << 53)
    file_unique_id: str = Field(min_length=1, max_length=200)
    file_ids: dict[BotId, Annotated[str, StringConstraints(min_length=1, max_length=500)]] = Field(max_length=1000)


class AssetManifest(_Strict):
    """One asset that is in Telegram in full."""

    video_id: str = Field(pattern=r"^[A-Za-z0-9_-]{11}$")
    kind: Literal["video", "audio"]
    variant: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    is_best: bool | None = None  # so that "best" finds it before anything is known of the video
    title: Short = ""
    uploader: Short = ""
    duration_s: float | None = Field(default=None, ge=0, le=10_000_000)
    thumbnail: Annotated[str, StringConstraints(max_length=2000)] = ""
    container: str = Field(default="", pattern=r"^[a-z0-9]{0,16}$")
    mime: str = Field(pattern=r"^[a-z]+/[a-z0-9.+-]{1,100}$")
    size_bytes: int = Field(ge=1, le=MAX_SIZE_BYTES)
    sha256: Hash
    block_sha256: str  # the packed hashes of the 1 MiB blocks, base64
    generation: int = Field(ge=1, lt=10**9)
    provider: Short | None = None
    message_link: str | None = Field(default=None, pattern=r"^https://t\.me/[A-Za-z0-9_/]{1,100}$")
    parts: list[PartManifest] = Field(min_length=1, max_length=MAX_PARTS)

    @property
    def key(self) -> AssetKey:
        return AssetKey(self.video_id, MediaKind(self.kind), self.variant)

    @property
    def packed_hashes(self) -> bytes:
        return base64.b64decode(self.block_sha256, validate=True)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        blocks = -(-self.size_bytes // BLOCK_BYTES)
        if len(self.packed_hashes) != blocks * SHA256_BYTES:
            raise ValueError("block_sha256 does not fit size_bytes")
        at = 0
        for part in self.parts:
            if part.offset != at or part.offset % BLOCK_BYTES:
                raise ValueError("the parts do not follow one another in whole blocks")
            at += part.size
        if at != self.size_bytes:
            raise ValueError("the parts do not cover the file")
        return self


def manifest_of(asset: Asset) -> dict[str, Any]:
    """One line of an export. The asset must be in Telegram in full."""
    return {
        "video_id": asset.video_id, "kind": asset.kind, "variant": asset.variant,
        "is_best": asset.is_best, "title": asset.title[:500],
        "uploader": asset.uploader[:500], "duration_s": asset.duration_s, "thumbnail": asset.thumbnail[:2000],
        "container": asset.container, "mime": asset.mime, "size_bytes": asset.size_bytes, "sha256": asset.sha256,
        "block_sha256": base64.b64encode(asset.block_sha256).decode(), "generation": asset.generation,
        "provider": asset.provider, "message_link": asset.message_link,
        "parts": [
            {"offset": part.offset, "size": part.size, "sha256": part.sha256, "channel_id": part.channel_id,
             "message_id": part.message_id, "file_unique_id": part.file_unique_id, "file_ids": dict(part.file_ids)}
            for part in sorted(asset.parts, key=lambda part: int(part.offset))
        ],
    }  # fmt: skip
