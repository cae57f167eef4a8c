"""How the server and the cache are doing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.request_state import USED
from apps.downloads.answer_serializers import CacheStatsAnswerSerializer, StatusAnswerSerializer
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.services.answers import iso_utc
from apps.downloads.services.cache_stats import cache_stats
from apps.downloads.views.base import ApiViewSet
from apps.keys.grants import KeyGrant


@extend_schema(tags=["server"])
@extend_schema_view(
    list=extend_schema(
        operation_id="status",
        summary="That the server is there, and how much of a key's limit is used",
        responses={
            200: StatusAnswerSerializer,
            **error_responses("invalid_parameter", "key_invalid", "key_expired", "key_disabled", "rate_limited"),
        },
    )
)
class StatusViewSet(ApiViewSet):
    """Needs no key. With a key: its limit per hour, what is used, what remains, and when it is fresh again.

    Asking is not counted, and answered also when the limit is used up.
    """

    permission_classes = (AllowAny,)
    counts_requests = False

    def list(self, request: Request) -> Response:
        self.fields()
        return Response(
            {
                "status": True,
                "version": settings.SPECTACULAR_SETTINGS["VERSION"],
                "time": iso_utc(datetime.now(UTC)),
                "key": _key_status(request),
            }
        )


def _key_status(request: Request) -> dict[str, Any] | None:
    grant: KeyGrant | None = request.user
    if grant is None:
        return None
    hour = request.META[USED][0]
    return {
        "prefix": grant.prefix,
        "name": grant.name,
        "scopes": sorted(grant.scopes),
        "expires_at": iso_utc(grant.expires_at),
        "limit_per_hour": hour.limit,
        "used": hour.limit - hour.remaining,
        "remaining": hour.remaining,
        "reset_s": hour.reset_s,
    }


@extend_schema(tags=["server"])
@extend_schema_view(
    list=extend_schema(
        operation_id="cache_stats",
        summary="What the cache holds and how often it helps",
        responses={
            200: CacheStatsAnswerSerializer,
            **error_responses("invalid_parameter", *KEY_ERRORS),
        },
    )
)
class CacheStatsViewSet(ApiViewSet):
    """Totals by kind, sizes, the share of answers that needed no fetch, and the most used files."""

    def list(self, request: Request) -> Response:
        self.fields()
        return Response({"status": True, **cache_stats()})
