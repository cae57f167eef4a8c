"""What goes into the route of batches and what comes out."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.downloads.answer_serializers import JobErrorSerializer, JobSummarySerializer, PageAnswerSerializer
from apps.downloads.documents import JobState
from apps.downloads.links import MAX_LINK_CHARS
from apps.downloads.request_serializers import (
    FORMAT_HELP,
    MAX_WAIT_S,
    QUALITY_HELP,
    QUALITY_PATTERN,
    ClipFields,
    PictureFields,
    SoundFields,
    WordsField,
)
from apps.downloads.services.batches import MAX_LINKS, MAX_PLAYLIST_VIDEOS
from apps.downloads.variants import AUDIO_FORMATS
from apps.telegram_cache.documents import MediaKind

FILE_TYPES = [kind.value for kind in MediaKind]


_ONLY_FOR = {
    MediaKind.VIDEO: ("quality", "container", "codec", "fps"),
    MediaKind.AUDIO: ("format", "bitrate", "tags"),
}


class BatchWaitSerializer(serializers.Serializer):
    wait = serializers.IntegerField(
        min_value=0, max_value=MAX_WAIT_S, default=0, help_text="Seconds to wait for the whole batch before answering."
    )


class BatchRequestSerializer(PictureFields, SoundFields, ClipFields, BatchWaitSerializer):
    """Options hold for each of the files. Those of the other kind of file are refused."""

    urls = WordsField(
        child=serializers.CharField(max_length=MAX_LINK_CHARS),
        required=False,
        min_length=1,
        max_length=MAX_LINKS,
        help_text=f"Up to {MAX_LINKS} video links or ids. One that is wrong does not stop the others.",
    )
    playlist = serializers.CharField(
        required=False,
        help_text=f"Instead of `urls`: a playlist's link or id. Its first {MAX_PLAYLIST_VIDEOS} videos are taken.",
    )
    file_type = serializers.ChoiceField(FILE_TYPES, default="audio", initial="audio")
    quality = serializers.RegexField(QUALITY_PATTERN, required=False, help_text=f"Of videos: {QUALITY_HELP}")
    format = serializers.ChoiceField(AUDIO_FORMATS, required=False, help_text=f"Of audio: {FORMAT_HELP}")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("urls" in attrs) == ("playlist" in attrs):
            raise serializers.ValidationError({"urls": "send either urls or playlist"})
        kind = MediaKind(attrs["file_type"])
        other = MediaKind.AUDIO if kind is MediaKind.VIDEO else MediaKind.VIDEO
        for name in _ONLY_FOR[other]:
            if self.initial_data.get(name) not in (None, "", False):
                raise serializers.ValidationError({name: f"not for {kind.value} files"})
        return attrs


class BatchFileSerializer(serializers.Serializer):
    title = serializers.CharField(allow_blank=True)
    duration_seconds = serializers.IntegerField(allow_null=True)
    quality = serializers.CharField()
    container = serializers.CharField()
    file_size = serializers.IntegerField(allow_null=True)
    download_url = serializers.CharField(help_text="Signed link; saves the file under its title.")
    stream_url = serializers.CharField(help_text="Signed link; plays in place.")


class BatchEntrySerializer(serializers.Serializer):
    url = serializers.CharField(help_text="As it was sent.")
    video_id = serializers.CharField(allow_null=True)
    state = serializers.ChoiceField([state.value for state in JobState])
    failure = JobErrorSerializer(allow_null=True)
    job = JobSummarySerializer(allow_null=True)
    file = BatchFileSerializer(allow_null=True, help_text="There as soon as the fetch has begun.")


class BatchSummarySerializer(serializers.Serializer):
    id = serializers.CharField()
    file_type = serializers.ChoiceField(FILE_TYPES)
    total = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class BatchCountsSerializer(serializers.Serializer):
    queued = serializers.IntegerField()
    running = serializers.IntegerField()
    done = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()


@extend_schema_serializer(many=False)
class BatchAnswerSerializer(BatchSummarySerializer):
    """A batch and each of its files."""

    status = serializers.BooleanField(help_text="Always true.")
    state = serializers.ChoiceField(
        ["running", "done", "cancelled"], help_text="done: every entry has its file or its error."
    )
    counts = BatchCountsSerializer()
    truncated = serializers.BooleanField(help_text="Whether the playlist has more videos than were taken.")
    entries = BatchEntrySerializer(many=True)


@extend_schema_serializer(many=False)
class BatchListAnswerSerializer(PageAnswerSerializer):
    """The batches of this key, newest first."""

    batches = BatchSummarySerializer(many=True)
