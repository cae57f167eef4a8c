"""Users: whom keys belong to, and the plans that their keys start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, ask_again, problem, who
from apps.dashboard.key_forms import NewUserForm, UserForm
from apps.dashboard.key_list import key_state
from apps.dashboard.lists import answer_list
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.user_list import USER_LIST, href, plan_of, user_state
from apps.dashboard.user_work import delete, gains_power, switch
from apps.keys.changes import add_user, update_user
from apps.keys.documents import Role, User
from apps.keys.roles import may_change_user
from apps.keys.selectors import find_user, list_keys
from apps.keys.sessions import is_confirmed

FORM = ("GET", "HEAD", "POST")
SHOWN_KEYS = 100
OWNERS_ONLY = "They may enter the admin, or have a key with the scope admin."


def _on_user(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A page that changes one user, who is handed over; 404 in words when there is none. Owners only, for admins."""

    @admin_page(Role.OPERATOR, methods=FORM)
    def checked(request: AdminRequest, username: str) -> HttpResponse:
        user = find_user(username)
        if user is None:
            return _unknown(request)
        if not may_change_user(request.admin_user.role, user):
            return problem(request, 403, "Only an owner may change this user.", OWNERS_ONLY)
        return view(request, user)

    return checked


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such user.", "They may have been deleted since the list was shown.")


@admin_page(methods=FORM)
def user_list(request: AdminRequest) -> HttpResponse:
    new_href = reverse("dashboard:users-new")
    return answer_list(request, USER_LIST, title="Users", new_href=new_href, new_label="Add a user")


@admin_page()
def user_detail(request: AdminRequest, username: str) -> HttpResponse:
    user = find_user(username)
    if user is None:
        return _unknown(request)
    context = {
        "person": user,
        "state": user_state(user),
        "plan": plan_of(user),
        "keys": [(key, key_state(key)) for key in list_keys(owner=username, limit=SHOWN_KEYS)],
        "keys_href": f"{reverse('dashboard:keys')}?{urlencode({'q': username})}",
        "can_change": may_change_user(request.admin_user.role, user),
        "history": selectors.history("user", username),
    }
    return render(request, "dashboard/users/detail.html", context)


@admin_page(Role.OPERATOR, methods=FORM)
def user_new(request: AdminRequest) -> HttpResponse:
    form = NewUserForm(request.POST or None)

    def save(data: dict[str, Any]) -> HttpResponse:
        user = add_user(data["username"], form.changes(), **who(request))
        messages.success(request, f"{user.username} is here. Keys made with this owner follow the plan.")
        return redirect(href(user))

    return form_page(
        request, form, title="Add a user", label="Add", icon="user-plus", back=reverse("dashboard:users"),
        back_label="Users", save=save, blamed="username",
    )  # fmt: skip


@_on_user
def user_edit(request: AdminRequest, user: User) -> HttpResponse:
    form = UserForm(request.POST or None, person=user)

    def save(_: dict[str, Any]) -> HttpResponse:
        changes = form.changes()
        update_user(user.username, changes, seen={name: getattr(user, name) for name in changes}, **who(request))
        messages.success(request, "Changed. Their keys follow within a second." if changes else "Nothing changed.")
        return redirect(href(user))

    return form_page(
        request,
        form,
        title=f"Change {user.username}",
        label="Save",
        back=href(user),
        back_label=user.username,
        save=save,
    )


@_on_user
def user_switch(request: AdminRequest, user: User) -> HttpResponse:
    active = not user.active
    if active and gains_power(user) and not is_confirmed(request):
        return ask_again(request)  # such a key may do what an owner may

    def do() -> str:
        switch(request, user, active=active)
        return f"{user.username} is {'on' if active else 'off'}."

    text = "Their keys work again within a second." if active else "None of their keys works any more, within a second."
    return confirm_page(
        request,
        title=f"Switch {user.username} {'on' if active else 'off'}?",
        text=text,
        label=f"Switch {'on' if active else 'off'}",
        tone="success" if active else "danger",
        icon="power",
        back=href(user),
        back_label=user.username,
        do=do,
    )


@_on_user
def user_delete(request: AdminRequest, user: User) -> HttpResponse:
    def do() -> str:
        delete(request, user)
        return f"{user.username} is deleted."

    return confirm_page(
        request,
        title=f"Delete {user.username}?",
        text="Only a user without keys can be deleted.",
        label="Delete",
        tone="danger",
        icon="trash-2",
        back=href(user),
        back_label=user.username,
        do=do,
        then=reverse("dashboard:users"),
    )
