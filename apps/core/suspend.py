"""Waiting without holding a thread.

A view that must wait for something (metadata, a fetch) raises ``Suspend``. Behind the ASGI bridge the request is put
aside on the event loop until the topic is published (or a little time has passed) and then run again; without the
bridge (``runserver``, tests) the middleware waits in its thread. Either way the view is simply called again, with
``waited_s`` telling how long the request has been here; limits are charged only once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from apps.core import wake
from apps.core.request_state import BRIDGE, STARTED_AT

SUSPEND_HEADER = "X-Ytserver-Suspend"  # between view and bridge only; it never reaches a client
RECHECK_S = 1.0
MAX_WAIT_S = 60.0


class Suspend(Exception):
    """Run this request again when ``topic`` is published. The view decides how long in all."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        super().__init__(topic)


def waited_s(request: HttpRequest) -> float:
    """Seconds since this request came in, whatever number of times its view was called."""
    started_at: float = request.META.setdefault(STARTED_AT, time.monotonic())
    return time.monotonic() - started_at


def suspended(topic: str) -> HttpResponse:
    """The answer that stands for "not yet"; it never reaches a client. Not an error status: Django would log it."""
    return HttpResponse(status=202, headers={SUSPEND_HEADER: topic})


class SuspendMiddleware:
    """Turns a suspended answer into waiting. Inside the bridge it lets it pass; elsewhere it waits in this thread."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.META.setdefault(STARTED_AT, time.monotonic())
        if request.META.get(BRIDGE):
            return self.get_response(request)
        _ = request.body  # read it once, so that the view can be called again
        while True:
            response = self.get_response(request)
            topic = response.headers.get(SUSPEND_HEADER)
            if topic is None:
                return response
            if waited_s(request) > MAX_WAIT_S:
                del response.headers[SUSPEND_HEADER]
                return response
            wake.wait(topic, timeout_s=RECHECK_S)
