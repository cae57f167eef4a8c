"""What goes in and out at the admin routes for keys and users. Only a new key's own answer ever holds a secret."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.downloads.answer_serializers import PageAnswerSerializer
from apps.downloads.request_serializers import PageRequestSerializer, WordsField
from apps.keys.changes import DEFAULT_GRACE_S, MAX_GRACE_S
from apps.keys.documents import MAX_NOTES, Scope
from apps.keys.fields import LIMIT_RANGES, MAX_CIDRS, MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_ORIGINS

_LIMIT_HELP = {
    "limit_per_hour": "Requests in any hour.",
    "limit_per_day": "Requests in any 24 hours.",
    "bytes_per_day": "Streamed bytes in any 24 hours.",
    "concurrent_streams": "Streams at the same time.",
    "concurrent_jobs": "Running or waiting fetches at the same time.",
    "longest_video_s": "Seconds of the longest video.",
    "largest_file_bytes": "Bytes of the largest file.",
}


def _limit_fields() -> dict[str, serializers.Field]:
    fields: dict[str, serializers.Field] = {}
    for name, (least, most) in LIMIT_RANGES.items():
        text = f"{_LIMIT_HELP[name]} null: as the user's plan or the default has it{'' if least else '; 0: no limit'}."
        fields[name] = serializers.IntegerField(
            min_value=least, max_value=most, allow_null=True, required=False, help_text=text
        )
    return fields


class LimitsRequestSerializer(serializers.Serializer):
    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), **_limit_fields()}


class KeyChangeRequestSerializer(LimitsRequestSerializer):
    """What is not named stays as it is."""

    name = serializers.CharField(max_length=100, required=False, help_text="What the key is for.")
    owner = serializers.CharField(
        max_length=64, required=False, allow_blank=True, help_text="Username; a new one becomes an API user."
    )
    labels = WordsField(
        required=False, max_length=MAX_LABELS, help_text=f"Words of at most {MAX_LABEL_CHARACTERS} characters."
    )
    scopes = WordsField(required=False, help_text=f"Some of {', '.join(Scope)}.")
    expires_at = serializers.DateTimeField(required=False, allow_null=True, help_text="null: never.")
    allowed_cidrs = WordsField(
        required=False, max_length=MAX_CIDRS, help_text="Networks the key may be used from; empty: all."
    )
    allowed_origins = WordsField(
        required=False,
        max_length=MAX_ORIGINS,
        help_text="Origins of web pages that may use the key from browsers (CORS), such as `https://app.example.com`; "
        "`*`: all; empty: none.",
    )
    bind_links = serializers.BooleanField(
        required=False, allow_null=True, default=None, help_text="Links work only from the address that asked for them."
    )


class KeyCreateRequestSerializer(KeyChangeRequestSerializer):
    name = serializers.CharField(max_length=100, help_text="What the key is for.")


class KeyListRequestSerializer(PageRequestSerializer):
    owner = serializers.CharField(max_length=64, required=False, help_text="Only this user's keys.")


class RotateRequestSerializer(serializers.Serializer):
    grace_s = serializers.IntegerField(
        min_value=0, max_value=MAX_GRACE_S, default=DEFAULT_GRACE_S, help_text="Seconds that the old secret works on."
    )


class UserChangeRequestSerializer(LimitsRequestSerializer):
    """What is not named stays as it is."""

    name = serializers.CharField(max_length=100, required=False, allow_blank=True)
    contact = serializers.CharField(max_length=254, required=False, allow_blank=True)
    notes = serializers.CharField(max_length=MAX_NOTES, required=False, allow_blank=True)
    active = serializers.BooleanField(
        required=False, allow_null=True, default=None, help_text="false: no key of theirs works."
    )


class UserCreateRequestSerializer(UserChangeRequestSerializer):
    username = serializers.RegexField(r"^[A-Za-z0-9._@+-]{1,64}$")


class _LimitsSerializer(serializers.Serializer):
    """null: not set here."""

    def get_fields(self) -> dict[str, Any]:
        limits = {name: serializers.IntegerField(allow_null=True, help_text=_LIMIT_HELP[name]) for name in LIMIT_RANGES}
        return {**super().get_fields(), **limits}


class KeySerializer(_LimitsSerializer):
    prefix = serializers.CharField()
    name = serializers.CharField()
    owner = serializers.CharField(allow_blank=True)
    labels = serializers.ListField(child=serializers.CharField())
    scopes = serializers.ListField(child=serializers.CharField())
    active = serializers.BooleanField()
    expires_at = serializers.DateTimeField(allow_null=True)
    allowed_cidrs = serializers.ListField(child=serializers.CharField())
    allowed_origins = serializers.ListField(child=serializers.CharField())
    bind_links = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(allow_null=True)
    rotated_at = serializers.DateTimeField(allow_null=True)
    old_secret_until = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class UserSerializer(_LimitsSerializer):
    username = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    contact = serializers.CharField(allow_blank=True)
    notes = serializers.CharField(allow_blank=True)
    active = serializers.BooleanField()
    role = serializers.CharField(help_text="none: has keys, may not enter the admin.")
    keys = serializers.IntegerField(help_text="How many keys they have.")
    created_at = serializers.DateTimeField()


class KeyAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    key = KeySerializer()


class NewKeyAnswerSerializer(KeyAnswerSerializer):
    api_key = serializers.CharField(help_text="The key itself. It is shown only here, and stored nowhere.")


@extend_schema_serializer(many=False)
class KeyListAnswerSerializer(PageAnswerSerializer):
    """Newest first."""

    keys = KeySerializer(many=True)


class UserAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
    user = UserSerializer()


@extend_schema_serializer(many=False)
class UserListAnswerSerializer(PageAnswerSerializer):
    """By username."""

    users = UserSerializer(many=True)


class DoneAnswerSerializer(serializers.Serializer):
    status = serializers.BooleanField(help_text="Always true.")
