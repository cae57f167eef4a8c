"""The sources of media for programs: how they are doing, their order, on and off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer
from apps.downloads.services.answers import iso_utc
from apps.downloads.services.provider_settings import (
    ProviderView,
    order_providers,
    set_provider_enabled,
    view_providers,
)
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope
from apps.keys.drf import client_address


class RecentErrorSerializer(serializers.Serializer):
    at = serializers.DateTimeField()
    code = serializers.CharField()
    message = serializers.CharField()
    took_s = serializers.FloatField()


class ProviderSerializer(serializers.Serializer):
    name = serializers.CharField()
    enabled = serializers.BooleanField()
    position = serializers.IntegerField(allow_null=True, help_text="1 is asked first; null when it is off.")
    circuit = serializers.ChoiceField(
        ["closed", "half_open", "open"],
        help_text="Open: it failed five times in a row, so some process leaves it alone for now. Half open: the pause "
        "is over, and the next question is a trial.",
    )
    circuit_text = serializers.CharField(help_text="The same in a sentence.")
    paused_processes = serializers.IntegerField()
    half_open_processes = serializers.IntegerField()
    trials_running = serializers.IntegerField()
    next_trial_s = serializers.FloatField(allow_null=True, help_text="Seconds until it is tried again, if paused.")
    answers = serializers.IntegerField(help_text="While in use, and for a week after.")
    failures = serializers.IntegerField()
    last_answer_at = serializers.DateTimeField(allow_null=True)
    last_failure_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(allow_blank=True)
    last_took_s = serializers.FloatField(allow_null=True)
    recent_errors = RecentErrorSerializer(many=True, help_text="Newest first, ten at most.")


@extend_schema_serializer(many=False)
class ProviderListAnswerSerializer(serializers.Serializer):
    """Every source that PROVIDERS names, those in use first, in their order."""

    status = serializers.BooleanField(help_text="Always true.")
    providers = ProviderSerializer(many=True)


class OrderRequestSerializer(serializers.Serializer):
    order = serializers.CharField(max_length=200, help_text="All names, first to last: `ytdlp,savetube`.")


NAME = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The source's name, such as `ytdlp`.")
_ANSWERS = {
    200: ProviderListAnswerSerializer,
    **error_responses("invalid_parameter", "not_found", *KEY_ERRORS),
}


@extend_schema(tags=["admin"], responses=_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="admin_providers", summary="The sources and how they are doing"),
    enable=extend_schema(
        operation_id="admin_provider_enable", summary="Switch a source on", parameters=[NAME], request=None
    ),
    disable=extend_schema(
        operation_id="admin_provider_disable", summary="Switch a source off", parameters=[NAME], request=None
    ),
    order=extend_schema(operation_id="admin_provider_order", summary="Set the order in which sources are asked"),
)
class ProvidersViewSet(ApiViewSet):
    """Sources of media. Needs a key with the scope `admin`. Changes count in every process within two seconds."""

    required_scope = Scope.ADMIN
    lookup_value_regex = "[a-z0-9_]{1,32}"

    def get_serializer_class(self) -> type:
        return OrderRequestSerializer if self.action == "order" else NoFieldsSerializer

    def list(self, request: Request) -> Response:
        self.fields()
        return self._answer()

    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: str) -> Response:
        return self._switch(pk, enabled=True)

    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        return self._switch(pk, enabled=False)

    @action(detail=False, methods=["post"])
    def order(self, request: Request) -> Response:
        names = [name.strip() for name in self.fields()["order"].split(",")]
        order_providers(names, **self._who())
        return self._answer()

    def _switch(self, name: str, *, enabled: bool) -> Response:
        self.fields()
        set_provider_enabled(name, enabled=enabled, **self._who())
        return self._answer()

    def _who(self) -> dict[str, str]:
        return {"actor": self.request.user.actor, "address": client_address(self.request._request)}

    def _answer(self) -> Response:
        return Response({"status": True, "providers": [_fields(view) for view in view_providers()]})


def _fields(view: ProviderView) -> dict[str, Any]:
    health = view.health
    return {
        "name": view.name,
        "enabled": view.enabled,
        "position": view.position,
        "circuit": health.circuit,
        "circuit_text": view.circuit_words,
        "paused_processes": len(health.paused_until),
        "half_open_processes": health.half_open,
        "trials_running": health.on_trial,
        "next_trial_s": None if view.next_trial_s is None else round(view.next_trial_s, 1),
        "answers": health.answers,
        "failures": health.failures,
        "last_answer_at": _moment(health.last_answer_at),
        "last_failure_at": _moment(health.last_failure_at),
        "last_error": health.last_error,
        "last_took_s": health.last_took_s,
        "recent_errors": [{**error, "at": _moment(error["at"])} for error in health.recent_errors],
    }


def _moment(at: float | None) -> str | None:
    return None if at is None else iso_utc(datetime.fromtimestamp(at, UTC))
