"""What belongs to a video beside its media: subtitles and its picture."""

from __future__ import annotations

import hashlib

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.suspend import waited_s
from apps.downloads.answer_serializers import SubtitleSerializer
from apps.downloads.links import parse_video_id
from apps.downloads.openapi import CONTENT_ERRORS, FIELD_ERRORS, KEY_ERRORS, LIST_ERRORS, error_responses
from apps.downloads.request_serializers import URL_HELP, NoFieldsSerializer, UrlFields
from apps.downloads.services.subtitles import MIMES, as_text, get_subtitles
from apps.downloads.services.thumbnails import get_thumbnail
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope

LANGUAGE_PATTERN = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,12}){0,3}$"
PICTURE_MAX_AGE_S = 86400


class SubtitlesRequestSerializer(serializers.Serializer):
    url = serializers.CharField(help_text=URL_HELP)
    lang = serializers.RegexField(
        LANGUAGE_PATTERN,
        required=False,
        error_messages={"invalid": "must be a language such as en or pt-BR"},
        help_text="A language such as en or pt-BR. Left out: the answer only lists the languages.",
    )
    format = serializers.ChoiceField([*MIMES, "json"], default="vtt", initial="vtt")


class CueSerializer(serializers.Serializer):
    start_s = serializers.FloatField()
    end_s = serializers.FloatField()
    text = serializers.CharField()


@extend_schema_serializer(many=False)
class SubtitlesAnswerSerializer(serializers.Serializer):
    """The answer as JSON, and where no language is asked for."""

    status = serializers.BooleanField(help_text="Always true.")
    video_id = serializers.CharField()
    language = serializers.CharField(allow_null=True)
    automatic = serializers.BooleanField(help_text="Made by speech recognition.")
    cues = CueSerializer(many=True)
    languages = SubtitleSerializer(many=True)


@extend_schema(tags=["media"])
@extend_schema_view(
    list=extend_schema(
        operation_id="subtitles",
        summary="Subtitles of a video",
        parameters=[SubtitlesRequestSerializer],
        responses={
            (200, "application/json"): SubtitlesAnswerSerializer,
            **{(200, mime): OpenApiTypes.STR for mime in MIMES.values()},
            **error_responses("not_found", *FIELD_ERRORS, *KEY_ERRORS, *CONTENT_ERRORS),
        },
    )
)
class SubtitlesViewSet(ApiViewSet):
    """Subtitles that somebody wrote, or else automatic ones, as vtt, srt, plain text or JSON."""

    serializer_class = SubtitlesRequestSerializer
    required_scope = Scope.INFO

    def list(self, request: Request) -> HttpResponse | Response:
        fields = self.fields()
        video_id, language = parse_video_id(fields["url"]), fields.get("lang", "")
        self.note(video_id=video_id)
        found = get_subtitles(video_id, language, waited_s=waited_s(request))
        cues = found.cues or ()
        if language and fields["format"] != "json":
            mime = MIMES[fields["format"]]
            return HttpResponse(as_text(cues, fields["format"]), content_type=f"{mime}; charset=utf-8")
        return Response(
            {
                "status": True,
                "video_id": video_id,
                "language": language or None,
                "automatic": found.automatic,
                "cues": [
                    {"start_s": cue.start_ms / 1000, "end_s": cue.end_ms / 1000, "text": cue.text} for cue in cues
                ],
                "languages": [track.model_dump() for track in found.available],
            }
        )


@extend_schema(tags=["media"])
@extend_schema_view(
    list=extend_schema(
        operation_id="thumbnail_by_url",
        summary="The picture of a video, by its link",
        parameters=[UrlFields],
        responses={
            (200, "image/jpeg"): OpenApiTypes.BINARY,
            **error_responses("not_found", *FIELD_ERRORS, *KEY_ERRORS, *LIST_ERRORS),
        },
    ),
    retrieve=extend_schema(
        operation_id="thumbnail",
        summary="The picture of a video",
        parameters=[OpenApiParameter("id", str, OpenApiParameter.PATH, description="The 11-character video id.")],
        responses={
            (200, "image/jpeg"): OpenApiTypes.BINARY,
            **error_responses("invalid_url", "not_found", *KEY_ERRORS, *LIST_ERRORS),
        },
    ),
)
class ThumbnailViewSet(ApiViewSet):
    """The picture itself, in the best size that YouTube has."""

    lookup_value_regex = "[A-Za-z0-9_-]{11}"
    required_scope = Scope.INFO

    def get_serializer_class(self) -> type[serializers.Serializer]:
        return UrlFields if self.action == "list" else NoFieldsSerializer

    def list(self, request: Request) -> HttpResponse:
        return picture_answer(request, parse_video_id(self.fields()["url"]))

    def retrieve(self, request: Request, pk: str) -> HttpResponse:
        self.fields()
        return picture_answer(request, pk)


def picture_answer(request: Request, video_id: str) -> HttpResponse:
    picture = get_thumbnail(video_id, waited_s=waited_s(request))
    headers = {
        "Cache-Control": f"private, max-age={PICTURE_MAX_AGE_S}",
        "ETag": f'"{hashlib.sha256(picture.content).hexdigest()[:32]}"',
    }
    return HttpResponse(picture.content, content_type=picture.mime, headers=headers)
