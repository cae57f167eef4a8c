"""Every failure becomes the error JSON of the HTTP contract here, whether Django, REST framework or ASGI meets it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.http.multipartparser import MultiPartParserError
from django.utils.html import escape
from rest_framework import exceptions as drf
from rest_framework.response import Response

from apps.core import errors
from apps.core.logs import request_id_var
from apps.core.outages import outage_of
from apps.core.request_state import ASGI_SCOPE
from apps.core.suspend import Suspend, suspended
from apps.core.trace import note

logger = logging.getLogger(__name__)

WWW_AUTHENTICATE = 'Bearer realm="ytserver"'
JSON_PATHS = ("/api/", "/stream/", "/song/", "/video/", "/youtube/", "/queued/", "/healthz", "/readyz", "/metrics")
_BY_DRF_CLASS: tuple[tuple[type[Exception], type[errors.ApiError]], ...] = (
    (drf.NotAuthenticated, errors.KeyMissing),
    (drf.AuthenticationFailed, errors.KeyInvalid),
    (drf.NotFound, errors.NotFound),
    (drf.NotAcceptable, errors.NotAcceptable),
    (drf.UnsupportedMediaType, errors.UnsupportedMediaType),
    (drf.Throttled, errors.RateLimited),
    (RequestDataTooBig, errors.TooLarge),
    (TooManyFieldsSent, errors.TooLarge),
    (TooManyFilesSent, errors.TooLarge),
    (Http404, errors.NotFound),
    (PermissionDenied, errors.ScopeMissing),
)


def to_api_error(error: BaseException) -> errors.ApiError | None:
    """The error a caller is told for any exception; None when it is a fault of ours that nobody foresaw."""
    if isinstance(error, errors.ApiError):
        return error
    if isinstance(error, drf.MethodNotAllowed):
        return errors.MethodNotAllowed()
    if isinstance(error, drf.ParseError | MultiPartParserError):
        return errors.InvalidParameter("The body cannot be read. Send valid JSON or form fields.")
    if isinstance(error, drf.PermissionDenied):
        return errors.ScopeMissing(str(error.detail))
    if isinstance(error, drf.ValidationError):
        return _from_validation(error)
    for theirs, ours in _BY_DRF_CLASS:
        if isinstance(error, theirs):
            return ours(retry_after_s=getattr(error, "wait", None))
    if isinstance(error, SuspiciousOperation):
        return errors.InvalidParameter("The request is not valid.")
    if outage_of(error) is not None:
        return errors.NotReady(retry_after_s=2)
    return None


def _from_validation(error: drf.ValidationError) -> errors.ApiError:
    detail = error.detail
    if isinstance(detail, Mapping) and detail:
        name, problems = next(iter(detail.items()))
        first = _first_text(problems)
        if name == "non_field_errors":
            return errors.InvalidParameter(first)
        return errors.InvalidParameter(f"{name}: {first}", parameter=str(name))
    return errors.InvalidParameter(_first_text(detail))


def _first_text(detail: Any) -> str:
    while isinstance(detail, list | tuple | Mapping) and detail:
        detail = next(iter(detail.values())) if isinstance(detail, Mapping) else detail[0]
    return str(detail) if detail else ""


def log_unknown(error: BaseException) -> errors.ApiError:
    """Note an unforeseen fault with its traceback; what the caller is told says nothing of it."""
    logger.error("unhandled error", exc_info=error)
    return errors.InternalError()


def error_headers(error: errors.ApiError) -> dict[str, str]:
    """The headers that belong to an error: Retry-After, WWW-Authenticate, and its own."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = WWW_AUTHENTICATE
    headers["Cache-Control"] = "no-store"
    return headers


def handle_exception(error: Exception, context: dict[str, Any]) -> HttpResponseBase:
    """REST framework's EXCEPTION_HANDLER. ``Suspend`` becomes the suspended answer."""
    if isinstance(error, Suspend):
        return suspended(error.topic)
    api_error = to_api_error(error) or log_unknown(error)
    if api_error.code == "not_ready" and api_error is not error:
        logger.warning("a service is down: %s", type(error).__name__)
    note(context["request"]._request.META.get(ASGI_SCOPE), error=api_error.code)
    headers = error_headers(api_error)
    if isinstance(error, drf.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    body = errors.error_body(api_error, request_id=request_id_var.get())
    response: HttpResponseBase = Response(body, status=api_error.status, headers=headers)
    return response


def error_response(request: HttpRequest, error: errors.ApiError) -> HttpResponse:
    """An error outside REST framework: JSON, or a small page for people (who ask for HTML, away from the API)."""
    note(request.META.get(ASGI_SCOPE), error=error.code)
    body = errors.error_body(error, request_id=request_id_var.get())
    if wants_json(request):
        text, content_type = json.dumps(body), "application/json"
    else:
        text, content_type = _page(error, str(body["request_id"])), "text/html; charset=utf-8"
    return HttpResponse(text, status=error.status, content_type=content_type, headers=error_headers(error))


def raw_error(error: errors.ApiError, *, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an error that is answered in front of Django."""
    body = json.dumps(errors.error_body(error, request_id=request_id)).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Request-Id": request_id,
        "X-Content-Type-Options": "nosniff",
        **error_headers(error),
    }
    return error.status, headers, body


def wants_json(request: HttpRequest) -> bool:
    """Whether an error should be JSON: below the API, or when the client does not ask for HTML by name."""
    return request.path.startswith(JSON_PATHS) or "text/html" not in request.headers.get("Accept", "")


def _page(error: errors.ApiError, request_id: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="dark light">'
        f"<title>{error.status}</title></head>"
        f"<body><h1>{escape(error.message)}</h1><p>{error.status} {escape(error.code)}</p>"
        f"<p>Request {escape(request_id)}</p></body></html>"
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400."""
    error = to_api_error(exception) or errors.InvalidParameter("The request is not valid.")
    return error_response(request, error)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    return error_response(request, errors.ScopeMissing("You may not do that."))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    return error_response(request, errors.NotFound())


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500. The fault is in the log already."""
    return error_response(request, errors.InternalError())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF_FAILURE_VIEW."""
    return error_response(
        request, errors.ScopeMissing("The form is too old. Load the page again and send it once more.")
    )
