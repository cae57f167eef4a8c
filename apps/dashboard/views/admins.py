"""People who may enter the admin. Owners only, asked for their password before a change; each is in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import ApiError, InvalidParameter
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, asks_again, problem, record_change
from apps.dashboard.account_forms import AdminUserForm, RoleForm
from apps.dashboard.admin_list import ADMIN_LIST, admin_state
from apps.dashboard.kept import typed
from apps.dashboard.lists import answer_list
from apps.dashboard.pages import confirm_page, form_page
from apps.keys.admins import create_admin, find_admin, reset_password, set_admin_active, set_role
from apps.keys.documents import Role, User
from apps.keys.second_factor import has_second_factor, remove_second_factor

PAGE = "dashboard:admins"
FORM = ("GET", "HEAD", "POST")
OWN = "This is your own account. Another owner can do that."


def _on_admin(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """An owner's page about one admin, who is handed over; 404 in words when there is none."""

    @admin_page(Role.OWNER, methods=FORM)
    def checked(request: AdminRequest, user_id: str) -> HttpResponse:
        try:
            user = find_admin(user_id)
        except ApiError as error:
            return problem(request, 404, error.message, "They may have lost their role since the list was shown.")
        return view(request, user)

    return checked


@admin_page(Role.OWNER)
def admin_list(request: AdminRequest) -> HttpResponse:
    new_href = reverse("dashboard:admins-new")
    return answer_list(request, ADMIN_LIST, title="Admins", new_href=new_href, new_label="Add an admin")


@admin_page(Role.OWNER, methods=FORM)
@asks_again
def admin_new(request: AdminRequest) -> HttpResponse:
    """Make an admin. The answer shows the password, once."""

    def save(data: dict[str, Any]) -> HttpResponse:
        user, password = create_admin(username=data["username"], role=Role(data["role"]), contact=data["contact"])
        after = {"role": user.role, "contact": user.contact}
        record_change(request, "user.create", target_kind="user", target_id=user.username, after=after)
        return _show_password(request, user, password, "can log in now")

    form = AdminUserForm(typed(request))
    return form_page(
        request, form, title="Add an admin", label="Add", icon="user-plus", back=reverse(PAGE), back_label="Admins",
        save=save,
    )  # fmt: skip


@_on_admin
def admin_detail(request: AdminRequest, user: User) -> HttpResponse:
    context = {
        "person": user,
        "state": admin_state(user),
        "has_second_factor": has_second_factor(user),
        "is_self": user.id == request.admin_user.id,
        "history": selectors.history("user", user.username),
    }
    return render(request, "dashboard/admins/detail.html", context)


@_on_admin
@asks_again
def admin_role(request: AdminRequest, user: User) -> HttpResponse:
    before = user.role

    def save(data: dict[str, Any]) -> HttpResponse:
        _not_oneself(request, user)
        if set_role(user, Role(data["role"])):
            _record(request, user, "user.role", before={"role": before}, after={"role": data["role"]})
        return redirect(PAGE) if data["role"] == Role.NONE.value else redirect("dashboard:admins-detail", str(user.id))

    form = RoleForm(typed(request), role=before)
    return form_page(
        request, form, title=f"Role of {user.username}", label="Change", back=_href(user), back_label=user.username,
        save=save,
    )  # fmt: skip


@_on_admin
@asks_again
def admin_switch(request: AdminRequest, user: User) -> HttpResponse:
    """Off: logged out everywhere, may not log in, API keys of theirs stop. On: as before."""
    active = not user.active

    def do() -> str:
        _not_oneself(request, user)
        if set_admin_active(user, active=active):
            action = "user.activate" if active else "user.deactivate"
            _record(request, user, action, before={"active": not active}, after={"active": active})
        return f"{user.username} is switched {'on' if active else 'off'}."

    text = (
        "They may log in again, with the password and second factor they had, and their API keys work."
        if active
        else "They are logged out at once and may not log in. API keys of theirs stop. You can switch them on again."
    )
    return _confirm(
        request, user, title=f"Switch {user.username} {'on' if active else 'off'}?", text=text,
        label="Switch on" if active else "Switch off", tone="success" if active else "danger", icon="power", do=do,
    )  # fmt: skip


@_on_admin
def admin_password(request: AdminRequest, user: User) -> HttpResponse:
    """A new password for somebody who lost theirs, shown once. One's own is changed elsewhere, with the old one."""
    if user.id == request.admin_user.id:
        return redirect("dashboard:account-password")
    return _new_password(request, user)


@asks_again
def _new_password(request: AdminRequest, user: User) -> HttpResponse:
    if request.method == "POST":
        password = reset_password(user)
        _record(request, user, "user.reset_password")
        return _show_password(request, user, password, "has a new password")
    return _confirm(
        request, user, title=f"New password for {user.username}?", label="Make a new password", icon="key",
        text="The old one ends and they are logged out. The new one is shown once: hand it over in a safe way.",
        do=str,
    )  # fmt: skip


@_on_admin
@asks_again
def admin_second_factor(request: AdminRequest, user: User) -> HttpResponse:
    """For somebody who lost the phone and the recovery codes."""

    def do() -> str:
        _not_oneself(request, user)
        if remove_second_factor(user):
            _record(request, user, "user.reset_second_factor")
        return f"{user.username} logs in with the password alone, until they set a second factor up again."

    return _confirm(
        request, user, title=f"Take the second factor of {user.username} away?", label="Take it away", tone="danger",
        text="Be sure that it is really them who ask: from then on the password alone is enough.", icon="shield-off",
        do=do,
    )  # fmt: skip


def _confirm(request: AdminRequest, user: User, **question: Any) -> HttpResponse:
    return confirm_page(request, back=_href(user), back_label=user.username, **question)


def _not_oneself(request: AdminRequest, user: User) -> None:
    if user.id == request.admin_user.id:
        raise InvalidParameter(OWN)


def _href(user: User) -> str:
    return reverse("dashboard:admins-detail", args=[str(user.id)])


def _record(request: AdminRequest, user: User, action: str, **changed: Any) -> None:
    record_change(request, action, target_kind="user", target_id=user.username, **changed)


def _show_password(request: AdminRequest, user: User, password: str, what: str) -> HttpResponse:
    context = {"person": user, "password": password, "what": what, "login": request.build_absolute_uri("/admin/login")}
    return render(request, "dashboard/admins/password.html", context)
