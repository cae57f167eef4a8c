"""What answers look like."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.downloads.documents import JobPriority, JobState
from apps.telegram_cache.documents import MediaKind


class ErrorSerializer(serializers.Serializer):
    """Every error has this shape. Some codes add fields of their own, such as ``parameter``."""

    status = serializers.BooleanField(help_text="Always false.")
    error = serializers.CharField(help_text="A stable code; see docs/errors.md.")
    message = serializers.CharField(help_text="What is wrong, in plain words.")
    retryable = serializers.BooleanField(help_text="Whether the same request can succeed later.")
    request_id = serializers.CharField(help_text="Names this request in the server's log.")


class PageAnswerSerializer(serializers.Serializer):
    """What the answer with one page of a list begins with."""

    status = serializers.BooleanField(help_text="Always true.")
    page = serializers.IntegerField()
    page_size = serializers.IntegerField()
    total = serializers.IntegerField()


class JobSummarySerializer(serializers.Serializer):
    id = serializers.CharField()
    state = serializers.ChoiceField([state.value for state in JobState])
    progress = serializers.FloatField(min_value=0, max_value=100, help_text="Per cent of the bytes, 0 to 100.")


class TelegramCopySerializer(serializers.Serializer):
    message_link = serializers.CharField(
        allow_null=True, help_text="Opens the file in Telegram; null when it is not one playable message."
    )
    parts = serializers.IntegerField(help_text="How many messages hold the file.")
    file_unique_id = serializers.CharField(allow_null=True, help_text="Telegram's id of the first part.")


class MeasuredSerializer(serializers.Serializer):
    """Measured from the finished file."""

    duration_s = serializers.FloatField(allow_null=True)
    video_codec = serializers.CharField(allow_null=True)
    audio_codec = serializers.CharField(allow_null=True)
    width = serializers.IntegerField(allow_null=True)
    height = serializers.IntegerField(allow_null=True)
    fps = serializers.FloatField(allow_null=True)
    dynamic_range = serializers.CharField(allow_null=True, help_text="SDR, HDR10 or HLG; null for audio.")
    bitrate_kbps = serializers.FloatField(allow_null=True)


@extend_schema_serializer(many=False)  # also where the method is called list
class MediaAnswerSerializer(serializers.Serializer):
    """A media file and the links to it. Every field is always there."""

    status = serializers.BooleanField(help_text="Always true.")
    video_id = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    duration = serializers.CharField(allow_blank=True, help_text='A label such as "3:32" or "1:02:03".')
    duration_seconds = serializers.IntegerField(allow_null=True)
    thumbnail = serializers.CharField(allow_blank=True)
    file_type = serializers.ChoiceField([kind.value for kind in MediaKind])
    quality = serializers.CharField(
        help_text='What was chosen: "1080p" for a video, "m4a" for an audio file. Of a finished file: as measured.'
    )
    container = serializers.CharField(help_text="The file name extension: mp4, webm, mkv, m4a, mp3, flac.")
    file_size = serializers.IntegerField(allow_null=True, help_text="Bytes; null while nobody knows.")
    media = MeasuredSerializer(allow_null=True, help_text="What the finished file is; null before it is there.")
    cached = serializers.BooleanField(help_text="Whether the whole file is stored, so that nothing is fetched again.")
    source = serializers.ChoiceField(
        ["hot", "telegram", "external"], help_text="Where the bytes come from: local disk, Telegram, or outside."
    )
    download_url = serializers.CharField(help_text="Signed link; saves the file under its title.")
    stream_url = serializers.CharField(help_text="Signed link; plays in place. Takes Range requests.")
    expires_at = serializers.DateTimeField(help_text="When both links end (UTC).")
    job = JobSummarySerializer(allow_null=True, help_text="The fetch that is under way, if any.")
    telegram = TelegramCopySerializer(allow_null=True)
    response_time = serializers.FloatField(help_text="Seconds from request to answer.")


class FormatSerializer(serializers.Serializer):
    format_id = serializers.CharField()
    kind = serializers.ChoiceField(["video", "audio", "muxed"])
    container = serializers.CharField()
    height = serializers.IntegerField(allow_null=True)
    fps = serializers.FloatField(allow_null=True)
    dynamic_range = serializers.CharField(
        allow_null=True, help_text="SDR, HDR10, HLG, ...: the plain picture is taken where there is one."
    )
    video_codec = serializers.CharField(allow_null=True)
    audio_codec = serializers.CharField(allow_null=True)
    bitrate_kbps = serializers.FloatField(allow_null=True)
    size_bytes = serializers.IntegerField(allow_null=True)
    size_is_estimate = serializers.BooleanField()


class SubtitleSerializer(serializers.Serializer):
    language = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    automatic = serializers.BooleanField(help_text="Made by speech recognition.")


class ChapterSerializer(serializers.Serializer):
    title = serializers.CharField()
    start_s = serializers.FloatField()
    end_s = serializers.FloatField(allow_null=True)


@extend_schema_serializer(many=False)
class InfoAnswerSerializer(serializers.Serializer):
    """What is known of a video. Every field is always there."""

    status = serializers.BooleanField(help_text="Always true.")
    video_id = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    channel = serializers.CharField(allow_blank=True)
    channel_id = serializers.CharField(allow_blank=True)
    artist = serializers.CharField(allow_null=True, help_text="Of music, when the source says it.")
    album = serializers.CharField(allow_null=True, help_text="Of music, when the source says it.")
    description = serializers.CharField(allow_blank=True)
    duration = serializers.CharField(allow_blank=True, help_text='A label such as "3:32" or "1:02:03".')
    duration_seconds = serializers.IntegerField(allow_null=True)
    thumbnail = serializers.CharField(allow_blank=True)
    thumbnails = serializers.ListField(child=serializers.CharField())
    upload_date = serializers.DateField(allow_null=True)
    view_count = serializers.IntegerField(allow_null=True)
    video_qualities = serializers.ListField(
        child=serializers.CharField(), help_text='What "quality" can be, best first: "1080p", "720p"...'
    )
    hdr = serializers.BooleanField(help_text="Whether some format has a high dynamic range.")
    audio_formats = serializers.ListField(child=serializers.CharField(), help_text='What an audio "format" can be.')
    formats = FormatSerializer(many=True)
    subtitles = SubtitleSerializer(many=True)
    chapters = ChapterSerializer(many=True)
    response_time = serializers.FloatField(help_text="Seconds from request to answer.")


class JobErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    retryable = serializers.BooleanField()


class ProviderErrorSerializer(serializers.Serializer):
    provider = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()
    took_s = serializers.FloatField(required=False, help_text="How long it took to fail; absent when it was skipped.")
    attempt = serializers.IntegerField(required=False, help_text="Of the job's attempts, the one in which it failed.")


class JobSerializer(serializers.Serializer):
    """One fetch of one file."""

    id = serializers.CharField()
    state = serializers.ChoiceField([state.value for state in JobState])
    stage = serializers.CharField(help_text="queued, connecting, downloading, muxing, checking, done.")
    progress = serializers.FloatField(min_value=0, max_value=100, help_text="Per cent of the bytes, 0 to 100.")
    video_id = serializers.CharField()
    file_type = serializers.ChoiceField([kind.value for kind in MediaKind])
    quality = serializers.CharField(help_text="What was asked for.")
    measured_quality = serializers.CharField(
        allow_null=True, help_text="What the finished file is; null until it is there."
    )
    bytes_done = serializers.IntegerField()
    bytes_total = serializers.IntegerField(allow_null=True)
    speed_bytes_per_s = serializers.FloatField(allow_null=True)
    eta_s = serializers.FloatField(allow_null=True)
    attempts = serializers.IntegerField()
    priority = serializers.ChoiceField(
        [priority.value for priority in JobPriority], help_text="Interactive jobs go before those of a batch."
    )
    provider = serializers.CharField(allow_null=True, help_text="The source that serves it, or served it.")
    provider_took_s = serializers.FloatField(
        allow_null=True, help_text="Seconds from asking that source to the finished file."
    )
    provider_errors = ProviderErrorSerializer(many=True, help_text="Sources that could not, and why.")
    failure = JobErrorSerializer(allow_null=True, help_text="Why it failed, once it has failed for good.")
    last_failure = JobErrorSerializer(
        allow_null=True, help_text="Why the last attempt failed, also while the job waits to be tried again."
    )
    retry_at = serializers.DateTimeField(
        allow_null=True,
        help_text="A queued job: when it is tried again by itself. A failed one: when asking again may help.",
    )
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class JobAnswerSerializer(JobSerializer):
    status = serializers.BooleanField(help_text="Always true.")


@extend_schema_serializer(many=False)
class JobListAnswerSerializer(PageAnswerSerializer):
    """The jobs that this key asked for, newest first."""

    jobs = JobSerializer(many=True)


class KeyStatusSerializer(serializers.Serializer):
    prefix = serializers.CharField()
    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    expires_at = serializers.DateTimeField(allow_null=True)
    limit_per_hour = serializers.IntegerField()
    used = serializers.IntegerField(help_text="Requests in the running hour, this one included.")
    remaining = serializers.IntegerField()
    reset_s = serializers.IntegerField(help_text="Seconds until the limit is fresh again.")


@extend_schema_serializer(many=False)
class StatusAnswerSerializer(serializers.Serializer):
    """That the server is there; with a key, how much of its limit is used."""

    status = serializers.BooleanField(help_text="Always true.")
    version = serializers.CharField()
    time = serializers.DateTimeField()
    key = KeyStatusSerializer(allow_null=True)


class KindTotalsSerializer(serializers.Serializer):
    files = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    in_telegram = serializers.IntegerField(help_text="Files of which every part is in Telegram.")


class HitRatioSerializer(serializers.Serializer):
    hot = serializers.IntegerField(help_text="Answers from local disk.")
    telegram = serializers.IntegerField(help_text="Answers from Telegram.")
    external = serializers.IntegerField(help_text="Answers that needed a fetch.")
    ratio = serializers.FloatField(allow_null=True, help_text="Share answered without a fetch; null before the first.")


class MostUsedSerializer(serializers.Serializer):
    video_id = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    file_type = serializers.ChoiceField([kind.value for kind in MediaKind])
    quality = serializers.CharField(help_text="What was asked for.")
    measured_quality = serializers.CharField(help_text="What the file is.")
    file_size = serializers.IntegerField(allow_null=True)
    access_count = serializers.IntegerField()


@extend_schema_serializer(many=False)
class CacheStatsAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    total_files = serializers.IntegerField()
    total_size_bytes = serializers.IntegerField()
    video = KindTotalsSerializer()
    audio = KindTotalsSerializer()
    hits = HitRatioSerializer()
    most_used = MostUsedSerializer(many=True)
