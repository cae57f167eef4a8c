"""Telegram bots and channels for programs: the same as the commands and the admin pages do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import audit
from apps.core.errors import InvalidParameter
from apps.downloads import telegram_serializers as shapes
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope
from apps.keys.drf import client_address
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.documents import AUDITED, TelegramBot, TelegramChannel
from apps.telegram_cache.selectors import all_bots, all_channels
from apps.telegram_cache.services.bot_records import known_bot, known_channel
from apps.telegram_cache.services.bots import add_bot, check_all, disable_bot, enable_bot, replace_token
from apps.telegram_cache.services.channels import (
    add_channel,
    disable_channel,
    enable_channel,
    make_channel_default,
    set_messages_per_min,
    set_playable,
    set_scratch_chat,
)
from apps.telegram_cache.services.checks import Finding

BOT_ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The bot's number.")
CHANNEL_ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The channel's number.")
_ERRORS = error_responses("invalid_parameter", "not_found", "upstream_unreachable", *KEY_ERRORS)
_BOT = {200: shapes.BotAnswerSerializer, **_ERRORS}
_CHANNEL = {200: shapes.ChannelAnswerSerializer, **_ERRORS}


def _on_bot(name: str, summary: str, request: Any = None) -> Any:
    return extend_schema(
        operation_id=f"admin_bot_{name}", summary=summary, parameters=[BOT_ID], request=request, responses=_BOT
    )


def _on_channel(name: str, summary: str, request: Any = None) -> Any:
    return extend_schema(
        operation_id=f"admin_channel_{name}", summary=summary, parameters=[CHANNEL_ID], request=request,
        responses=_CHANNEL,
    )  # fmt: skip


class _AdminViewSet(ApiViewSet):
    required_scope = Scope.ADMIN
    serializers: Mapping[str, type] = {}

    def get_serializer_class(self) -> type:
        return self.serializers.get(self.action or "", NoFieldsSerializer)

    def _record(self, what: str, *, kind: str, target_id: str, after: Mapping[str, Any] | None = None) -> None:
        actor = self.request.user.actor
        address = client_address(self.request._request)
        audit.record(actor=actor, action=what, target_kind=kind, target_id=target_id, after=after, address=address)


@extend_schema(tags=["admin"])
@extend_schema_view(
    list=extend_schema(
        operation_id="admin_bots",
        summary="The bots, and everything that needs attention",
        responses={200: shapes.BotListAnswerSerializer, **_ERRORS},
    ),
    create=extend_schema(
        operation_id="admin_bot_add",
        summary="Add a bot after checking its token",
        request=shapes.TokenRequestSerializer,
        responses=_BOT,
    ),
    check=extend_schema(
        operation_id="admin_telegram_check",
        summary="Ask Telegram about every bot and its rights",
        request=None,
        responses={200: shapes.CheckAnswerSerializer, **_ERRORS},
    ),
    token=_on_bot("token", "Give a bot its new token", shapes.TokenRequestSerializer),
    disable=_on_bot("disable", "Stop using a bot"),
    enable=_on_bot("enable", "Use a bot again"),
)
class BotsViewSet(_AdminViewSet):
    """Bots that store and read media. Needs a key with the scope `admin`. Tokens go in, and never come out."""

    lookup_value_regex = r"\d{1,20}"
    serializers = {"create": shapes.TokenRequestSerializer, "token": shapes.TokenRequestSerializer}

    def list(self, request: Request) -> Response:
        self.fields()
        return Response(
            {
                "status": True,
                "bots": [_bot_fields(bot) for bot in all_bots()],
                "alerts": [shapes.AlertSerializer(alert).data for alert in alerts()],
            }
        )

    def create(self, request: Request) -> Response:
        return self._changed("bot.add", add_bot(self._token()))

    @action(detail=False, methods=["post"])
    def check(self, request: Request) -> Response:
        self.fields()
        findings = check_all()
        ok = bool(findings) and all(finding.ok for finding in findings)
        return Response({"status": True, "ok": ok, "findings": _finding_fields(findings)})

    @action(detail=True, methods=["post"])
    def token(self, request: Request, pk: str) -> Response:
        return self._changed("bot.token", replace_token(pk, self._token()))

    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        self.fields()
        disable_bot(pk)
        return self._changed("bot.disable", known_bot(pk))

    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: str) -> Response:
        self.fields()
        return self._changed("bot.enable", enable_bot(pk))

    def _token(self) -> str:
        if "token" in self.request.query_params:
            raise InvalidParameter("token: send it in the body; addresses end up in logs.", parameter="token")
        return str(self.fields()["token"])

    def _changed(self, what: str, bot: TelegramBot) -> Response:
        after = {"username": bot.username, "state": bot.state}
        self._record(what, kind="bot", target_id=bot.bot_id, after=after)
        return Response({"status": True, "bot": _bot_fields(bot)})


@extend_schema(tags=["admin"])
@extend_schema_view(
    list=extend_schema(
        operation_id="admin_channels",
        summary="The channels",
        responses={200: shapes.ChannelListAnswerSerializer, **_ERRORS},
    ),
    create=extend_schema(
        operation_id="admin_channel_add",
        summary="Add a channel after checking that a bot can post in it",
        request=shapes.TelegramChannelRequestSerializer,
        responses=_CHANNEL,
    ),
    change_settings=_on_channel(
        "settings", "Scratch chat and playable copies of a channel", shapes.ChannelSettingsRequestSerializer
    ),
    default=_on_channel("default", "Send new media to a channel"),
    disable=_on_channel("disable", "Send nothing new to a channel"),
    enable=_on_channel("enable", "Use a channel again"),
)
class ChannelsViewSet(_AdminViewSet):
    """Channels that hold media. Needs a key with the scope `admin`. What a disabled one holds stays readable."""

    lookup_value_regex = r"-?\d{1,20}"
    serializers = {
        "create": shapes.TelegramChannelRequestSerializer,
        "change_settings": shapes.ChannelSettingsRequestSerializer,
    }

    def list(self, request: Request) -> Response:
        self.fields()
        return Response({"status": True, "channels": [_channel_fields(channel) for channel in all_channels()]})

    def create(self, request: Request) -> Response:
        fields = self.fields()
        channel, findings = add_channel(fields["channel"], make_default=fields["make_default"])
        return self._changed("channel.add", channel, findings)

    @action(detail=True, methods=["post"], url_path="settings")  # REST framework's views have ``settings`` of their own
    def change_settings(self, request: Request, pk: str) -> Response:
        fields = self.fields()
        channel = known_channel(pk)
        if "scratch_chat" in fields:
            channel = set_scratch_chat(pk, "" if fields["scratch_chat"] == "none" else fields["scratch_chat"])
        if fields["playable"] is not None:
            channel = set_playable(pk, fields["playable"])
        if "messages_per_min" in fields:
            channel = set_messages_per_min(pk, fields["messages_per_min"])
        return self._changed("channel.settings", channel)

    @action(detail=True, methods=["post"])
    def default(self, request: Request, pk: str) -> Response:
        self.fields()
        make_channel_default(pk)
        return self._changed("channel.default", known_channel(pk))

    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        self.fields()
        disable_channel(pk)
        return self._changed("channel.disable", known_channel(pk))

    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: str) -> Response:
        self.fields()
        channel, findings = enable_channel(pk)
        return self._changed("channel.enable", channel, findings)

    def _changed(self, what: str, channel: TelegramChannel, findings: Sequence[Finding] = ()) -> Response:
        after = {name: getattr(channel, name) for name in AUDITED}
        self._record(what, kind="channel", target_id=channel.channel_id, after=after)
        answer = {"status": True, "channel": _channel_fields(channel), "findings": _finding_fields(findings)}
        return Response(answer)


def _bot_fields(bot: TelegramBot) -> Any:
    return shapes.BotSerializer(bot).data


def _channel_fields(channel: TelegramChannel) -> Any:
    fields = dict(shapes.ChannelSerializer(channel).data)
    return {**fields, "reason": channel.reason or channel.alert}


def _finding_fields(findings: Sequence[Finding]) -> Any:
    return shapes.FindingSerializer(findings, many=True).data
