"""What the YouTube stand-in says about each video: the states and their texts (shared facts: ytdlp.md)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.standins.faults import Fault
from tests.standins.media import Media, MediaFile

MEDIA_HOST = "rr1---sn-standin.googlevideo.com"
LINK_LIFE_S = 6 * 3600
VIDEO_ITAGS = {144: 160, 240: 133, 360: 134, 480: 135, 720: 136, 1080: 137}
AUDIO_ITAGS = {140: "audio.m4a", 251: "audio.webm"}
MUXED_ITAG = 18

REFUSALS: dict[str, tuple[str, str, str]] = {  # state: (status, reason, subreason)
    "private": ("LOGIN_REQUIRED", "Private video", "Sign in if you've been granted access to this video"),
    "age": ("LOGIN_REQUIRED", "Sign in to confirm your age", "This video may be inappropriate for some users."),
    "bot": ("LOGIN_REQUIRED", "Sign in to confirm you\u2019re not a bot", "This helps protect our community."),
    "removed": ("ERROR", "Video unavailable", "This video has been removed by the uploader"),
    "geo": (
        "UNPLAYABLE", "Video unavailable", "The uploader has not made this video available in your country",
    ),
    "members": (
        "UNPLAYABLE",
        "Join this channel to get access to members-only content like this video, and other exclusive perks.", "",
    ),
    "limited": ("UNPLAYABLE", "This content isn't available, try again later.", ""),
    "upcoming": ("LIVE_STREAM_OFFLINE", "Premieres in 3 hours", ""),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class YouTubeVideo:
    """One video. ``state``: ok, live, drm, or one of REFUSALS. ``only_muxed``: nothing but itag 18.

    ``forbidden_generations``: media addresses from that many first extractions answer 403.
    """

    title: str
    state: str = "ok"
    size: str = "small"
    only_muxed: bool = False
    forbidden_generations: int = 0
    media_faults: tuple[Fault, ...] = ()
    channel: str = "Test Channel"
    captions: bool = False  # English ones that somebody wrote, and automatic German ones


VIDEOS = {
    "private0001": YouTubeVideo(title="Private", state="private"),
    "agelimit001": YouTubeVideo(title="For adults", state="age"),
    "botcheck001": YouTubeVideo(title="Bot check", state="bot"),
    "removed0001": YouTubeVideo(title="Removed", state="removed"),
    "geoblock001": YouTubeVideo(title="Elsewhere", state="geo"),
    "members0001": YouTubeVideo(title="Members", state="members"),
    "limited0001": YouTubeVideo(title="Limited", state="limited"),
    "upcoming001": YouTubeVideo(title="Premiere", state="upcoming"),
    "livenow0001": YouTubeVideo(title="Live", state="live"),
    "drmlocked01": YouTubeVideo(title="Film", state="drm"),
    "onlymuxed01": YouTubeVideo(title="Old", only_muxed=True),
    "forbidden01": YouTubeVideo(title="403, then fine", forbidden_generations=1),
    "cutmedia001": YouTubeVideo(title="Cut", media_faults=(Fault(cut_after_bytes=30_000),)),
    "stalled0001": YouTubeVideo(title="Stalled", media_faults=(Fault(stall_after_bytes=30_000),)),
    "captions001": YouTubeVideo(title="With subtitles", captions=True),
    "toomany0001": YouTubeVideo(title="429", media_faults=(Fault(status=429, retry_after_s=1),)),
}


def file_of_itag(media: Media, itag: int) -> MediaFile:
    """The made file that stands for an itag. Raises KeyError when this size of media has none."""
    if itag in AUDIO_ITAGS:
        return media.files[AUDIO_ITAGS[itag]]
    if itag == MUXED_ITAG:
        return media.files["muxed360.mp4"]
    heights = {number: height for height, number in VIDEO_ITAGS.items()}
    return media.files[f"video{heights[itag]}.mp4"]


def itags_of(media: Media) -> list[int]:
    """The itags of the separate streams that this media has."""
    heights = [file.height for file in media.files.values() if file.kind == "video"]
    return [*AUDIO_ITAGS, *(VIDEO_ITAGS[height] for height in heights if height)]


def player_response(video_id: str, video: YouTubeVideo, media: Media, *, generation: int) -> dict[str, Any]:
    """The player answer (also on the watch page). ``generation`` goes into the media addresses."""
    answer: dict[str, Any] = {"responseContext": {}, "videoDetails": _details(video_id, video, media)}
    if video.state in REFUSALS:
        status, reason, subreason = REFUSALS[video.state]
        message = {"reason": {"simpleText": reason}, **({"subreason": {"simpleText": subreason}} if subreason else {})}
        answer["playabilityStatus"] = {
            "status": status, "reason": reason, "errorScreen": {"playerErrorMessageRenderer": message},
        }  # fmt: skip
        if video.state == "removed":
            answer["videoDetails"] = {"videoId": video_id}
        return answer
    answer["playabilityStatus"] = {"status": "OK", "playableInEmbed": True}
    if video.captions:
        answer["captions"] = {"playerCaptionsTracklistRenderer": {"captionTracks": _caption_tracks(video_id)}}
    if video.state == "live":
        answer["streamingData"] = {"expiresInSeconds": "3600", "hlsManifestUrl": f"https://{MEDIA_HOST}/hls/live.m3u8"}
        return answer
    muxed = [_format(video_id, video, media, MUXED_ITAG, generation)]
    separate = [] if video.only_muxed else [_format(video_id, video, media, i, generation) for i in itags_of(media)]
    answer["streamingData"] = {"expiresInSeconds": str(LINK_LIFE_S), "formats": muxed, "adaptiveFormats": separate}
    return answer


def _caption_tracks(video_id: str) -> list[dict[str, Any]]:
    address = f"https://www.youtube.com/api/timedtext?v={video_id}"
    return [
        {"baseUrl": f"{address}&lang=en", "languageCode": "en", "vssId": ".en", "name": {"simpleText": "English"}},
        {
            "baseUrl": f"{address}&lang=de&kind=asr",
            "languageCode": "de",
            "vssId": "a.de",
            "kind": "asr",
            "name": {"simpleText": "German"},
        },
    ]


def timed_text(language: str) -> dict[str, Any]:
    """The answer of /api/timedtext as json3: overlapping windows, line breaks of their own, markup-like text."""
    return {
        "events": [
            {"tStartMs": 0, "dDurationMs": 9000, "id": 1},
            {"tStartMs": 1000, "dDurationMs": 2500, "segs": [{"utf8": "Hello "}, {"utf8": f"<{language}>"}]},
            {"tStartMs": 3000, "dDurationMs": 10, "aAppend": 1, "segs": [{"utf8": "\n"}]},
            {"tStartMs": 3000, "dDurationMs": 2000, "segs": [{"utf8": "you & me\nagain"}]},
            {"tStartMs": 3723004, "dDurationMs": 1000, "segs": [{"utf8": "late"}]},
        ]
    }


def initial_data(channel: str) -> dict[str, Any]:
    """ytInitialData of a watch page: only the channel's name is in it."""
    owner = {"videoSecondaryInfoRenderer": {"owner": {"videoOwnerRenderer": {"title": {"simpleText": channel}}}}}
    return {"contents": {"twoColumnWatchNextResults": {"results": {"results": {"contents": [owner]}}}}}


