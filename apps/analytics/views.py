"""``/api/v1/admin/analytics``: the figures of the analytics page and of the live dashboard, for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.analytics import serializers as shapes
from apps.analytics.live import live_figures
from apps.analytics.rendering import key_usage_fields, report_fields
from apps.analytics.reports import key_usage, usage_report
from apps.analytics.spans import Span, make_span, named_span, read_zone
from apps.core.clock import utcnow
from apps.core.errors import InvalidParameter, NotFound
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope
from apps.keys.selectors import find_key

KEY = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The key's prefix, 8 characters.")
_ERRORS = error_responses("invalid_parameter", *KEY_ERRORS)
_KEY_ERRORS = error_responses("invalid_parameter", "not_found", *KEY_ERRORS)


@extend_schema(tags=["admin"])
@extend_schema_view(
    list=extend_schema(
        operation_id="admin_analytics",
        summary="Requests, errors, times and bytes of a range",
        parameters=[shapes.SpanRequestSerializer],
        responses={200: shapes.ReportSerializer, **_ERRORS},
    ),
    retrieve=extend_schema(
        operation_id="admin_analytics_key",
        summary="What one key did in a range",
        parameters=[KEY, shapes.SpanRequestSerializer],
        responses={200: shapes.KeyUsageSerializer, **_KEY_ERRORS},
    ),
    live=extend_schema(
        operation_id="admin_analytics_live",
        summary="What happens right now, over all processes",
        responses={200: shapes.LiveSerializer, **_ERRORS},
    ),
)
class AnalyticsViewSet(ApiViewSet):
    """Sums of what was asked and answered. Needs a key with the scope `admin`, or somebody logged in to the admin.

    `/live` is this moment; `/<prefix>` is one key.
    """

    required_scope = Scope.ADMIN
    lookup_value_regex = r"[A-Za-z0-9]{8}"

    def get_serializer_class(self) -> type:
        return NoFieldsSerializer if self.action == "live" else shapes.SpanRequestSerializer

    def list(self, request: Request) -> Response:
        fields = self.fields()
        return Response({"status": True, **report_fields(usage_report(_span(fields), top=fields["top"]))})

    def retrieve(self, request: Request, pk: str) -> Response:
        span = _span(self.fields())
        if find_key(pk) is None:
            raise NotFound("There is no such key.")
        return Response({"status": True, **key_usage_fields(pk, key_usage(pk, span))})

    @action(detail=False, methods=["get"])
    def live(self, request: Request) -> Response:
        self.fields()
        return Response({"status": True, **asdict(live_figures())})


def _span(fields: dict[str, Any]) -> Span:
    zone = read_zone(fields["zone"])
    if fields.get("start") is None:
        if fields.get("end") is not None:
            raise InvalidParameter("start: is needed with end.", parameter="start")
        return named_span(fields["range"], zone=zone)
    return make_span(fields["start"], fields.get("end") or utcnow(), zone=zone)
