"""Search, playlists and channels."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.suspend import waited_s
from apps.downloads.list_links import parse_channel, parse_playlist_id
from apps.downloads.list_serializers import (
    ChannelRequestSerializer,
    ListAnswerSerializer,
    PlaylistRequestSerializer,
    SearchRequestSerializer,
)
from apps.downloads.openapi import FIELD_ERRORS, KEY_ERRORS, LIST_ERRORS, error_responses
from apps.downloads.providers.listing import ListKind, ListQuestion
from apps.downloads.services.lists import clean_words, get_listing, list_answer
from apps.downloads.views.base import ApiViewSet
from apps.keys.documents import Scope

SEARCH_ANSWERS = {200: ListAnswerSerializer, **error_responses(*FIELD_ERRORS, *KEY_ERRORS, *LIST_ERRORS)}
LIST_ANSWERS = {200: ListAnswerSerializer, **error_responses("not_found", *FIELD_ERRORS, *KEY_ERRORS, *LIST_ERRORS)}


class ListViewSet(ApiViewSet):
    """One kind of list. A page that was asked for before is answered from the record."""

    required_scope = Scope.SEARCH

    def list(self, request: Request) -> Response:
        return self._answer(request)

    def create(self, request: Request) -> Response:
        return self._answer(request)

    def question_of(self, fields: dict[str, Any]) -> tuple[ListKind, str]:
        """What is asked for. Raises InvalidUrl or InvalidParameter."""
        raise NotImplementedError

    def _answer(self, request: Request) -> Response:
        fields = self.fields()
        kind, subject = self.question_of(fields)
        question = ListQuestion(kind=kind, subject=subject, page=fields["page"], page_size=fields["page_size"])
        listing = get_listing(question, waited_s=waited_s(request))
        return Response(list_answer(question, listing, response_time_s=waited_s(request)))


@extend_schema(tags=["lists"], summary="Search for videos", responses=SEARCH_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="search", parameters=[SearchRequestSerializer]),
    create=extend_schema(operation_id="search_post"),
)
class SearchViewSet(ListViewSet):
    """Videos that YouTube finds for some words, best first."""

    serializer_class = SearchRequestSerializer

    def question_of(self, fields: dict[str, Any]) -> tuple[ListKind, str]:
        return ListKind.SEARCH, clean_words(fields["q"])


@extend_schema(tags=["lists"], summary="The videos of a playlist", responses=LIST_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="playlist", parameters=[PlaylistRequestSerializer]),
    create=extend_schema(operation_id="playlist_post"),
)
class PlaylistViewSet(ListViewSet):
    """The videos of a playlist in its order. Private playlists and mixes cannot be read."""

    serializer_class = PlaylistRequestSerializer

    def question_of(self, fields: dict[str, Any]) -> tuple[ListKind, str]:
        return ListKind.PLAYLIST, parse_playlist_id(fields["url"])


@extend_schema(tags=["lists"], summary="The videos of a channel", responses=LIST_ANSWERS)
@extend_schema_view(
    list=extend_schema(operation_id="channel", parameters=[ChannelRequestSerializer]),
    create=extend_schema(operation_id="channel_post"),
)
class ChannelViewSet(ListViewSet):
    """A channel's uploads, newest first."""

    serializer_class = ChannelRequestSerializer

    def question_of(self, fields: dict[str, Any]) -> tuple[ListKind, str]:
        return ListKind.CHANNEL, parse_channel(fields["url"])
