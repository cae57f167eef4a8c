"""Sources of media: their order, on and off, health; and the cookies, proxies and PO tokens with which yt-dlp asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.forms import Form
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import ApiError
from apps.dashboard.access import AdminRequest, admin_page, client_address, may
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.source_forms import CookiesForm, PoTokensForm, ProxyForm
from apps.downloads.documents import IdentityKind, ProxyUse
from apps.downloads.services.identities import (
    Actor,
    add_cookies,
    add_po_tokens,
    add_proxy,
    remove_identity,
    set_identity_enabled,
    view_identities,
)
from apps.downloads.services.provider_settings import move_provider, set_provider_enabled, view_providers
from apps.keys.documents import Role

PAGE = "dashboard:sources"
BACK_LABEL = "Sources"
THINGS = {
    IdentityKind.COOKIES.value: "these cookies",
    IdentityKind.PROXY.value: "this proxy",
    IdentityKind.PO_TOKEN.value: "these PO tokens",
}


@admin_page()
def sources(request: AdminRequest) -> HttpResponse:
    context = {
        "providers": view_providers(),
        "cookies": view_identities(IdentityKind.COOKIES),
        "proxies": view_identities(IdentityKind.PROXY),
        "po_tokens": view_identities(IdentityKind.PO_TOKEN),
        "can_change": may(request.admin_user, Role.OPERATOR),
    }
    return render(request, "dashboard/sources/page.html", context)


@admin_page(Role.OPERATOR, methods=("POST",))
def provider_change(request: AdminRequest, name: str, what: str) -> HttpResponse:
    """``what``: up, down, on or off. Counts in every process within two seconds."""
    who = {"actor": request.admin_user.username, "address": client_address(request)}
    try:
        if what in {"up", "down"}:
            move_provider(name, up=what == "up", **who)
        else:
            set_provider_enabled(name, enabled=what == "on", **who)
    except ApiError as error:
        messages.error(request, error.message)
    return redirect(PAGE)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def cookies_new(request: AdminRequest) -> HttpResponse:
    def save(values: dict[str, Any]) -> HttpResponse:
        view = add_cookies(values["name"], values["cookies"], actor=_actor(request))
        messages.success(request, f"The cookies “{view.name}” are in use: {view.about}.")
        return redirect(PAGE)

    form = CookiesForm(request.POST or None)
    return _form_page(request, form, title="Add cookies", label="Check and keep", save=save, about="cookies")


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def proxy_new(request: AdminRequest) -> HttpResponse:
    def save(values: dict[str, Any]) -> HttpResponse:
        view = add_proxy(values["name"], values["proxy"], use=ProxyUse(values["use"]), actor=_actor(request))
        messages.success(request, f"The proxy “{view.name}” is in use: {view.about}.")
        return redirect(PAGE)

    form = ProxyForm(request.POST or None)
    return _form_page(request, form, title="Add a proxy", label="Keep", save=save, about="proxy")


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def po_tokens_new(request: AdminRequest) -> HttpResponse:
    def save(values: dict[str, Any]) -> HttpResponse:
        view = add_po_tokens(values["name"], values["tokens"], actor=_actor(request))
        messages.success(request, f"The PO tokens “{view.name}” are in use: {view.about}.")
        return redirect(PAGE)

    form = PoTokensForm(request.POST or None)
    return _form_page(request, form, title="Add PO tokens", label="Check and keep", save=save, about="po_tokens")


@admin_page(Role.OPERATOR, methods=("POST",))
def identity_switch(request: AdminRequest, kind: str, identity_id: str, what: str) -> HttpResponse:
    """``what``: on or off."""
    try:
        set_identity_enabled(identity_id, enabled=what == "on", kind=IdentityKind(kind), actor=_actor(request))
    except ApiError as error:
        messages.error(request, error.message)
    return redirect(PAGE)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def identity_remove(request: AdminRequest, kind: str, identity_id: str) -> HttpResponse:
    def remove() -> str:
        remove_identity(identity_id, kind=IdentityKind(kind), actor=_actor(request))
        return "Deleted."

    return confirm_page(
        request,
        title=f"Delete {THINGS[kind]}?",
        text="What is stored of it is gone for good. To stop using it for a while, switch it off instead.",
        label="Delete",
        tone="danger",
        icon="trash-2",
        back=reverse(PAGE),
        back_label=BACK_LABEL,
        do=remove,
    )


def _actor(request: AdminRequest) -> Actor:
    return Actor(name=request.admin_user.username, address=client_address(request))


def _form_page(
    request: AdminRequest,
    form: Form,
    *,
    title: str,
    label: str,
    save: Callable[[dict[str, Any]], HttpResponse],
    about: str,
) -> HttpResponse:
    """``about``: which of the help texts stands beside the form."""
    return form_page(
        request,
        form,
        title=title,
        label=label,
        back=reverse(PAGE),
        back_label=BACK_LABEL,
        save=save,
        help_template=f"dashboard/sources/_{about}_help.html",
    )
