"""``/api/v1/me``: what a key may do, what it has used, and its last 24 hours, for whoever holds it."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from drf_spectacular.utils import extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.analytics import serializers as shapes
from apps.analytics.rendering import key_usage_fields
from apps.analytics.reports import key_usage
from apps.analytics.spans import named_span
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.selectors import count_active_jobs
from apps.downloads.services.answers import iso_utc
from apps.downloads.views.base import ApiViewSet
from apps.keys.grants import KeyGrant
from apps.keys.limits import usage
from apps.keys.meter import count_streams

MAX_COUNTED_JOBS = 10_000


class WindowSerializer(serializers.Serializer):
    window = serializers.ChoiceField(
        ["hour", "day", "bytes"], help_text="Requests in an hour or a day; streamed bytes in a day."
    )
    limit = serializers.IntegerField()
    used = serializers.IntegerField()
    remaining = serializers.IntegerField()
    reset_s = serializers.IntegerField(help_text="Seconds until the oldest that counts leaves the window.")


class OtherLimitsSerializer(serializers.Serializer):
    """null: no such limit."""

    concurrent_streams = serializers.IntegerField(allow_null=True)
    concurrent_jobs = serializers.IntegerField(allow_null=True)
    longest_video_s = serializers.IntegerField(allow_null=True)
    largest_file_bytes = serializers.IntegerField(allow_null=True)


class NowSerializer(serializers.Serializer):
    streams = serializers.IntegerField(allow_null=True, help_text="null: not counted, as they are not limited.")
    jobs = serializers.IntegerField(help_text="Waiting or running fetches that this key began.")


class HistorySerializer(serializers.Serializer):
    key_prefix = serializers.CharField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    zone = serializers.CharField()
    step_s = serializers.IntegerField()
    totals = shapes.SumsSerializer()
    series = shapes.KeyStepSerializer(many=True)


@extend_schema_serializer(many=False)
class MeAnswerSerializer(serializers.Serializer):
    """What this key may do, and what it did."""

    status = serializers.BooleanField(help_text="Always true.")
    prefix = serializers.CharField()
    name = serializers.CharField()
    owner = serializers.CharField(allow_blank=True)
    scopes = serializers.ListField(child=serializers.CharField())
    expires_at = serializers.DateTimeField(allow_null=True)
    allowed_cidrs = serializers.ListField(child=serializers.CharField(), help_text="Empty: from everywhere.")
    bind_links = serializers.BooleanField()
    windows = WindowSerializer(many=True)
    limits = OtherLimitsSerializer()
    now = NowSerializer()
    last_24_hours = HistorySerializer()


@extend_schema(tags=["server"])
@extend_schema_view(
    list=extend_schema(
        operation_id="me",
        summary="A key's own limits, use and last 24 hours",
        responses={200: MeAnswerSerializer, **error_responses("invalid_parameter", *KEY_ERRORS)},
    )
)
class MeViewSet(ApiViewSet):
    """What the key that is sent may do and has done. The figures of the last 24 hours follow within three minutes."""

    def list(self, request: Request) -> Response:
        self.fields()
        grant: KeyGrant = request.user
        return Response(
            {
                "status": True,
                "prefix": grant.prefix,
                "name": grant.name,
                "owner": grant.owner,
                "scopes": sorted(grant.scopes),
                "expires_at": iso_utc(grant.expires_at),
                "allowed_cidrs": [str(network) for network in grant.allowed_networks],
                "bind_links": grant.bind_links,
                "windows": _windows(grant),
                "limits": {
                    "concurrent_streams": grant.concurrent_streams,
                    "concurrent_jobs": grant.concurrent_jobs,
                    "longest_video_s": grant.longest_video_s,
                    "largest_file_bytes": grant.largest_file_bytes,
                },
                "now": {
                    "streams": None if grant.concurrent_streams is None else count_streams(grant.prefix),
                    "jobs": count_active_jobs(limit=MAX_COUNTED_JOBS, key_prefix=grant.prefix),
                },
                "last_24_hours": key_usage_fields(
                    grant.prefix, key_usage(grant.prefix, named_span("24h", zone=ZoneInfo("UTC")))
                ),
            }
        )


def _windows(grant: KeyGrant) -> list[dict[str, Any]]:
    return [
        {
            "window": state.kind.value,
            "limit": state.limit,
            "used": state.limit - state.remaining,
            "remaining": state.remaining,
            "reset_s": state.reset_s,
        }
        for state in usage(grant)
    ]
