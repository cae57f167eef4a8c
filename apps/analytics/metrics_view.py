"""``/metrics``: for Prometheus, and for nobody else."""

from __future__ import annotations

import hmac
import ipaddress

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from apps.analytics.metrics import metrics
from apps.analytics.metrics_text import CONTENT_TYPE
from apps.core.addresses import is_allowed_private
from apps.core.api_errors import error_response
from apps.core.errors import IpNotAllowed, MethodNotAllowed

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA")
REFUSED = (
    "Metrics are for METRICS_ADDRESSES (this machine, when empty) and for those who send METRICS_TOKEN as a Bearer."
)


def metrics_view(request: HttpRequest) -> HttpResponse:
    """The metrics as text; ``ip_not_allowed`` for others than ``may_read``."""
    if request.method not in {"GET", "HEAD"}:
        error = MethodNotAllowed()
        error.headers["Allow"] = "GET, HEAD"
        return error_response(request, error)
    if not may_read(request):
        return error_response(request, IpNotAllowed(REFUSED))
    return HttpResponse(metrics(), content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def may_read(request: HttpRequest) -> bool:
    """Whether the right token was sent, or the address is one of METRICS_ADDRESSES.

    Without both settings: this machine, but not what came through a proxy on it that TRUSTED_PROXIES does not name,
    for then everybody's address looks like this machine's.
    """
    token = settings.ENV.metrics_token.get_secret_value()
    if token:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
            return True
    allowed = settings.ENV.metrics_addresses or (() if token else LOOPBACK)
    if not settings.ENV.trusted_proxies and any(name in request.META for name in FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(str(request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return False
    return is_allowed_private(address, allowed)
