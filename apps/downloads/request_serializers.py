"""What requests may ask for: the fields of each route. The OpenAPI document is made from these classes."""

from __future__ import annotations

import ipaddress
import re
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
MAX_START_S = 100 * 3600
QUALITY_PATTERN = r"^([bB][eE][sS][tT]|[1-9][0-9]{0,4}[pP]?)$"
OPTION_FIELDS = ("container", "codec", "fps", "bitrate", "tags", "start", "end", "link_ip")

URL_HELP = (
    "A YouTube link of any form (watch, youtu.be, shorts, live, embed, music, nocookie), or the bare "
    "11-character video id. Playlist and time parameters are ignored."
)
WAIT_HELP = "Seconds to wait for the whole file before answering. The links work at once either way."
QUALITY_HELP = "`best`, or a height (1080, 720p): that height, or the next lower one that the video has."
FORMAT_HELP = (
    "m4a is never re-encoded, nor is opus where the source has it; mp3 and flac are made from the source's sound. "
    "Left out: m4a, or mp3 if there is no m4a."
)
CLIP_HELP = "Seconds from the start of the video; only what lies between start and end is kept, at most an hour."


class WordsField(serializers.ListField):
    """A list of texts; in a form, one text with commas or a line for each (``split``)."""

    child = serializers.CharField()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(style={"base_template": "textarea.html", "rows": 2}, **kwargs)

    @staticmethod
    def split(text: str) -> list[str]:
        return [word.strip() for word in re.split(r"[,\r\n]", text) if word.strip()]


class UrlFields(serializers.Serializer):
    url = serializers.CharField(help_text=URL_HELP)


class WaitFields(serializers.Serializer):
    wait = serializers.IntegerField(min_value=0, max_value=MAX_WAIT_S, default=0, initial=0, help_text=WAIT_HELP)


class DownloadFields(serializers.Serializer):
    download = serializers.BooleanField(default=False, help_text="Save the file rather than play it.")


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


class PictureFields(MediaOptionsMixin):
    """Options of videos."""

    container = serializers.ChoiceField(
        VIDEO_CONTAINERS, required=False, help_text="mp4 (faststart), webm (vp9 or av1 with opus), mkv. Default: mp4."
    )
    codec = serializers.ChoiceField(
        ["any", *VIDEO_CODECS],
        required=False,
        help_text="Only pictures of this codec; never encoded anew. Any: what plays everywhere (h264) first.",
    )
    fps = serializers.IntegerField(
        required=False, min_value=1, max_value=240, help_text="That many frames a second, or the next lower number."
    )


class SoundFields(MediaOptionsMixin):
    """Options of audio files."""

    bitrate = serializers.ChoiceField(
        MP3_BITRATES_KBPS, required=False, help_text="kbit/s of an mp3. Left out: variable, the best."
    )
    tags = serializers.BooleanField(
        default=False,
        help_text="Title, artist, album and cover in an m4a, mp3 or opus (then Ogg), also in one that came ready-made.",
    )


class ClipFields(MediaOptionsMixin):
    """Options of both."""

    start = serializers.FloatField(required=False, min_value=0, max_value=MAX_START_S, help_text=CLIP_HELP)
    end = serializers.FloatField(required=False, min_value=0, max_value=MAX_START_S, help_text=CLIP_HELP)


class VideoFields(PictureFields, ClipFields):
    """What a video can be asked for."""

    quality = serializers.RegexField(
        QUALITY_PATTERN,
        default="best",
        initial="best",
        error_messages={"invalid": "must be best, or a height such as 1080 or 720p"},
        help_text=QUALITY_HELP,
    )
    format = serializers.ChoiceField(["mp4"], default="mp4", help_text="For old clients; `container` decides.")


class AudioFields(SoundFields, ClipFields):
    """What an audio file can be asked for."""

    quality = serializers.ChoiceField(["best"], default="best", help_text="Audio always comes in its best quality.")
    format = serializers.ChoiceField(AUDIO_FORMATS, required=False, help_text=FORMAT_HELP)


class InfoRequestSerializer(UrlFields):
    refresh = serializers.BooleanField(
        default=False, help_text="Ask the sources again, unless they were asked about this video in the last minute."
    )


class LinkIpField(serializers.CharField):
    """An IP address, or ``me``."""

    def to_internal_value(self, data: Any) -> str:
        text = str(super().to_internal_value(data))
        if text != "me":
            try:
                ipaddress.ip_address(text)
            except ValueError:
                raise serializers.ValidationError("must be an IP address, or me") from None
        return text


class BindingFields(serializers.Serializer):
    link_ip = LinkIpField(
        max_length=50,
        required=False,
        help_text="The links work only from this IP address (IPv6: its /64). `me`: from the address that asks now.",
    )


class VideoRequestSerializer(UrlFields, VideoFields, WaitFields, BindingFields):
    """A video file."""


class AudioRequestSerializer(UrlFields, AudioFields, WaitFields, BindingFields):
    """An audio file."""


class VideoStreamRequestSerializer(VideoFields, DownloadFields):
    """The bytes of a video file."""


class AudioStreamRequestSerializer(AudioFields, DownloadFields):
    """The bytes of an audio file."""


class PageRequestSerializer(serializers.Serializer):
    page = serializers.IntegerField(min_value=1, max_value=10_000, default=1)
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=20)


class JobListRequestSerializer(PageRequestSerializer):
    state = serializers.ChoiceField(
        [state.value for state in JobState], required=False, help_text="Only jobs in this state."
    )


class JobWaitSerializer(serializers.Serializer):
    wait = serializers.IntegerField(
        min_value=0,
        max_value=MAX_WAIT_S,
        default=0,
        help_text="Seconds to wait for the job to end. The answer comes as soon as it has, else after that time.",
    )


class NoFieldsSerializer(serializers.Serializer):
    """For routes that take nothing."""
