"""What an outside source of media looks like to the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from apps.downloads.variants import Clip
from apps.telegram_cache.documents import AssetKey


class Format(BaseModel):
    """One way in which a source offers a video. ``height`` is None for audio only."""

    model_config = ConfigDict(frozen=True)

    format_id: str
    kind: Literal["video", "audio", "muxed"]
    container: str
    height: int | None = None
    fps: float | None = None
    dynamic_range: str | None = None  # SDR, HDR10, HDR10+, HLG, DV; None: not said, or no picture
    video_codec: str | None = None
    audio_codec: str | None = None
    bitrate_kbps: float | None = None
    size_bytes: int | None = None
    size_is_estimate: bool = False


class Chapter(BaseModel):
    model_config = ConfigDict(frozen=True)

    title: str
    start_s: float
    end_s: float | None = None


class SubtitleTrack(BaseModel):
    model_config = ConfigDict(frozen=True)

    language: str
    name: str = ""
    automatic: bool = False


class VideoInfo(BaseModel):
    """Metadata of one video, as one source gave it. Holds no media addresses: those expire."""

    model_config = ConfigDict(frozen=True)

    video_id: str
    provider: str
    title: str
    uploader: str = ""
    uploader_id: str = ""
    artist: str = ""  # of music, when the source says it
    album: str = ""
    description: str = ""
    duration_s: float | None = None
    thumbnail: str = ""
    thumbnails: tuple[str, ...] = ()
    upload_date: str = ""  # YYYYMMDD
    view_count: int | None = None
    formats: tuple[Format, ...] = ()
    subtitles: tuple[SubtitleTrack, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    video_heights: tuple[int, ...] = ()  # distinct, highest first: what "best" and a number resolve against
    audio_formats: tuple[str, ...] = ()  # of m4a, opus, mp3, flac: those this source can give

    @property
    def tells_pictures(self) -> bool:
        """Whether it says which codecs and how many frames a second there are; not every source does."""
        return any(item.video_codec for item in self.formats)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """Where bytes can be fetched from, now. Resuming is safe only while ``source_id`` and ``size_bytes`` stay."""

    url: str = field(repr=False)
    source_id: str  # provider and format: "ytdlp:140", "savetube:audio:128"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    size_bytes: int | None = None
    size_is_exact: bool = False
    proxy: str | None = field(default=None, repr=False)
    proxy_id: str = ""  # when it is one of the operator's pool
    verify_tls: bool = True
    chunk_bytes: int | None = None  # fetch by ranges of this size (googlevideo throttles one long answer)


Finish = Literal["direct", "remux", "mux", "extract", "mp3", "opus", "flac"]


@dataclass(frozen=True, kw_only=True)
class FetchPlan:
    """How to make one asset.

    direct: ``files[0]`` is the asset, byte for byte, so it can be streamed while it arrives.
    remux: ``files[0]`` is put into ``container`` (a faststart MP4 is taken as it is). mux: ``files[0]`` is
    video and ``files[1]`` audio, joined without re-encoding. extract: the sound of ``files[0]``, which also has a
    picture, is put into ``container`` as it is. mp3, opus, flac: the sound of ``files[0]`` is encoded.
    With ``clip`` only that stretch is kept (``duration_s`` is its length). What we finish ourselves gets title,
    artist, album and ``chapters``, and sound the picture of ``cover``.
    """

    key: AssetKey
    provider: str
    files: tuple[RemoteFile, ...]
    finish: Finish
    container: str  # of the finished file: mp4, m4a, webm, mkv, mp3, flac
    mime: str
    title: str = ""
    uploader: str = ""
    artist: str = ""  # of music; empty: the tags name the uploader
    album: str = ""
    duration_s: float | None = None
    thumbnail: str = ""
    clip: Clip | None = None
    bitrate_kbps: int | None = None  # of an encoded MP3; None: the best that is variable
    chapters: tuple[Chapter, ...] = ()
    cover: RemoteFile | None = None

    @property
    def is_kept_as_is(self) -> bool:
        """Whether a file that has the right form already is the asset, without our touching it."""
        return self.clip is None and self.cover is None and not self.chapters


class MediaProvider(Protocol):
    """An outside source. Both methods block, within ``timeout_s`` in all, and are safe to call from many threads.

    They raise ContentError classes (VideoUnavailable, VideoPrivate, AgeRestricted, GeoBlocked, LiveNotSupported,
    DrmProtected: the chain stops), QualityUnavailable (this source does not have that variant: try the next), or
    UpstreamError, UpstreamUnreachable, UpstreamTimeout, BotCheck (try the next); nothing else.
    """

    name: str

    def resolve(self, video_id: str, *, timeout_s: float) -> VideoInfo: ...

    def plan(self, key: AssetKey, *, timeout_s: float, fresh: bool = False) -> FetchPlan:
        """Media addresses for one asset. ``fresh`` asks again outside: the last addresses were refused."""
        ...
