"""What the dialects share: keys in ``?api=``, errors with ``"status": "error"``, links, waiting a little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.api_errors import handle_exception
from apps.core.request_state import ASGI_SCOPE
from apps.core.trace import note
from apps.downloads.services.answers import media_answer
from apps.downloads.services.cache_stats import count_polled_answer
from apps.downloads.services.media import MediaState
from apps.downloads.views.base import base_url
from apps.keys.authentication import grant_for_prefix
from apps.keys.documents import Scope
from apps.keys.drf import ApiKeyAuthentication, HasScope, client_address
from apps.keys.limits import link_binding
from apps.telegram_cache.documents import MediaKind

_YES = frozenset({"true", "1", "yes", "on"})


class DialectKeyAuthentication(ApiKeyAuthentication):
    """Takes the key also from ``?api=``, and from a POST's fields ``api_key`` and ``api``."""

    def raw_key(self, request: Request) -> str | None:
        given = fields_of(request)
        return super().raw_key(request) or given.get("api", "").strip() or given.get("api_key", "").strip() or None


def fields_of(request: Request) -> dict[str, str]:
    """A request's fields as texts, whatever else there is; of a POST, the body wins over the query."""
    fields = {name: str(value) for name, value in request.query_params.items()}
    if request.method == "POST" and isinstance(request.data, Mapping):
        fields |= {name: "" if value is None else str(value) for name, value in request.data.items()}
    return fields


def is_yes(text: str | None) -> bool:
    """ "true", "True", "1"... mean yes; anything else, and nothing, mean no."""
    return (text or "").strip().lower() in _YES


def kind_of(is_video: bool) -> MediaKind:
    return MediaKind.VIDEO if is_video else MediaKind.AUDIO


@extend_schema(exclude=True)
class DialectView(APIView):
    """One address of a dialect. Errors keep the dialect's shape and the HTTP status of /api/v1."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (DialectKeyAuthentication,)
    permission_classes = (HasScope,)
    required_scope: Scope | None = Scope.MEDIA
    renderer_classes = (JSONRenderer,)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], HttpResponseBase]:
        return _error_in_shape

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Answers hold links that end: nobody in between may keep them."""
        answer: Response = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    def note(self, **facts: Any) -> None:
        """Tell the event record what this request turned out to be."""
        note(self.request.META.get(ASGI_SCOPE), **facts)

    def describe(self, state: MediaState, *, key_prefix: str) -> dict[str, Any]:
        """The file as /api/v1 describes it; counts the answer."""
        self.note(video_id=state.asset.video_id, asset_id=state.asset.id, tier=state.tier.value)
        count_polled_answer(state, key_prefix=key_prefix)
        return media_answer(
            state,
            base_url=base_url(self.request),
            key_prefix=key_prefix,
            response_time_s=0.0,
            bound_to=self.binding(key_prefix),
        )

    def binding(self, key_prefix: str) -> str:
        """What links for this caller are bound to, when the key says so."""
        return link_binding(grant_for_prefix(key_prefix), client_address(self.request._request))


def _error_in_shape(error: Exception, context: dict[str, Any]) -> HttpResponseBase:
    response = handle_exception(error, context)
    if isinstance(response, Response):  # else it is a suspended one
        response.data = {**response.data, "status": "error"}
    return response
