"""What the analytics API takes and gives."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.analytics.reports import MAX_TOP, TOP
from apps.analytics.spans import RANGES

NO_OFFSET = "A time without an offset (`+01:00`, `Z`) is UTC, whatever `zone` says."


class SpanRequestSerializer(serializers.Serializer):
    """A range up to now, or an own one with ``start`` and ``end``."""

    range = serializers.ChoiceField(list(RANGES), default="24h", help_text="Up to now. Not used with `start`.")
    start = serializers.DateTimeField(required=False, help_text=f"ISO 8601, for a range of your own. {NO_OFFSET}")
    end = serializers.DateTimeField(required=False, help_text=f"ISO 8601; now when left out. {NO_OFFSET}")
    zone = serializers.CharField(
        default="UTC", max_length=64, help_text="Time zone that days are cut in, such as Europe/Berlin."
    )
    top = serializers.IntegerField(default=TOP, min_value=1, max_value=MAX_TOP, help_text="Rows of each list.")


class SumsSerializer(serializers.Serializer):
    requests = serializers.IntegerField()
    answered = serializers.IntegerField(help_text="Status below 400.")
    refused = serializers.IntegerField(help_text="Status 4xx, clients that left included.")
    errors = serializers.IntegerField(help_text="Status 5xx.")
    bytes_sent = serializers.IntegerField()


class TotalsSerializer(SumsSerializer):
    error_rate = serializers.FloatField(help_text="0 to 1.")
    first_byte_p50_s = serializers.FloatField(allow_null=True)
    first_byte_p95_s = serializers.FloatField(allow_null=True)
    hit_ratio = serializers.FloatField(allow_null=True, help_text="0 to 1: what was hot or in Telegram.")
    peak_users = serializers.IntegerField(help_text="The most active at once in a minute.")


class StepSerializer(SumsSerializer):
    start = serializers.DateTimeField()
    first_byte_p50_s = serializers.FloatField(allow_null=True)
    first_byte_p95_s = serializers.FloatField(allow_null=True)


class TopRowSerializer(SumsSerializer):
    value = serializers.CharField(allow_blank=True)
    label = serializers.CharField(allow_blank=True, help_text="A title, or a key's or person's name, if known.")


@extend_schema_serializer(many=False)
class ReportSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    zone = serializers.CharField()
    step_s = serializers.IntegerField()
    totals = TotalsSerializer()
    series = StepSerializer(many=True)
    videos = TopRowSerializer(many=True)
    keys = TopRowSerializer(many=True)
    routes = TopRowSerializer(many=True)
    tiers = TopRowSerializer(many=True)
    error_codes = TopRowSerializer(many=True)


class KeyStepSerializer(SumsSerializer):
    start = serializers.DateTimeField()


class KeyUsageSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    key_prefix = serializers.CharField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    zone = serializers.CharField()
    step_s = serializers.IntegerField()
    totals = SumsSerializer()
    series = KeyStepSerializer(many=True)


class ActivityCountsSerializer(serializers.Serializer):
    api = serializers.IntegerField()
    stream = serializers.IntegerField()
    websocket = serializers.IntegerField()


class TierCountsSerializer(serializers.Serializer):
    hot = serializers.IntegerField()
    telegram = serializers.IntegerField()
    external = serializers.IntegerField()


class LiveSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    at = serializers.FloatField(help_text="UNIX seconds.")
    requests_per_s = serializers.FloatField()
    bytes_per_s = serializers.FloatField()
    refused_per_s = serializers.FloatField(help_text="Of requests_per_s: status 4xx, clients that left included.")
    errors_per_s = serializers.FloatField(help_text="Of requests_per_s: status 5xx.")
    requests = serializers.IntegerField(help_text="In the last minute.")
    error_rate = serializers.FloatField()
    refused_rate = serializers.FloatField()
    first_byte_p50_s = serializers.FloatField(allow_null=True)
    first_byte_p95_s = serializers.FloatField(allow_null=True)
    tiers: Any = TierCountsSerializer()
    hit_ratio = serializers.FloatField(allow_null=True)
    users = serializers.IntegerField()
    users_by_activity: Any = ActivityCountsSerializer()
    streams = serializers.IntegerField()
    websockets = serializers.IntegerField()
