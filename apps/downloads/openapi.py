"""How the OpenAPI document names the ways to send a key, and the errors of each route."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse

from apps.core.errors import ERRORS_BY_CODE
from apps.downloads.answer_serializers import ErrorSerializer
from apps.keys.documents import Scope


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


class AdminSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # its __init_subclass__
    """The admin's session cookie. Only routes with the scope admin take it, so only they name it."""

    target_class = "apps.keys.drf.AdminSessionAuthentication"
    name = "adminSession"

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[str]] | list[dict[str, list[str]]]:
        takes_it = getattr(auto_schema.view, "required_scope", None) == Scope.ADMIN
        return {self.name: []} if takes_it else []

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


class BrowserKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # its __init_subclass__
    """The key that a browser logged in with. Only pages for people go by it: programs need not know."""

    target_class = "apps.keys.browser_key.BrowserKeyAuthentication"
    name: list[str] = []

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        return []

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return []


FIELD_ERRORS = ("invalid_url", "invalid_parameter", "too_large", "unsupported_media_type")
KEY_ERRORS = (
    "key_missing", "key_invalid", "key_expired", "key_disabled", "ip_not_allowed", "scope_missing", "rate_limited",
    "quota_exceeded",
)  # fmt: skip
LIMIT_ERRORS = ("video_too_long", "file_too_large", "too_many_jobs")
SERVER_ERRORS = ("internal_error", "not_ready", "overloaded")
CONTENT_ERRORS = (
    "video_unavailable", "video_private", "age_restricted", "geo_blocked", "live_not_supported", "drm_protected",
    "upstream_error", "bot_check", "upstream_unreachable", "upstream_timeout",
)  # fmt: skip
LIST_ERRORS = ("upstream_error", "bot_check", "upstream_unreachable", "upstream_timeout")


def error_responses(*codes: str) -> dict[int, OpenApiResponse]:
    """The documented error answers of a route, by status; the description lists the codes of each.

    Each route refuses fields that it does not know, so each may answer ``invalid_parameter``.
    """
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*codes, "invalid_parameter", *SERVER_ERRORS)):
        by_status.setdefault(ERRORS_BY_CODE[code].status, []).append(code)
    return {
        status: OpenApiResponse(ErrorSerializer, description=", ".join(f"`{code}`" for code in codes_of_status))
        for status, codes_of_status in sorted(by_status.items())
    }


STREAM_ERRORS = (
    "invalid_parameter", "link_invalid", "link_expired", "range_not_satisfiable", "not_found", "quality_unavailable",
    "conflict", "precondition_failed", *KEY_ERRORS, *LIMIT_ERRORS, *CONTENT_ERRORS,
)  # fmt: skip


def add_stream_routes(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Describe the streams, which are answered beside Django, in the OpenAPI document (a postprocessing hook)."""
    schemes = result["components"]["securitySchemes"]
    file = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: dict[str, Any] = {
        "200": {"description": "The whole file.", **file},
        "206": {"description": "The bytes that Range asks for.", **file},
        "304": {"description": "The file is what If-None-Match names."},
        **{
            str(status): {"description": answer.description, "content": error}
            for status, answer in error_responses(*STREAM_ERRORS).items()
        },
    }
    for kind, wish in (("audio", "format"), ("video", "quality")):
        result["paths"][f"/stream/{kind}/{{video_id}}"] = {
            "get": {
                "operationId": f"stream_{kind}",
                "tags": ["streams"],
                "summary": f"The bytes of {'an audio' if kind == 'audio' else 'a video'} file",
                "description": "Open it with the signed link of an answer, which needs no key and counts as no "
                "request, or with a key. What is not stored yet is fetched; audio is sent while it arrives.",
                "parameters": [
                    _parameter("video_id", "path", "The 11-character video id.", required=True),
                    _parameter(wish, "query", f"With a key: the {wish}, as in `/api/v1/{kind}`; its other fields too."),
                    _parameter("download", "query", "1: save the file rather than play it."),
                    _parameter("Range", "header", "One range, such as `bytes=0-1023`."),
                    _parameter("If-Match", "header", "The ETag of the file that is meant: any other one is a 412."),
                ],
                "security": [{name: []} for name in schemes if name != AdminSessionScheme.name] + [{}],
                "responses": answers,
            }
        }
    return result


def _parameter(name: str, place: str, description: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": place, "description": description, "required": required, "schema": schema}
