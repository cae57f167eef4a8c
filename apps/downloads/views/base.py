"""What every route of /api/v1 shares."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.viewsets import GenericViewSet

from apps.core.request_state import ASGI_SCOPE
from apps.core.trace import note
from apps.downloads.fields import read_fields
from apps.downloads.request_serializers import NoFieldsSerializer
from apps.keys.documents import Role, Scope
from apps.keys.drf import HasScope


class ApiViewSet(GenericViewSet):
    """A route: ``serializer_class`` says which fields it takes, ``required_scope`` what a key needs to use it,
    ``counts_requests`` whether they count against its limit. Routes with the scope admin are open to people logged in
    to the admin too: ``role_to_read`` and ``role_to_change`` say with which role (an ``@action`` may set its own)."""

    permission_classes = (HasScope,)
    required_scope: Scope | None = None
    role_to_read = Role.VIEWER
    role_to_change = Role.OPERATOR
    counts_requests = True
    serializer_class: type[Serializer] = NoFieldsSerializer
    pagination_class = None
    filter_backends = ()

    def get_view_name(self) -> str:
        """The heading of the browsable page: "CacheStatsViewSet" is "Cache Stats"."""
        words = re.findall("[A-Z][a-z]+", type(self).__name__.removesuffix("ViewSet"))
        return " ".join(words)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Answers belong to one key and hold links that end: nobody in between may keep them."""
        answer: Response = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    def fields(self) -> dict[str, Any]:
        """The checked fields of this request. Raises InvalidParameter."""
        return read_fields(self.request, self.get_serializer_class())

    def note(self, **facts: Any) -> None:
        """Tell the event record what this request turned out to be."""
        note(self.request.META.get(ASGI_SCOPE), **facts)


def base_url(request: Request) -> str:
    """What links begin with: PUBLIC_URL, else the address this request used (its host is one of ALLOWED_HOSTS)."""
    return settings.ENV.public_url or f"{request.scheme}://{request.get_host()}"
