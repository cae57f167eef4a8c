"""The routes that people come for: metadata, video and audio."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.request_state import WAITED_FOR_FETCH
from apps.core.suspend import Suspend, waited_s
from apps.downloads.answer_serializers import InfoAnswerSerializer, MediaAnswerSerializer
from apps.downloads.links import parse_video_id
from apps.downloads.openapi import CONTENT_ERRORS, FIELD_ERRORS, KEY_ERRORS, LIMIT_ERRORS, error_responses
from apps.downloads.request_serializers import AudioRequestSerializer, InfoRequestSerializer, VideoRequestSerializer
from apps.downloads.services.answers import info_answer, info_headers, media_answer
from apps.downloads.services.cache_stats import count_answer
from apps.downloads.services.media import MediaAsk, MediaState, Tier, request_media, wait_for_info, wait_for_new_info
from apps.downloads.views.base import ApiViewSet, base_url
from apps.keys.documents import Scope
from apps.keys.drf import client_address
from apps.keys.limits import link_binding
from apps.telegram_cache.documents import MediaKind

INFO_ANSWERS = {
    200: InfoAnswerSerializer,
    304: OpenApiResponse(description="It has not changed: the ETag is the one in If-None-Match."),
    **error_responses(*FIELD_ERRORS, *KEY_ERRORS, *CONTENT_ERRORS),
}
MEDIA_ANSWERS = {
    200: MediaAnswerSerializer,
    **error_responses(*FIELD_ERRORS, *KEY_ERRORS, *LIMIT_ERRORS, *CONTENT_ERRORS, "quality_unavailable", "conflict"),
}


@extend_schema(tags=["media"], summary="Metadata of a video", responses=INFO_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="info", parameters=[InfoRequestSerializer]),
    create=extend_schema(operation_id="info_post"),
)
class InfoViewSet(ApiViewSet):
    """Metadata of a video: title, channel, duration, pictures, formats with sizes, subtitles, chapters.

    Nothing is downloaded. An answer may be kept for as long as its Cache-Control says; with If-None-Match it is only
    sent again when it has changed (304 else). The first question about a video asks outside, later ones are answered
    from the record; `refresh=1` asks outside again, at most once a minute for each video.
    """

    serializer_class = InfoRequestSerializer
    required_scope = Scope.INFO

    def list(self, request: Request) -> Response:
        return self._answer(request)

    def create(self, request: Request) -> Response:
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        fields = self.fields()
        video_id = parse_video_id(fields["url"])
        self.note(video_id=video_id)
        look = wait_for_new_info if fields["refresh"] else wait_for_info
        info = look(video_id, waited_s=waited_s(request))
        headers = {**info_headers(info), "Vary": "X-API-Key, Authorization"}
        asked = request.headers.get("If-None-Match", "")
        if request.method in ("GET", "HEAD") and _names(headers["ETag"], asked):
            return Response(status=304, headers=headers)
        return Response(info_answer(info, response_time_s=waited_s(request)), headers=headers)


def _names(etag: str, if_none_match: str) -> bool:
    """Weak comparison (RFC 9110): W/"x" and "x" are the same here."""
    tags = {tag.removeprefix("W/") for tag in parse_etags(if_none_match)}
    return bool(tags & {"*", etag.removeprefix("W/")})


class MediaViewSet(ApiViewSet):
    """One kind of media. The answer comes at once, also while the file is still being fetched."""

    required_scope = Scope.MEDIA
    kind: ClassVar[MediaKind]
    wish_field: ClassVar[str]

    def list(self, request: Request) -> Response:
        return self._answer(request)

    def create(self, request: Request) -> Response:
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        fields = self.fields()
        ask = self.ask_of(fields)
        self.note(video_id=ask.video_id)
        state = self._state_of(request, ask, wait_s=fields["wait"])
        tier = Tier.EXTERNAL if WAITED_FOR_FETCH in request._request.META else state.tier
        self.note(asset_id=state.asset.id, tier=tier.value)
        count_answer(state, tier)
        answer = media_answer(
            state,
            base_url=base_url(request),
            key_prefix=request.user.prefix,
            response_time_s=waited_s(request),
            bound_to=link_binding(request.user, client_address(request._request), fields.get("link_ip", "")),
        )
        return Response(answer)

    @classmethod
    def ask_of(cls, fields: dict[str, Any]) -> MediaAsk:
        """What checked fields mean. Raises InvalidUrl."""
        return MediaAsk(
            kind=cls.kind,
            video_id=parse_video_id(fields["url"]),
            wish=fields.get(cls.wish_field),
            options=fields["options"],
        )

    @staticmethod
    def _state_of(request: Request, ask: MediaAsk, *, wait_s: float) -> MediaState:
        """As request_media; a request that has to wait for a fetch is known by that from then on."""
        try:
            return request_media(ask, key_prefix=request.user.prefix, wait_s=wait_s, waited_s=waited_s(request))
        except Suspend as pending:
            if pending.topic.startswith("asset:"):
                request._request.META[WAITED_FOR_FETCH] = True
            raise


@extend_schema(tags=["media"], summary="A video file", responses=MEDIA_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="video", parameters=[VideoRequestSerializer]),
    create=extend_schema(operation_id="video_post"),
)
class VideoViewSet(MediaViewSet):
    """A video (MP4 unless another container is asked for), with links to save it and to play it.

    The links work at once: a stream that is opened early waits until the file can be played.
    Ask again with `wait` to be told when the whole file is there.
    """

    serializer_class = VideoRequestSerializer
    kind = MediaKind.VIDEO
    wish_field = "quality"


@extend_schema(tags=["media"], summary="An audio file", responses=MEDIA_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="audio", parameters=[AudioRequestSerializer]),
    create=extend_schema(operation_id="audio_post"),
)
class AudioViewSet(MediaViewSet):
    """The sound of a video as an audio file, with links to save it and to play it.

    The links work at once: m4a and opus play while they are still arriving.
    """

    serializer_class = AudioRequestSerializer
    kind = MediaKind.AUDIO
    wish_field = "format"
