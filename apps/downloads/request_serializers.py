"""What requests may ask for: the fields of each route. The OpenAPI document is made from these classes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.downloads.documents import JobState
from apps.downloads.variants import (
    AUDIO_FORMATS,
    MP3_BITRATES_KBPS,
    VIDEO_CODECS,
    VIDEO_CONTAINERS,
    MediaOptions,
)

MAX_WAIT_S = 30
MAX_PAGE_SIZE = 100
QUALITY_PATTERN = r"^([bB][eE][sS][tT]|[1-9][0-9]{0,4}[pP]?)$"

URL_HELP = (
    "A YouTube link of any form (watch, youtu.be, shorts, live, embed, music, nocookie), or the bare "
    "11-character video id. Playlist and time parameters are ignored."
)
WAIT_HELP = "Seconds to wait for the whole file before answering. The links work at once either way."


def _url() -> serializers.Field:
    return serializers.CharField(help_text=URL_HELP)


def _wait() -> serializers.Field:
    return serializers.IntegerField(min_value=0, max_value=MAX_WAIT_S, default=0, initial=0, help_text=WAIT_HELP)


def _video_quality() -> serializers.Field:
    return serializers.RegexField(
        QUALITY_PATTERN,
        default="best",
        initial="best",
        error_messages={"invalid": "must be best, or a height such as 1080 or 720p"},
        help_text="`best`, or a height (1080, 720p): that height, or the next lower one that the video has.",
    )


def _video_format() -> serializers.Field:
    return serializers.ChoiceField(["mp4"], default="mp4", help_text="For old clients; `container` decides.")


def _audio_quality() -> serializers.Field:
    return serializers.ChoiceField(["best"], default="best", help_text="Audio always comes in its best quality.")


def _audio_format() -> serializers.Field:
    return serializers.ChoiceField(
        AUDIO_FORMATS,
        required=False,
        help_text="m4a and opus are the source's own, without re-encoding; mp3 and flac are made from it. "
        "Left out: m4a, or mp3 if there is no m4a.",
    )


MAX_START_S = 100 * 3600
OPTION_FIELDS = ("container", "codec", "fps", "bitrate", "tags", "start", "end")
CLIP_HELP = "Seconds from the start of the video; only what lies between start and end is kept, at most an hour."


class MediaOptionsMixin(serializers.Serializer):
    """``options`` from the fields that say more than quality or format."""

    def to_internal_value(self, data: Any) -> Any:
        left_empty = {name for name in OPTION_FIELDS if data.get(name) == ""}  # as a page's form sends them
        fields = super().to_internal_value({name: value for name, value in data.items() if name not in left_empty})
        codec = fields.pop("codec", None)
        fields["options"] = MediaOptions(
            container=fields.pop("container", None),
            codec=None if codec == "any" else codec,
            fps=fields.pop("fps", None),
            bitrate_kbps=fields.pop("bitrate", None),
            tags=fields.pop("tags", False),
            start_s=fields.pop("start", None),
            end_s=fields.pop("end", None),
        )
        return fields


def _container() -> serializers.Field:
    return serializers.ChoiceField(
        VIDEO_CONTAINERS, required=False, help_text="mp4 (faststart), webm (vp9 or av1 with opus), mkv. Default: mp4."
    )


def _codec() -> serializers.Field:
    return serializers.ChoiceField(
        ["any", *VIDEO_CODECS],
        required=False,
        help_text="Only pictures of this codec; never encoded anew. Any: what plays everywhere (h264) first.",
    )


def _fps() -> serializers.Field:
    return serializers.IntegerField(
        required=False, min_value=1, max_value=240, help_text="That many frames a second, or the next lower number."
    )


def _bitrate() -> serializers.Field:
    return serializers.ChoiceField(
        MP3_BITRATES_KBPS, required=False, help_text="kbit/s of an mp3. Left out: variable, the best."
    )


def _tags() -> serializers.Field:
    return serializers.BooleanField(
        default=False, help_text="Title, artist and cover also in an m4a (mp3 and flac that we make have them anyhow)."
    )


def _seconds() -> serializers.Field:
    return serializers.FloatField(required=False, min_value=0, max_value=MAX_START_S, help_text=CLIP_HELP)


def _download() -> serializers.Field:
    return serializers.BooleanField(default=False, help_text="Save the file rather than play it.")


class InfoRequestSerializer(serializers.Serializer):
    url = _url()


class VideoRequestSerializer(MediaOptionsMixin):
    url = _url()
    quality = _video_quality()
    format = _video_format()
    container = _container()
    codec = _codec()
    fps = _fps()
    start = _seconds()
    end = _seconds()
    wait = _wait()


class AudioRequestSerializer(MediaOptionsMixin):
    url = _url()
    quality = _audio_quality()
    format = _audio_format()
    bitrate = _bitrate()
    tags = _tags()
    start = _seconds()
    end = _seconds()
    wait = _wait()


class VideoStreamRequestSerializer(MediaOptionsMixin):
    quality = _video_quality()
    format = _video_format()
    container = _container()
    codec = _codec()
    fps = _fps()
    start = _seconds()
    end = _seconds()
    download = _download()


class AudioStreamRequestSerializer(MediaOptionsMixin):
    quality = _audio_quality()
    format = _audio_format()
    bitrate = _bitrate()
    tags = _tags()
    start = _seconds()
    end = _seconds()
    download = _download()


class PageRequestSerializer(serializers.Serializer):
    page = serializers.IntegerField(min_value=1, max_value=10_000, default=1)
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=20)


class JobListRequestSerializer(PageRequestSerializer):
    state = serializers.ChoiceField(
        [state.value for state in JobState], required=False, help_text="Only jobs in this state."
    )


class NoFieldsSerializer(serializers.Serializer):
    """For routes that take nothing."""
