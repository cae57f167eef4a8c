"""Many files at once."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import NotFound, ScopeMissing
from apps.core.request_state import MADE_BATCH
from apps.core.suspend import Suspend, waited_s
from apps.downloads.batch_serializers import (
    BatchAnswerSerializer,
    BatchListAnswerSerializer,
    BatchRequestSerializer,
    BatchWaitSerializer,
)
from apps.downloads.documents import Batch
from apps.downloads.list_links import parse_playlist_id
from apps.downloads.openapi import FIELD_ERRORS, KEY_ERRORS, LIST_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer, PageRequestSerializer
from apps.downloads.selectors import find_batch, list_batches
from apps.downloads.services.batch_answers import batch_answer, batch_summary
from apps.downloads.services.batch_turns import revive
from apps.downloads.services.batches import cancel_batch, make_batch, playlist_links
from apps.downloads.views.base import ApiViewSet, base_url
from apps.keys.documents import Scope
from apps.keys.drf import client_address
from apps.keys.limits import link_binding
from apps.telegram_cache.documents import MediaKind

BATCH_ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The batch's id.")


@extend_schema(tags=["lists"])
@extend_schema_view(
    list=extend_schema(
        operation_id="batches",
        summary="Your batches, newest first",
        parameters=[PageRequestSerializer],
        responses={200: BatchListAnswerSerializer, **error_responses("invalid_parameter", *KEY_ERRORS)},
    ),
    create=extend_schema(
        operation_id="batch_post",
        summary="Fetch up to 50 links, or a playlist",
        responses={
            200: BatchAnswerSerializer,
            **error_responses("not_found", "too_many_jobs", *FIELD_ERRORS, *KEY_ERRORS, *LIST_ERRORS),
        },
    ),
    retrieve=extend_schema(
        operation_id="batch",
        summary="How a batch stands",
        parameters=[BATCH_ID, BatchWaitSerializer],
        responses={200: BatchAnswerSerializer, **error_responses("invalid_parameter", "not_found", *KEY_ERRORS)},
    ),
    destroy=extend_schema(
        operation_id="batch_cancel",
        summary="Cancel a batch",
        parameters=[BATCH_ID],
        responses={200: BatchAnswerSerializer, **error_responses("not_found", *KEY_ERRORS)},
    ),
)
class BatchViewSet(ApiViewSet):
    """Fetches that need not be there at once: they give way to those that somebody waits for.

    Each entry has its own job or its own error. A batch can be looked at for a week, by the key that made it.
    Cancelling it ends what has not ended: files that are there stay, and a fetch that somebody else waits for goes on.
    """

    lookup_value_regex = "[A-Za-z0-9_-]{1,64}"
    required_scope = Scope.MEDIA

    def get_serializer_class(self) -> type:
        if self.action == "list":
            return PageRequestSerializer
        if self.action == "retrieve":
            return BatchWaitSerializer
        return NoFieldsSerializer if self.action == "destroy" else BatchRequestSerializer

    def list(self, request: Request) -> Response:
        fields = self.fields()
        page, page_size = fields["page"], fields["page_size"]
        batches, total = list_batches(key_prefix=request.user.prefix, skip=(page - 1) * page_size, limit=page_size)
        about = {"status": True, "page": page, "page_size": page_size, "total": total}
        return Response({**about, "batches": [batch_summary(batch) for batch in batches]})

    def create(self, request: Request) -> Response:
        fields = self.fields()
        made = request._request.META.get(MADE_BATCH)
        batch = find_batch(made) if made else None
        if batch is None:
            batch = self._make(request, fields)
            request._request.META[MADE_BATCH] = batch.id
        return self._answer(request, batch, wait_s=fields["wait"])

    def _make(self, request: Request, fields: dict[str, Any]) -> Batch:
        truncated = False
        if "playlist" in fields:
            if Scope.SEARCH not in request.user.scopes:
                raise ScopeMissing(f"This API key does not have the scope {Scope.SEARCH.value}.")
            playlist_id = parse_playlist_id(fields["playlist"])
            links, truncated = playlist_links(playlist_id, waited_s=waited_s(request))
        else:
            links = list(dict.fromkeys(fields["urls"]))
        kind = MediaKind(fields["file_type"])
        return make_batch(
            links,
            kind=kind,
            wish=fields.get("quality" if kind is MediaKind.VIDEO else "format"),
            options=fields["options"],
            key_prefix=request.user.prefix,
            truncated=truncated,
        )

    def retrieve(self, request: Request, pk: str) -> Response:
        fields = self.fields()
        batch = self._own_batch(request, pk)
        revive(batch)
        return self._answer(request, batch, wait_s=fields["wait"])

    def destroy(self, request: Request, pk: str) -> Response:
        self.fields()
        return self._answer(request, cancel_batch(self._own_batch(request, pk)), wait_s=0)

    @staticmethod
    def _own_batch(request: Request, batch_id: str) -> Batch:
        batch = find_batch(batch_id)
        if batch is None or (batch.key_prefix != request.user.prefix and Scope.ADMIN not in request.user.scopes):
            raise NotFound("There is no such batch.")
        return batch

    @staticmethod
    def _answer(request: Request, batch: Batch, *, wait_s: float) -> Response:
        answer = batch_answer(
            batch,
            base_url=base_url(request),
            key_prefix=request.user.prefix,
            bound_to=link_binding(request.user, client_address(request._request)),
        )
        if answer["state"] == "running" and waited_s(request) < wait_s:
            raise Suspend(f"batch:{batch.id}")
        return Response({"status": True, **answer})
