"""What goes in and out at the admin routes for warm-ups."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.downloads.answer_serializers import JobErrorSerializer, PageAnswerSerializer
from apps.downloads.batch_serializers import FILE_TYPES, BatchRequestSerializer
from apps.downloads.links import MAX_LINK_CHARS
from apps.downloads.request_serializers import WordsField
from apps.downloads.warm_documents import WarmState

MAX_URLS = 1000
SHOWN_FAILURES = 50


class WarmUpRequestSerializer(BatchRequestSerializer):
    """Options hold for each of the files. Those of the other kind of file are refused."""

    name = serializers.CharField(max_length=100, help_text="Your own name for this list.")
    urls = WordsField(
        child=serializers.CharField(max_length=MAX_LINK_CHARS),
        required=False,
        min_length=1,
        max_length=MAX_URLS,
        help_text=f"Up to {MAX_URLS:,} video links or ids. One that is wrong does not stop the others.",
    )
    playlist = serializers.CharField(
        required=False, help_text="Instead of `urls`: a playlist's link or id. Its first 500 videos are taken."
    )
    any_hour = serializers.BooleanField(default=False, help_text="Begin now, not only in the quiet hours.")
    wait = None  # nobody waits for these


class WarmCountsSerializer(serializers.Serializer):
    waiting = serializers.IntegerField()
    fetching = serializers.IntegerField()
    done = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()


class WarmUpSerializer(serializers.Serializer):
    id = serializers.CharField()
    name = serializers.CharField()
    file_type = serializers.ChoiceField(FILE_TYPES)
    wish = serializers.CharField(allow_null=True, help_text="The quality or format that was asked for.")
    state = serializers.ChoiceField([state.value for state in WarmState])
    any_hour = serializers.BooleanField()
    begins_at = serializers.DateTimeField(allow_null=True, help_text="The next quiet hours, while it waits for them.")
    playlist_id = serializers.CharField(allow_null=True)
    reading = serializers.BooleanField(help_text="Its playlist is still being read.")
    problem = serializers.CharField(allow_null=True, help_text="Why its playlist could not be read.")
    total = serializers.IntegerField()
    counts = WarmCountsSerializer()
    created_by = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class WarmFailureSerializer(serializers.Serializer):
    url = serializers.CharField(help_text="As it was sent.")
    failure = JobErrorSerializer()


class WarmUpAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    warm_up = WarmUpSerializer()
    failures = WarmFailureSerializer(many=True, help_text=f"What could not be fetched: the first {SHOWN_FAILURES}.")


@extend_schema_serializer(many=False)
class WarmUpListAnswerSerializer(PageAnswerSerializer):
    """Newest first."""

    warm_ups = WarmUpSerializer(many=True)
