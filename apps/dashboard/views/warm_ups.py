"""Warm-ups: lists that are fetched in quiet hours. Make one, watch it, pause, go on, cancel; the limits for all."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.clock import utcnow
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, problem, record_change
from apps.dashboard.lists import answer_list, read_page
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.warm_up_forms import GIB, WarmLimitsForm, WarmUpForm
from apps.dashboard.warm_up_lists import WARM_UP_LIST, entry_list, warm_up_state, what_of
from apps.dashboard.warm_up_work import STEERING, Steering
from apps.downloads.services.warm_limits import is_quiet, next_quiet, save_warm_limits, warm_limits
from apps.downloads.services.warm_ups import make_warm_up
from apps.downloads.warm_documents import WarmUp, WarmUpLimits
from apps.downloads.warm_selectors import find_warm_up, recent_warm_counts
from apps.keys.documents import Role

LIMIT_FIELDS = ("quiet_from", "quiet_until", "time_zone", "at_once", "max_per_hour", "max_bytes_per_day")


@admin_page(methods=("GET", "HEAD", "POST"))
def warm_up_list(request: AdminRequest) -> HttpResponse:
    return answer_list(
        request,
        WARM_UP_LIST,
        title="Warm-ups",
        template="dashboard/warm_ups/list.html",
        new_href=reverse("dashboard:warm-ups-new"),
        new_label="Fetch a list",
        **_hours(warm_limits()),
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def warm_up_new(request: AdminRequest) -> HttpResponse:
    """``?playlist=``: the field begins with that."""
    form = WarmUpForm(request.POST or None, initial={"playlist": request.GET.get("playlist", "")[:500]})

    def save(_: dict[str, Any]) -> HttpResponse:
        made = make_warm_up(**form.arguments(), created_by=request.admin_user.username)
        facts = {"name": made.name, "kind": made.kind, "wish": made.wish, "links": made.total,
                 "playlist": made.playlist_id, "any_hour": made.any_hour}  # fmt: skip
        record_change(request, "warm_up.make", target_kind="warm_up", target_id=made.id, after=facts)
        messages.success(request, f"“{made.name}” is kept. {_begins(made)}")
        return redirect("dashboard:warm-ups-detail", made.id)

    return form_page(
        request,
        form,
        title="Fetch a list ahead of time",
        label="Keep this list",
        back=reverse("dashboard:warm-ups"),
        back_label="Warm-ups",
        save=save,
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def warm_up_limits(request: AdminRequest) -> HttpResponse:
    before = warm_limits()
    shown = {name: getattr(before, name) for name in LIMIT_FIELDS}
    initial = {**shown, "gib_per_day": round(before.max_bytes_per_day / GIB, 2)}
    form = WarmLimitsForm(request.POST or None, initial=initial)

    def save(_: dict[str, Any]) -> HttpResponse:
        after = form.changes()
        was = {name: shown[name] for name in after}
        if after:
            save_warm_limits(**after, seen=was)
            record_change(request, "warm_up.limits", target_kind="warm_up", target_id="limits", before=was, after=after)
        messages.success(request, "The limits hold from now on." if after else "Nothing changed.")
        return redirect("dashboard:warm-ups")

    return form_page(
        request,
        form,
        title="Quiet hours and limits",
        label="Save",
        back=reverse("dashboard:warm-ups"),
        back_label="Warm-ups",
        save=save,
    )


@admin_page()
def warm_up_detail(request: AdminRequest, warm_up_id: str) -> HttpResponse:
    warm_up = find_warm_up(warm_up_id)
    if warm_up is None:
        return _unknown(request)
    counts = recent_warm_counts([warm_up_id])[warm_up_id]
    context = {
        "warm_up": warm_up,
        "state": warm_up_state(warm_up),
        "what": what_of(warm_up),
        "counts": counts,
        "page": read_page(entry_list(warm_up_id), request.GET.dict(), user=request.admin_user),
        "history": selectors.history("warm_up", warm_up_id),
        **_hours(warm_limits()),
    }
    return render(request, "dashboard/warm_ups/detail.html", context)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def warm_up_pause(request: AdminRequest, warm_up_id: str) -> HttpResponse:
    return _steer(request, warm_up_id, STEERING["pause"])


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def warm_up_resume(request: AdminRequest, warm_up_id: str) -> HttpResponse:
    return _steer(request, warm_up_id, STEERING["resume"])


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def warm_up_cancel(request: AdminRequest, warm_up_id: str) -> HttpResponse:
    return _steer(request, warm_up_id, STEERING["cancel"])


def _steer(request: AdminRequest, warm_up_id: str, steering: Steering) -> HttpResponse:
    warm_up = find_warm_up(warm_up_id)
    if warm_up is None:
        return _unknown(request)

    def do() -> str:
        steering.do(request, warm_up)
        return f"It is {steering.done}."

    return confirm_page(
        request,
        title=steering.question,
        text=steering.text,
        label=steering.question.removesuffix("?"),
        icon=steering.icon,
        tone=steering.tone,
        back=reverse("dashboard:warm-ups-detail", args=[warm_up_id]),
        back_label=warm_up.name,
        do=do,
    )


def _hours(limits: WarmUpLimits) -> dict[str, Any]:
    now = utcnow()
    return {"limits": limits, "is_quiet": is_quiet(limits, now), "next_quiet": next_quiet(limits, now)}


def _begins(warm_up: WarmUp) -> str:
    limits = warm_limits()
    if warm_up.any_hour or is_quiet(limits, utcnow()):
        return "It begins now."
    return f"It begins at {limits.quiet_from} ({limits.time_zone})."


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such warm-up.", "They are forgotten after 90 days.")
