"""Changing an API key: its fields, a new secret, deleting it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard.access import AdminRequest, admin_page, ask_about_typed, ask_again, problem, who
from apps.dashboard.form_tokens import sent_once
from apps.dashboard.kept import typed
from apps.dashboard.key_forms import KeyEditForm, RotateForm
from apps.dashboard.key_work import delete, is_powerful
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.views.keys import key_examples, owners_only
from apps.keys.changes import rotate_key, update_key
from apps.keys.documents import ApiKey, Role, Scope
from apps.keys.roles import may_change_key
from apps.keys.selectors import find_key
from apps.keys.sessions import is_confirmed

FORM = ("GET", "HEAD", "POST")


def _on_key(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A page that changes one key, which is handed over; 404 in words when there is none. A key that may do what an
    owner may is changed by owners only."""

    @admin_page(Role.OPERATOR, methods=FORM)
    def checked(request: AdminRequest, prefix: str) -> HttpResponse:
        key = find_key(prefix)
        if key is None:
            return problem(request, 404, "There is no such key.", "It may have been deleted since the list was shown.")
        if not may_change_key(request.admin_user.role, key.scopes):
            return owners_only(request)
        if is_powerful(key) and not is_confirmed(request):
            return ask_again(request)  # such a key may do what an owner may
        return view(request, key)

    return checked


def _page(key: ApiKey) -> str:
    return reverse("dashboard:keys-detail", args=[key.prefix])


@_on_key
def key_edit(request: AdminRequest, key: ApiKey) -> HttpResponse:
    form = KeyEditForm(typed(request), key=key, user=request.admin_user)

    def save(_: dict[str, Any]) -> HttpResponse:
        changes = form.changes()
        if Scope.ADMIN in changes.get("scopes", ()) and not is_confirmed(request):
            return ask_about_typed(request)
        update_key(key.prefix, changes, seen={name: getattr(key, name) for name in changes}, **who(request))
        messages.success(request, "Changed. It counts everywhere within a second." if changes else "Nothing changed.")
        return redirect(_page(key))

    return form_page(
        request, form, title=f"Change “{key.name}”", label="Save", back=_page(key), back_label=key.name, save=save
    )


@_on_key
def key_rotate(request: AdminRequest, key: ApiKey) -> HttpResponse:
    """Give the key a new secret. The answer shows it, once."""

    def save(data: dict[str, Any]) -> HttpResponse:
        with sent_once(data["form_token"]) as is_first:
            if not is_first:
                messages.info(request, "This form was sent before: its new secret counts. It can be shown only once.")
                return redirect(_page(key))
            new = rotate_key(key.prefix, grace_s=int(data["grace_s"]), **who(request))
        context = {"key": new.key, "document": new.document, **key_examples(new.key)}
        return render(request, "dashboard/keys/created.html", context)

    return form_page(
        request, RotateForm(typed(request)), title=f"New secret for “{key.name}”", label="Make a new secret",
        icon="refresh-cw", back=_page(key), back_label=key.name, save=save,
    )  # fmt: skip


@_on_key
def key_delete(request: AdminRequest, key: ApiKey) -> HttpResponse:
    def do() -> str:
        delete(request, key)
        return f"The key “{key.name}” is deleted."

    return confirm_page(
        request,
        title="Delete this key?",
        text=f"“{key.name}” ({key.prefix}), its links and its running streams stop within a second, for good. What it "
        "used stays in the figures.",
        label="Delete it",
        tone="danger",
        icon="trash-2",
        back=_page(key),
        back_label=key.name,
        do=do,
        then=reverse("dashboard:keys"),
    )
