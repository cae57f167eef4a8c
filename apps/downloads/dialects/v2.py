"""The dialect "v2": ``/youtube/v2/download`` orders a file, ``/youtube/jobStatus`` tells how it is coming along.

A file that is ready is in the first answer (``job_id`` null). Some bots insist on a job even then: below ``/queued/``
the same addresses always give one.
"""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.clock import utcnow
from apps.core.errors import ApiError, NotFound, Overloaded
from apps.core.suspend import Suspend, waited_s
from apps.downloads.dialects.base import DialectView, fields_of, is_yes, kind_of
from apps.downloads.dialects.finding import find_media
from apps.downloads.documents import JobState, MediaTicket
from apps.downloads.selectors import find_ticket
from apps.downloads.services.cache_stats import note_polled
from apps.downloads.services.media import MediaState, Tier
from apps.downloads.services.tickets import make_ticket
from apps.keys.authentication import grant_for_prefix
from apps.keys.drf import client_address
from apps.keys.limits import charge_failure
from apps.telegram_cache.documents import MediaKind

READY_WAIT_S = 1.0


class DownloadView(DialectView):
    """Order a file, by link, id or words."""

    always_queued = False

    def get(self, request: Request) -> Response:
        return self._answer(request)

    def post(self, request: Request) -> Response:
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        fields = fields_of(request)
        query, kind = fields.get("query", ""), kind_of(is_yes(fields.get("isVideo")))
        waited = waited_s(request)
        try:
            state = find_media(query, kind, grant=request.user, wait_s=0, waited_s=waited)
        except Suspend:
            if waited < READY_WAIT_S:
                raise
        else:
            if state.tier is not Tier.EXTERNAL and not self.always_queued:
                return Response(ready(self.describe(state, key_prefix=request.user.prefix)))
        ticket = make_ticket(query=query, kind=kind, key_prefix=request.user.prefix)
        return Response({"status": "queued", "job_id": ticket.id})


class JobStatusView(DialectView):
    """How an order stands. Its id is enough: no key is needed, but the key that ordered must still be good."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = ()
    permission_classes = (AllowAny,)
    required_scope = None

    def get(self, request: Request) -> Response:
        return self._answer(request)

    def post(self, request: Request) -> Response:
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        ticket = find_ticket(fields_of(request).get("job_id", ""))
        if ticket is None:
            charge_failure(client_address(request._request))
            raise NotFound("There is no such job.")
        return Response({"status": "success", "job": {"id": ticket.id, **self._job(ticket)}})

    def _job(self, ticket: MediaTicket) -> dict[str, Any]:
        grant = grant_for_prefix(ticket.key_prefix)
        age_s = (utcnow() - ticket.created_at).total_seconds()
        try:
            state = find_media(ticket.query, MediaKind(ticket.kind), grant=grant, wait_s=0, waited_s=age_s)
        except (Suspend, Overloaded):
            return {"status": "queued", "result": {}}
        except ApiError as error:
            self.note(error=error.code)
            return {"status": "error", "result": {}, "error": error.code, "message": error.message}
        if state.tier is Tier.EXTERNAL:
            note_polled(state, key_prefix=grant.prefix)
            return {"status": _pending(state), "result": {}}
        return {"status": "done", "result": _result(self.describe(state, key_prefix=grant.prefix))}


def _pending(state: MediaState) -> str:
    return "processing" if state.job is not None and state.job.state == JobState.RUNNING else "queued"


def ready(file: dict[str, Any]) -> dict[str, Any]:
    """The answer that needs no job: ``file`` is the one of /api/v1."""
    return {"status": "success", "job_id": None, "result": _result(file)}


def _result(file: dict[str, Any]) -> dict[str, Any]:
    """The same link under each name that some bot reads."""
    names = ("cdn", "cdnurl", "public_url", "download_url", "url")
    return {
        "success": True,
        **dict.fromkeys(names, file["download_url"]),
        "id": file["video_id"],
        "title": file["title"],
        "duration": file["duration_seconds"] or 0,
        "thumbnail": file["thumbnail"],
        "format": file["container"],
    }
