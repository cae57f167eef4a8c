"""Cookies, proxies and PO tokens of yt-dlp for programs, as the command and the page have them. No secret comes out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import InvalidParameter
from apps.downloads.documents import IdentityKind, ProxyUse
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer
from apps.downloads.services.answers import iso_utc
from apps.downloads.services.identities import (
    Actor,
    IdentityView,
    add_cookies,
    add_po_tokens,
    add_proxy,
    remove_identity,
    set_identity_enabled,
    view_identities,
)
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope
from apps.keys.drf import client_address

ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Its id, as the list gives it.")
_TIMES = ("resting_until", "last_used_at", "last_answer_at", "last_failure_at")
_ERRORS = error_responses("invalid_parameter", "not_found", "conflict", *KEY_ERRORS)


class CookiesRequestSerializer(serializers.Serializer):
    name = serializers.CharField(max_length=64, help_text="Your own name for them. One that exists is replaced.")
    cookies = serializers.CharField(
        max_length=60_000,
        write_only=True,
        trim_whitespace=False,
        style={"base_template": "textarea.html"},
        help_text="The text of a cookies.txt (Netscape format). In the body only.",
    )


class ProxyRequestSerializer(serializers.Serializer):
    name = serializers.CharField(max_length=64, help_text="Your own name for it. One that exists is replaced.")
    proxy = serializers.CharField(
        max_length=500,
        write_only=True,
        style={"input_type": "password"},
        help_text="Its address, such as `http://user:password@host:8080` or `socks5://host:1080`. In the body only.",
    )
    use = serializers.ChoiceField(
        [use.value for use in ProxyUse],
        default=ProxyUse.BOTH.value,
        help_text="What for: asking YouTube about videos (`extract`), fetching media (`download`), or both.",
    )


class PoTokensRequestSerializer(serializers.Serializer):
    name = serializers.CharField(max_length=64, help_text="Your own name for them. Those that exist are replaced.")
    tokens = serializers.CharField(
        max_length=16 * 1024,
        write_only=True,
        style={"base_template": "textarea.html"},
        help_text="One a line: `CLIENT.CONTEXT+TOKEN` (contexts: gvs, player, subs), and `visitor_data=...` as a line "
        "when they were made for a visitor. In the body only.",
    )


class IdentitySerializer(serializers.Serializer):
    id = serializers.CharField()
    kind = serializers.ChoiceField([kind.value for kind in IdentityKind])
    name = serializers.CharField()
    about = serializers.CharField(help_text="In a few words; nothing secret.")
    use = serializers.ChoiceField([use.value for use in ProxyUse], allow_null=True, help_text="Of proxies.")
    state = serializers.ChoiceField(["ready", "resting", "off"])
    resting_until = serializers.DateTimeField(allow_null=True)
    strikes = serializers.IntegerField(help_text="Failures since the last answer. Each doubles the next rest.")
    answers = serializers.IntegerField()
    failures = serializers.IntegerField()
    last_error = serializers.CharField(allow_blank=True)
    reason = serializers.CharField(allow_blank=True, help_text="The last error in words.")
    last_used_at = serializers.DateTimeField(allow_null=True)
    last_answer_at = serializers.DateTimeField(allow_null=True)
    last_failure_at = serializers.DateTimeField(allow_null=True)


class IdentityAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    identity = IdentitySerializer()


@extend_schema_serializer(many=False)
class IdentityListAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    identities = IdentitySerializer(many=True)


class RemovedAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    removed = serializers.CharField(help_text="Its id.")


class _IdentitiesViewSet(ApiViewSet):
    required_scope = Scope.ADMIN
    lookup_value_regex = "[0-9a-f]{1,32}"
    kind: ClassVar[IdentityKind]
    request_serializer: ClassVar[type[serializers.Serializer]]
    body_field: ClassVar[str]

    def get_serializer_class(self) -> type:
        return self.request_serializer if self.action == "create" else NoFieldsSerializer

    def list(self, request: Request) -> Response:
        self.fields()
        return Response({"status": True, "identities": [_fields(view) for view in view_identities(self.kind)]})

    def create(self, request: Request) -> Response:
        if self.body_field in request.query_params:
            raise InvalidParameter(
                f"{self.body_field}: send it in the body; addresses end up in logs.", parameter=self.body_field
            )
        return self._answer(self._add(self.fields()))

    def destroy(self, request: Request, pk: str) -> Response:
        self.fields()
        remove_identity(pk, kind=self.kind, actor=self._actor())
        return Response({"status": True, "removed": pk})

    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: str) -> Response:
        return self._switch(pk, enabled=True)

    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        return self._switch(pk, enabled=False)

    def _add(self, fields: dict[str, Any]) -> IdentityView:
        raise NotImplementedError

    def _switch(self, pk: str, *, enabled: bool) -> Response:
        self.fields()
        return self._answer(set_identity_enabled(pk, enabled=enabled, kind=self.kind, actor=self._actor()))

    def _actor(self) -> Actor:
        return Actor(name=self.request.user.actor, address=client_address(self.request._request))

    def _answer(self, view: IdentityView) -> Response:
        return Response({"status": True, "identity": _fields(view)})


def _documented(name: str, thing: str, request: type) -> Any:
    one, removed = {200: IdentityAnswerSerializer, **_ERRORS}, {200: RemovedAnswerSerializer, **_ERRORS}

    def on_one(what: str, summary: str, answer: Any) -> Any:
        operation = f"admin_{name}_{what}"
        return extend_schema(
            operation_id=operation, summary=summary, parameters=[ID], request=None, responses=answer, tags=["admin"]
        )

    return extend_schema_view(
        list=extend_schema(
            operation_id=f"admin_{name}", summary=f"The {thing} that yt-dlp may use, and how they are doing",
            responses={200: IdentityListAnswerSerializer, **_ERRORS}, tags=["admin"],
        ),
        create=extend_schema(
            operation_id=f"admin_{name}_add", summary=f"Add {thing}, or replace those of that name", request=request,
            responses=one, tags=["admin"],
        ),
        destroy=on_one("remove", f"Delete {thing}", removed),
        enable=on_one("enable", f"Use {thing} again, at once", one),
        disable=on_one("disable", f"Stop using {thing}", one),
    )  # fmt: skip


@_documented("cookies", "cookies", CookiesRequestSerializer)
class CookiesViewSet(_IdentitiesViewSet):
    """Cookies for YouTube. Needs a key with the scope `admin`. They go in, and never come out."""

    kind = IdentityKind.COOKIES
    request_serializer = CookiesRequestSerializer
    body_field = "cookies"

    def _add(self, fields: dict[str, Any]) -> IdentityView:
        return add_cookies(fields["name"], fields["cookies"], actor=self._actor())


@_documented("proxies", "proxies", ProxyRequestSerializer)
class ProxiesViewSet(_IdentitiesViewSet):
    """Proxies for YouTube. Needs a key with the scope `admin`. Addresses go in; passwords never come out."""

    kind = IdentityKind.PROXY
    request_serializer = ProxyRequestSerializer
    body_field = "proxy"

    def _add(self, fields: dict[str, Any]) -> IdentityView:
        return add_proxy(fields["name"], fields["proxy"], use=ProxyUse(fields["use"]), actor=self._actor())


@_documented("po_tokens", "PO tokens", PoTokensRequestSerializer)
class PoTokensViewSet(_IdentitiesViewSet):
    """PO tokens for YouTube. Needs a key with the scope `admin`. They go in, and never come out."""

    kind = IdentityKind.PO_TOKEN
    request_serializer = PoTokensRequestSerializer
    body_field = "tokens"

    def _add(self, fields: dict[str, Any]) -> IdentityView:
        return add_po_tokens(fields["name"], fields["tokens"], actor=self._actor())


def _fields(view: IdentityView) -> dict[str, Any]:
    shown = asdict(view)
    return {**shown, **{name: iso_utc(shown[name]) for name in _TIMES}}
