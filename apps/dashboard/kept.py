"""What somebody chose or typed, kept while they are asked for their password. For them and that page only."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.cache import cache
from django.utils.datastructures import MultiValueDict

from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.keys.sessions import CONFIRMED_FOR_S

if TYPE_CHECKING:
    from django.http import HttpRequest

TYPED = "typed"


def keep(request: HttpRequest, what: object) -> str:
    """Keep ``what`` (anything that JSON knows) for CONFIRMED_FOR_S, encrypted, and return a name for the address."""
    name = secrets.token_hex(16)
    cache.set(_key(request, name), encrypt_secret(json.dumps(what)), CONFIRMED_FOR_S)
    return name


def kept(request: HttpRequest, name: str) -> Any:
    """What this person kept for this page; None: nothing, or no longer."""
    stored = cache.get(_key(request, name))
    try:
        return json.loads(decrypt_secret(stored)) if stored else None
    except SecretUnreadable:
        return None


def keep_typed(request: HttpRequest) -> str:
    """The address that shows the form as it was sent just now (``typed``); this address where nothing was typed."""
    fields = {name: values for name, values in request.POST.lists() if name != "csrfmiddlewaretoken"}
    if not fields:
        return request.get_full_path()
    messages.info(request, "What you typed is kept while you give your password.")
    query = {**request.GET.dict(), TYPED: keep(request, fields)}
    return f"{request.path}?{urlencode(query)}"


def typed(request: HttpRequest) -> MultiValueDict[str, str] | None:
    """What to bind a form to: what is sent now, or was sent before the password was asked for. None: nothing."""
    if request.method == "POST":
        return request.POST or None
    if not (name := request.GET.get(TYPED, "")):
        return None
    fields = kept(request, name)
    if not fields:
        messages.info(request, "What you typed is no longer known.")
        return None
    messages.info(request, "This is what you typed. It is not saved yet: look it over and send it.")
    return MultiValueDict(fields)


def _key(request: HttpRequest, name: str) -> str:
    return f"kept:{request.admin_user.id}:{request.path}:{name[:64]}"  # type: ignore[attr-defined]
