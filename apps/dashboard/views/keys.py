"""API keys: list, create, look at one, switch off and on."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, ask_about_typed, ask_again, problem, record_change
from apps.dashboard.form_tokens import sent_once
from apps.dashboard.kept import typed
from apps.dashboard.key_forms import LIMIT_LABELS, KeyForm, limit_words
from apps.dashboard.key_list import KEY_LIST, key_state
from apps.dashboard.key_work import is_powerful, switch
from apps.dashboard.lists import answer_list
from apps.dashboard.pages import confirm_page, form_page
from apps.keys.documents import LIMIT_NAMES, ApiKey, Role, Scope
from apps.keys.key_cache import effective_limits
from apps.keys.roles import may_change_key
from apps.keys.selectors import find_key, find_user
from apps.keys.services import create_recorded_key
from apps.keys.sessions import is_confirmed

EXAMPLE_VIDEO = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"


@admin_page(methods=("GET", "HEAD", "POST"))
def key_list(request: AdminRequest) -> HttpResponse:
    return answer_list(
        request, KEY_LIST, title="API keys", new_href=reverse("dashboard:keys-new"), new_label="Create a key"
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def key_new(request: AdminRequest) -> HttpResponse:
    """Create a key. The answer to the form shows it, once: it is stored nowhere, not even in the session."""
    form = KeyForm(typed(request), user=request.admin_user)

    def record(key: ApiKey) -> None:
        record_change(request, "key.create", target_kind="key", target_id=key.prefix, after=_facts(key))

    def save(data: dict[str, Any]) -> HttpResponse:
        if Scope.ADMIN in data["scopes"] and not is_confirmed(request):
            return ask_about_typed(request)  # such a key may do what an owner may
        with sent_once(data["form_token"]) as is_first:
            if not is_first:
                messages.info(
                    request, "This form was sent before: its key is in the list. A key can be shown only once."
                )
                return redirect("dashboard:keys")
            made = create_recorded_key(record, **form.key_arguments())
        context = {"key": made.key, "document": made.document, **key_examples(made.key)}
        return render(request, "dashboard/keys/created.html", context)

    return form_page(
        request, form, title="Create a key", label="Create the key", icon="key", back=reverse("dashboard:keys"),
        back_label="API keys", save=save,
    )  # fmt: skip


def key_examples(key: str) -> dict[str, str]:
    """The first request with a new key, ready to be pasted."""
    address = f"{settings.ENV.base_url}/api/v1/info"
    return {
        "curl": f'curl -H "X-API-Key: {key}" "{address}?url={EXAMPLE_VIDEO}"',
        "python": "\n".join(
            (
                "import httpx",
                "",
                "answer = httpx.get(",
                f'    "{address}",',
                f'    params={{"url": "{EXAMPLE_VIDEO}"}},',
                f'    headers={{"X-API-Key": "{key}"}},',
                "    timeout=60,",
                ")",
                "print(answer.json())",
            )
        ),
    }


@admin_page()
def key_detail(request: AdminRequest, prefix: str) -> HttpResponse:
    key = find_key(prefix)
    if key is None:
        return _no_such_key(request)
    context = {
        "key": key,
        "state": key_state(key),
        "usage": selectors.key_usage(prefix),
        "history": selectors.history("key", prefix),
        "limits": _shown_limits(key),
        "can_change": key.revoked_at is None and may_change_key(request.admin_user.role, key.scopes),
    }
    return render(request, "dashboard/keys/detail.html", context)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def key_deactivate(request: AdminRequest, prefix: str) -> HttpResponse:
    return _switch(request, prefix, active=False)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def key_activate(request: AdminRequest, prefix: str) -> HttpResponse:
    return _switch(request, prefix, active=True)


def _switch(request: AdminRequest, prefix: str, *, active: bool) -> HttpResponse:
    key = find_key(prefix)
    if key is None:
        return _no_such_key(request)
    if not may_change_key(request.admin_user.role, key.scopes):
        return owners_only(request)
    if active and is_powerful(key) and not is_confirmed(request):
        return ask_again(request)  # such a key may do what an owner may

    def do() -> str:
        switch(request, key, active=active)
        return f"The key “{key.name}” is {'on' if active else 'off'}."

    return confirm_page(
        request,
        **_question(key, active=active),
        icon="power",
        back=reverse("dashboard:keys-detail", args=[key.prefix]),
        back_label=key.name,
        do=do,
    )


def owners_only(request: AdminRequest) -> HttpResponse:
    text = "It has the scope admin: it may do what an owner may."
    return problem(request, 403, "Only an owner may change this key.", text)


def _shown_limits(key: ApiKey) -> list[tuple[str, str, str]]:
    """The limits that hold for a key: label, its words, and where it comes from unless it is its own."""
    user = find_user(key.owner) if key.owner else None
    limits = effective_limits(key.own_limits, user.own_limits if user else {})
    shown = []
    for name, label in LIMIT_LABELS.items():
        own, planned = getattr(key, name), getattr(user, name, None)
        source = "" if own is not None else "by the plan" if planned is not None else "by default"
        if limits[name] or own is not None or planned is not None:
            shown.append((label, limit_words(name, limits[name]), source))
    return shown


def _question(key: ApiKey, *, active: bool) -> dict[str, str]:
    name = f"“{key.name}” ({key.prefix})"
    if active:
        return {
            "title": "Switch this key on?",
            "text": f"{name} will work again within a second, with the limits it had.",
            "label": "Switch on",
            "tone": "success",
        }
    return {
        "title": "Switch this key off?",
        "text": f"Requests with {name} will be refused within a second, and its links and running streams end. "
        "You can switch it on again later.",
        "label": "Switch off",
        "tone": "danger",
    }


def _facts(key: ApiKey) -> dict[str, object]:
    """What was chosen, for the audit log."""
    chosen = {
        "name": key.name,
        "owner": key.owner,
        "labels": list(key.labels),
        "scopes": list(key.scopes),
        "expires_at": key.expires_at,
        "allowed_cidrs": list(key.allowed_cidrs),
        "allowed_origins": list(key.allowed_origins),
        "bind_links": key.bind_links,
        **{name: getattr(key, name) for name in LIMIT_NAMES},
    }
    return {name: value for name, value in chosen.items() if value not in (None, "", []) and value is not False}


def _no_such_key(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such key.", "It may have been mistyped: a prefix has 8 characters.")
