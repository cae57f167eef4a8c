"""What every request through Django gets: an id and a log line, opaque failures, security headers."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from apps.core.api_errors import error_response, log_unknown, to_api_error
from apps.core.asker import asker_var
from apps.core.logs import request_id_var, shown_path
from apps.core.request_state import KEY_PREFIX, REQUEST_ID, STARTED_AT
from apps.core.suspend import SUSPEND_HEADER

GetResponse = Callable[[HttpRequest], HttpResponseBase]

access_log = logging.getLogger("ytserver.access")
logger = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: https://i.ytimg.com",
        "media-src 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def request_id_from(given: str | None) -> str:
    """The caller's own request id when it is 8 to 64 harmless characters, else a new one."""
    if given and re.fullmatch(r"[A-Za-z0-9._-]{8,64}", given, re.ASCII):
        return given
    return f"{random.getrandbits(128):032x}"


class RequestIdMiddleware:
    """X-Request-Id in and out, in every log line and error, and one access log line a request (no query string)."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started_at = request.META.setdefault(STARTED_AT, time.monotonic())
        request_id = request.META.setdefault(REQUEST_ID, request_id_from(request.headers.get("X-Request-Id")))
        token, asker = request_id_var.set(request_id), asker_var.set("")  # until a key is shown
        try:
            response = self.get_response(request)
            response.headers["X-Request-Id"] = request_id
            if SUSPEND_HEADER not in response.headers:
                self._log(request, response, started_at)
            return response
        finally:
            request_id_var.reset(token)
            asker_var.reset(asker)

    def _log(self, request: HttpRequest, response: HttpResponseBase, started_at: float) -> None:
        match = request.resolver_match
        access_log.info(
            "request",
            extra={
                "method": request.method,
                "path": shown_path(request.path),
                "route": match.route if match else None,
                "status": response.status_code,
                "duration_ms": round((time.monotonic() - started_at) * 1000, 1),
                "key_prefix": request.META.get(KEY_PREFIX),
                "client": request.META.get("REMOTE_ADDR"),
            },
        )


class OpaqueErrorMiddleware:
    """Turns whatever nobody handled into the documented error; the caller learns nothing of an unforeseen fault.

    Relies on DEBUG_PROPAGATE_EXCEPTIONS: else Django would answer before the exception gets here.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self.get_response(request)
        except Exception as error:  # noqa: BLE001 - the last place: logged here, and the caller gets an opaque 500
            api_error = to_api_error(error)
            if api_error is None:
                api_error = log_unknown(error)
            elif api_error.status >= 500:
                logger.warning("request failed: %s: %s", api_error.code, type(error).__name__)
            return error_response(request, api_error)


class SecurityHeadersMiddleware:
    """Puts SECURITY_HEADERS on every answer; a view may set its own instead."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response
