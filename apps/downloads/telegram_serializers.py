"""What goes in and out at the admin routes for Telegram. No answer ever holds a token."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.telegram_cache.services.channels import MAX_CHANNEL_CHARACTERS, MAX_MESSAGES_PER_MIN


class TokenRequestSerializer(serializers.Serializer):
    token = serializers.CharField(
        max_length=200, write_only=True, style={"input_type": "password"}, help_text="From BotFather. In the body only."
    )


class TelegramChannelRequestSerializer(serializers.Serializer):
    channel = serializers.CharField(
        max_length=MAX_CHANNEL_CHARACTERS,
        help_text="Its id, such as -1001234567890, its @name, or the link of one of its messages.",
    )
    make_default = serializers.BooleanField(default=True, help_text="Send new media there.")


class ChannelSettingsRequestSerializer(serializers.Serializer):
    scratch_chat = serializers.CharField(
        required=False,
        max_length=MAX_CHANNEL_CHARACTERS,
        help_text="Where short-lived copies go, named as a channel is; `none`: into the channel itself.",
    )
    playable = serializers.BooleanField(
        required=False, allow_null=True, default=None, help_text="Also post new media up to 50 MB playable."
    )
    messages_per_min = serializers.IntegerField(
        required=False, min_value=1, max_value=MAX_MESSAGES_PER_MIN, help_text="How many each bot sends there at most."
    )


class BotSerializer(serializers.Serializer):
    bot_id = serializers.CharField()
    username = serializers.CharField()
    state = serializers.CharField(source="state_now", help_text="active, cooling or disabled.")
    reason = serializers.CharField(source="reason_now", help_text="Why, when it is not active.")
    until = serializers.DateTimeField(source="until_now", allow_null=True, help_text="When a cooling bot goes on.")
    barred = serializers.DictField(child=serializers.CharField(), help_text="Channels it cannot post in, and why.")
    checked_at = serializers.DateTimeField(allow_null=True)


class ChannelSerializer(serializers.Serializer):
    channel_id = serializers.CharField()
    title = serializers.CharField()
    username = serializers.CharField()
    state = serializers.CharField()
    reason = serializers.CharField()
    is_default = serializers.BooleanField()
    playable = serializers.BooleanField()
    scratch_chat_id = serializers.CharField()
    messages_per_min = serializers.IntegerField()
    checked_at = serializers.DateTimeField(allow_null=True)


class AlertSerializer(serializers.Serializer):
    kind = serializers.CharField()
    id = serializers.CharField()
    text = serializers.CharField()
    fix = serializers.CharField()


class FindingSerializer(serializers.Serializer):
    bot_id = serializers.CharField()
    channel_id = serializers.CharField()
    ok = serializers.BooleanField()
    text = serializers.CharField()
    fix = serializers.CharField()


class BotAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    bot = BotSerializer()


@extend_schema_serializer(many=False)
class BotListAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    bots = BotSerializer(many=True)
    alerts = AlertSerializer(many=True)


class ChannelAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    channel = ChannelSerializer()
    findings = FindingSerializer(many=True)


@extend_schema_serializer(many=False)
class ChannelListAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    channels = ChannelSerializer(many=True)


class CheckAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField()
    ok = serializers.BooleanField(help_text="Whether nothing has to be fixed.")
    findings = FindingSerializer(many=True)
