"""What people do about their own account: password, second factor, logging out elsewhere."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import InvalidParameter
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, ask_again, asks_again, client_address, record_change
from apps.dashboard.account_forms import CodeForm, ConfirmForm, PasswordForm
from apps.dashboard.login import confirm_password, confirm_person
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.views.auth import is_own_page, safe_next
from apps.keys.admins import end_sessions
from apps.keys.second_factor import (
    WRONG_CODE,
    finish_setup,
    has_second_factor,
    new_pending,
    remove_second_factor,
    renew_recovery_codes,
    show_setup,
)
from apps.keys.services import set_password
from apps.keys.sessions import go_on_after_change, is_confirmed, mark_confirmed

PAGE = "dashboard:account"
FORM = ("GET", "HEAD", "POST")
BACK = "Your account"
PENDING = "_second_factor"  # in the session, encrypted


@admin_page()
def account(request: AdminRequest) -> HttpResponse:
    user = request.admin_user
    context = {
        "has_second_factor": has_second_factor(user),
        "codes_left": len(user.recovery_hashes),
        "history": selectors.history("user", user.username),
    }
    return render(request, "dashboard/account/page.html", context)


@admin_page(methods=FORM)
def password(request: AdminRequest) -> HttpResponse:
    """A new password ends every other session; this one goes on."""

    def save(data: dict[str, Any]) -> HttpResponse:
        _ask_password(request, data)
        set_password(request.admin_user, data["new"])
        _go_on(request, "password.change")
        messages.success(request, "Your password is changed. Other browsers are logged out.")
        return redirect(PAGE)

    form = PasswordForm(request.POST or None)
    return form_page(
        request, form, title="Change your password", label="Change", back=reverse(PAGE), back_label=BACK, save=save
    )


@admin_page(methods=FORM)
def second_factor(request: AdminRequest) -> HttpResponse:
    """Set the second factor up: a picture for the app, then a first code. The recovery codes are shown once.

    Each time the page is opened it has another secret, which only this session holds. Asks for the password as
    ``asks_again`` does, but keeps no code: it belongs to a secret that nobody sees again.
    """
    if not is_confirmed(request):
        if request.POST:
            messages.info(request, "That took more than ten minutes. There is a new picture: let the app read it.")
        return ask_again(request, request.path)
    if has_second_factor(request.admin_user):
        return redirect(PAGE)
    if request.method != "POST":
        request.session[PENDING] = new_pending()
    pending = str(request.session.get(PENDING, ""))
    setup = show_setup(request.admin_user, pending)
    if setup is None:
        return redirect(request.path)

    def save(data: dict[str, Any]) -> HttpResponse:
        codes = finish_setup(request.admin_user, pending, data["code"])
        _go_on(request, "second_factor.on")
        return _show_codes(request, codes)

    return form_page(
        request, CodeForm(request.POST or None), title="Set up a second factor", label="Switch on", icon="shield",
        back=reverse(PAGE), back_label=BACK, save=save, help_template="dashboard/account/_setup.html",
        help_first=True, setup=setup,
    )  # fmt: skip


@admin_page(methods=FORM)
@asks_again
def second_factor_off(request: AdminRequest) -> HttpResponse:
    def do() -> str:
        if remove_second_factor(request.admin_user):
            _go_on(request, "second_factor.off")
        return "The second factor is off: your password alone logs you in."

    return confirm_page(
        request, title="Switch the second factor off?", text="From then on your password alone logs you in.",
        label="Switch off", tone="danger", icon="shield-off", back=reverse(PAGE), back_label=BACK, do=do,
    )  # fmt: skip


@admin_page(methods=FORM)
@asks_again
def recovery_codes(request: AdminRequest) -> HttpResponse:
    """New recovery codes, shown once; the old ones end."""
    if not has_second_factor(request.admin_user):
        return redirect(PAGE)
    if request.method == "POST":
        codes = renew_recovery_codes(request.admin_user)
        _record(request, "second_factor.new_recovery_codes")
        return _show_codes(request, codes)
    return confirm_page(
        request, title="Make new recovery codes?", text="The old ones end. The new ones are shown once.",
        label="Make them", back=reverse(PAGE), back_label=BACK, do=str,
    )  # fmt: skip


@admin_page(methods=FORM)
def confirm(request: AdminRequest) -> HttpResponse:
    """Ask who is logged in for the password (and code) again, then go on to the page that needs it (``asks_again``)."""

    def save(data: dict[str, Any]) -> HttpResponse:
        problem = confirm_person(
            user=request.admin_user,
            password=data["password"],
            code=data.get("code", ""),
            address=client_address(request),
        )
        if problem:
            raise InvalidParameter(problem, parameter="code" if problem == WRONG_CODE else "password")
        mark_confirmed(request)
        return redirect(safe_next(request))

    asked_from = request.GET.get("back", "")
    back, back_label = (asked_from, "What you chose") if is_own_page(request, asked_from) else (reverse(PAGE), BACK)
    form = ConfirmForm(request.POST or None, with_code=has_second_factor(request.admin_user))
    return form_page(
        request, form, title="Is it you?", label="Go on", icon="shield", back=back, back_label=back_label, save=save,
        help_template="dashboard/account/_confirm.html",
    )  # fmt: skip


@admin_page(methods=FORM)
def log_out_elsewhere(request: AdminRequest) -> HttpResponse:
    def do() -> str:
        end_sessions(request.admin_user)
        _go_on(request, "sessions.end")
        return "Every other browser is logged out."

    return confirm_page(
        request, title="Log out everywhere else?", text="Every other browser has to log in again. This one stays in.",
        label="Log out elsewhere", icon="log-out", back=reverse(PAGE), back_label=BACK, do=do,
    )  # fmt: skip


def _ask_password(request: AdminRequest, data: dict[str, Any]) -> None:
    problem = confirm_password(user=request.admin_user, password=data["password"], address=client_address(request))
    if problem:
        raise InvalidParameter(problem, parameter="password")


def _go_on(request: AdminRequest, action: str) -> None:
    """Note a change that ended every session, and keep this browser in, on a new session key."""
    _record(request, action)
    go_on_after_change(request, request.admin_user)


def _record(request: AdminRequest, action: str) -> None:
    record_change(request, action, target_kind="user", target_id=request.admin_user.username)


def _show_codes(request: AdminRequest, codes: list[str]) -> HttpResponse:
    return render(request, "dashboard/account/codes.html", {"codes": "\n".join(codes)})
