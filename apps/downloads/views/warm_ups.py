"""Warm-ups for programs: lists that are fetched ahead of time, as the command and the admin page make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.errors import NotFound, error_from_code
from apps.downloads import warm_serializers as shapes
from apps.downloads.list_links import parse_playlist_id
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer, PageRequestSerializer
from apps.downloads.services.answers import iso_utc
from apps.downloads.services.warm_limits import is_quiet, next_quiet, warm_limits
from apps.downloads.services.warm_ups import cancel_warm_up, make_warm_up, pause_warm_up, resume_warm_up
from apps.downloads.views.base import ApiViewSet
from apps.downloads.warm_documents import WarmState, WarmUp, WarmUpEntry
from apps.downloads.warm_selectors import failed_entries, find_warm_up, list_warm_ups, recent_warm_counts
from apps.keys.documents import Scope
from apps.keys.drf import client_address
from apps.telegram_cache.documents import MediaKind

ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The warm-up's id.")
_ERRORS = error_responses("invalid_parameter", "invalid_url", "not_found", "conflict", *KEY_ERRORS)
_ONE = {200: shapes.WarmUpAnswerSerializer, **_ERRORS}


def _on_one(name: str, summary: str) -> Any:
    return extend_schema(
        operation_id=f"admin_warm_up_{name}", summary=summary, parameters=[ID], request=None, responses=_ONE
    )


@extend_schema(tags=["admin"])
@extend_schema_view(
    list=extend_schema(
        operation_id="admin_warm_ups",
        summary="The warm-ups, newest first",
        parameters=[PageRequestSerializer],
        responses={200: shapes.WarmUpListAnswerSerializer, **_ERRORS},
    ),
    create=extend_schema(
        operation_id="admin_warm_up_create",
        summary="Keep a list of links, or a playlist, to be fetched ahead of time",
        request=shapes.WarmUpRequestSerializer,
        responses={201: shapes.WarmUpAnswerSerializer, **_ERRORS},
    ),
    retrieve=_on_one("get", "How a warm-up stands, and what could not be fetched"),
    destroy=_on_one("cancel", "Cancel a warm-up"),
    pause=_on_one("pause", "Begin nothing more of a warm-up until it goes on"),
    resume=_on_one("resume", "Go on with a warm-up"),
)
class WarmUpsViewSet(ApiViewSet):
    """Lists that are fetched in quiet hours, behind everybody else. Needs a key with the scope `admin`, or somebody
    logged in to the admin.

    Cancelling one ends what has not ended: files that are there stay, and a fetch that somebody else waits for goes on.
    """

    required_scope = Scope.ADMIN
    lookup_value_regex = "[A-Za-z0-9_-]{1,64}"

    def get_serializer_class(self) -> type:
        kinds: Mapping[str, type] = {"list": PageRequestSerializer, "create": shapes.WarmUpRequestSerializer}
        return kinds.get(self.action or "", NoFieldsSerializer)

    def list(self, request: Request) -> Response:
        fields = self.fields()
        page, page_size = fields["page"], fields["page_size"]
        found, total = list_warm_ups(skip=(page - 1) * page_size, limit=page_size)
        counts = recent_warm_counts([warm_up.id for warm_up in found])
        shown = [_fields(warm_up, counts[warm_up.id]) for warm_up in found]
        return Response({"status": True, "page": page, "page_size": page_size, "total": total, "warm_ups": shown})

    def create(self, request: Request) -> Response:
        fields = self.fields()
        kind = MediaKind(fields["file_type"])
        made = make_warm_up(
            name=fields["name"],
            kind=kind,
            links=fields.get("urls"),
            playlist_id=parse_playlist_id(fields["playlist"]) if "playlist" in fields else "",
            wish=fields.get("quality" if kind is MediaKind.VIDEO else "format"),
            options=fields["options"],
            any_hour=fields["any_hour"],
            created_by=request.user.actor,
        )
        self._record("make", made, after={"name": made.name, "kind": made.kind, "wish": made.wish, "links": made.total,
                                          "playlist": made.playlist_id, "any_hour": made.any_hour})  # fmt: skip
        return self._answer(made, status=201)

    def retrieve(self, request: Request, pk: str) -> Response:
        self.fields()
        return self._answer(_known(pk))

    def destroy(self, request: Request, pk: str) -> Response:
        return self._steer(pk, "cancel")

    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        return self._steer(pk, "pause")

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        return self._steer(pk, "resume")

    def _steer(self, pk: str, what: str) -> Response:
        self.fields()
        before = _known(pk)
        {"pause": pause_warm_up, "resume": resume_warm_up, "cancel": cancel_warm_up}[what](pk)
        after = _known(pk)
        self._record(what, after, before={"state": before.state}, after={"state": after.state})
        return self._answer(after)

    def _record(
        self, what: str, warm_up: WarmUp, *, after: Mapping[str, Any], before: Mapping[str, Any] | None = None
    ) -> None:
        address = client_address(self.request._request)
        audit.record(
            actor=self.request.user.actor, action=f"warm_up.{what}", target_kind="warm_up", target_id=warm_up.id,
            before=before, after=after, address=address,
        )  # fmt: skip

    @staticmethod
    def _answer(warm_up: WarmUp, *, status: int = 200) -> Response:
        counts = recent_warm_counts([warm_up.id])[warm_up.id]
        failed = failed_entries(warm_up.id, limit=shapes.SHOWN_FAILURES)
        shown = {"warm_up": _fields(warm_up, counts), "failures": [_failure(entry) for entry in failed]}
        return Response({"status": True, **shown}, status=status)


def _known(warm_up_id: str) -> WarmUp:
    warm_up = find_warm_up(warm_up_id)
    if warm_up is None:
        raise NotFound("There is no such warm-up.")
    return warm_up


def _failure(entry: WarmUpEntry) -> dict[str, Any]:
    error = error_from_code(entry.error_code or "internal_error", entry.error_message or "")
    about = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return {"url": entry.link, "failure": about}


def _fields(warm_up: WarmUp, counts: Mapping[str, int]) -> dict[str, Any]:
    limits, now = warm_limits(), utcnow()
    waits = warm_up.state == WarmState.RUNNING and not warm_up.any_hour and not is_quiet(limits, now)
    return {
        **{name: getattr(warm_up, name) for name in ("id", "name", "wish", "state", "any_hour", "reading", "total")},
        "file_type": warm_up.kind,
        "begins_at": iso_utc(next_quiet(limits, now)) if waits else None,
        "playlist_id": warm_up.playlist_id or None,
        "problem": warm_up.problem,
        "counts": dict(counts),
        "created_by": warm_up.created_by,
        "created_at": iso_utc(warm_up.created_at),
        "finished_at": iso_utc(warm_up.finished_at),
    }
