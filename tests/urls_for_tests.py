"""Addresses whose views do what the tests need."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpResponse
from django.urls import path
from pymongo.errors import ServerSelectionTimeoutError
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.errors import DrmProtected, RateLimited
from apps.core.health import healthz, readyz
from apps.core.suspend import Suspend, waited_s
from apps.keys.documents import Role, Scope
from apps.keys.drf import HasScope
from apps.keys.sessions import login, logout, note_use


class Quiet(Exception):
    """A fault that nobody foresaw; its text must not reach a caller."""


class EchoSerializer(serializers.Serializer):
    number = serializers.IntegerField()


class Keyed(APIView):
    def get(self, request):
        return Response({"user": request.user.prefix, "auth": request.auth})

    def post(self, request):
        serializer = EchoSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(serializer.validated_data)


class Public(APIView):
    permission_classes = [AllowAny]

    def get(self, request):
        return Response({"user": getattr(request.user, "prefix", None)})


class AdminOnly(APIView):
    permission_classes = [HasScope]
    required_scope = Scope.ADMIN

    def get(self, request):
        return Response({})

    def post(self, request):
        return Response({"actor": request.user.actor})


class OwnersOnly(AdminOnly):
    role_to_change = Role.OWNER

    def delete(self, request):
        return Response({})


class Waiting(APIView):
    runs = 0
    ready = False

    def post(self, request):
        type(self).runs += 1
        assert request.data == {"a": 1}
        if not type(self).ready:
            raise Suspend("keys-test")
        return Response({"runs": self.runs, "waited": waited_s(request._request) > 0})


FAULTS = {
    "drm": lambda: DrmProtected(),
    "limited": lambda: RateLimited(retry_after_s=1.2),
    "mongo": lambda: ServerSelectionTimeoutError("mongodb://" + "user:secret@host"),
    "unknown": lambda: Quiet("secret"),
    "denied": lambda: PermissionDenied("secret"),
    "suspicious": lambda: SuspiciousOperation("secret"),
}


class Failing(APIView):
    permission_classes = [AllowAny]

    def get(self, request, name):
        raise FAULTS[name]()


def fail_outside_drf(request, name):
    raise FAULTS[name]()


def sign_in(request):
    from apps.keys.selectors import find_user

    login(request, find_user(request.GET["name"]))
    return HttpResponse("in")


def sign_out(request):
    logout(request)
    return HttpResponse("out")


def who(request):
    return HttpResponse(request.admin_user.username if request.admin_user else "nobody")


def use(request):
    if request.admin_user:
        note_use(request)
    return who(request)


def form(request):
    return HttpResponse(str(request.POST.get("a")))


urlpatterns = [
    path("api/v1/", Public.as_view(), name="api-root"),  # the browsable pages link to these
    path("api/docs", Public.as_view(), name="docs"),
    path("api/login", Public.as_view(), name="key-login"),
    path("api/logout", Public.as_view(), name="key-logout"),
    path("api/keyed", Keyed.as_view()),
    path("api/public", Public.as_view()),
    path("api/admin", AdminOnly.as_view()),
    path("api/secrets", OwnersOnly.as_view()),
    path("api/waiting", Waiting.as_view()),
    path("api/fail/<name>", Failing.as_view()),
    path("fail/<name>", fail_outside_drf),
    path("sign-in", sign_in),
    path("sign-out", sign_out),
    path("who", who),
    path("use", use),
    path("form", form),
    path("healthz", healthz),
    path("readyz", readyz),
]
handler400 = "apps.core.api_errors.bad_request"
handler403 = "apps.core.api_errors.permission_denied"
handler404 = "apps.core.api_errors.page_not_found"
handler500 = "apps.core.api_errors.server_error"