def _details(video_id: str, video: YouTubeVideo, media: Media) -> dict[str, Any]:
    return {
        "videoId": video_id, "title": video.title, "lengthSeconds": str(int(media.seconds)), "author": video.channel,
        "channelId": "UC" + "x" * 22, "shortDescription": f"About {video.title}", "viewCount": "12345",
        "isLiveContent": video.state in {"live", "upcoming"}, "isLive": video.state == "live",
        "isUpcoming": video.state == "upcoming", "isPrivate": video.state == "private",
        "thumbnail": {
            "thumbnails": [{"url": f"https://i.ytimg.com/vi/{video_id}/hqdefault.jpg", "width": 480, "height": 360}]
        },
    }  # fmt: skip


def _format(video_id: str, video: YouTubeVideo, media: Media, itag: int, generation: int) -> dict[str, Any]:
    file = file_of_itag(media, itag)
    expires_at = int(time.time()) + LINK_LIFE_S
    size = len(media.read(file.name, f"{video_id}:{itag}"))
    found: dict[str, Any] = {
        "itag": itag, "mimeType": f'{file.mime}; codecs="{file.codecs}"', "contentLength": str(size),
        "url": f"https://{MEDIA_HOST}/videoplayback?expire={expires_at}&id={video_id}&itag={itag}&gen={generation}",
        "bitrate": int(size * 8 / media.seconds), "averageBitrate": int(size * 8 / media.seconds),
        "approxDurationMs": str(int(media.seconds * 1000)), "lastModified": "1700000000000000",
    }  # fmt: skip
    if video.state == "drm":
        found["drmFamilies"] = ["WIDEVINE"]
    if file.kind == "audio":
        found |= {"audioQuality": "AUDIO_QUALITY_MEDIUM", "audioSampleRate": "48000", "audioChannels": 2}
    else:
        quality = {144: "tiny", 240: "small", 360: "medium", 480: "large"}.get(file.height or 0, f"hd{file.height}")
        found |= {
            "width": file.width, "height": file.height, "fps": file.fps, "quality": quality,
            "qualityLabel": f"{file.height}p",
        }  # fmt: skip
    return found
