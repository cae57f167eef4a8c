"""How the OpenAPI document names the ways to send a key, and the errors of each route."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse

from apps.core.errors import ERRORS_BY_CODE
from apps.downloads.serializers import ErrorSerializer


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # its __init_subclass__
    target_class = "apps.keys.drf.ApiKeyAuthentication"
    name = ["apiKeyHeader", "apiKeyBearer", "apiKeyQuery"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        """Any one of them is enough."""
        return [{name: []} for name in self.name]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "query", "name": "api_key"},
        ]


FIELD_ERRORS = ("invalid_url", "invalid_parameter", "too_large", "unsupported_media_type")
KEY_ERRORS = ("key_missing", "key_invalid", "key_expired", "key_disabled", "scope_missing", "rate_limited")
SERVER_ERRORS = ("internal_error", "not_ready", "overloaded")
CONTENT_ERRORS = (
    "video_unavailable", "video_private", "age_restricted", "geo_blocked", "live_not_supported", "drm_protected",
    "upstream_error", "bot_check", "upstream_unreachable", "upstream_timeout",
)  # fmt: skip


def error_responses(*codes: str) -> dict[int, OpenApiResponse]:
    """The documented error answers of a route, by status; the description lists the codes of each."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *SERVER_ERRORS):
        by_status.setdefault(ERRORS_BY_CODE[code].status, []).append(code)
    return {
        status: OpenApiResponse(ErrorSerializer, description=", ".join(f"`{code}`" for code in codes_of_status))
        for status, codes_of_status in sorted(by_status.items())
    }
