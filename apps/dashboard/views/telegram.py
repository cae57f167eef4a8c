"""Telegram: what is used, what needs attention, and asking Telegram about all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.forms import Form
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard.access import AdminRequest, admin_page, may
from apps.dashboard.lists import read_page
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.telegram_lists import BOT_LIST, CHANNEL_LIST
from apps.keys.documents import Role
from apps.telegram_cache.alerts import Alert, alerts
from apps.telegram_cache.services.bots import check_all
from apps.telegram_cache.services.checks import Finding

PAGE = "dashboard:telegram"


def telegram_form(
    request: AdminRequest,
    form: Form,
    *,
    title: str,
    label: str,
    about: str,
    blamed: str,
    save: Callable[[dict[str, Any]], HttpResponse],
) -> HttpResponse:
    """A form of this section. ``about``: bot, token or channel, which the hints below it are about."""
    return form_page(
        request, form, title=title, label=label, back=reverse(PAGE), back_label="Telegram", save=save,
        help_template=f"dashboard/telegram/_help_{about}.html", blamed=blamed,
    )  # fmt: skip


def telegram_question(
    request: AdminRequest, *, title: str, text: str, label: str, icon: str, do: Callable[[], str], back: str = ""
) -> HttpResponse:
    """A question of this section; ``back``: where to go when it cannot be done."""
    return confirm_page(
        request, title=title, text=text, label=label, icon=icon, tone="danger" if icon == "pause" else "primary",
        back=back or reverse(PAGE), back_label="Telegram", do=do, then=reverse(PAGE),
    )  # fmt: skip


@admin_page()
def telegram(request: AdminRequest) -> HttpResponse:
    can_change = may(request.admin_user, Role.OPERATOR)
    context = {
        "bots": read_page(BOT_LIST, {}, can_change=can_change),
        "channels": read_page(CHANNEL_LIST, {}, can_change=can_change),
        "can_change": can_change,
        "alerts": alerts(),
    }
    return render(request, "dashboard/telegram/page.html", context)


@admin_page(Role.OPERATOR, methods=("POST",))
def check(request: AdminRequest) -> HttpResponse:
    """Ask Telegram about every bot and channel, and say what it said, but for what the page's alerts say already."""
    findings = check_all()
    open_alerts = alerts()
    wrong = [finding for finding in findings if not finding.ok or finding.fix]
    untold = [finding for finding in wrong if not any(_tells(alert, finding) for alert in open_alerts)]
    for finding in untold:
        say = messages.warning if finding.ok else messages.error
        say(request, f"{finding.text} {finding.fix}".strip())
    if not findings:
        messages.info(request, "There is nothing to check yet: add a bot first.")
    elif not wrong:
        messages.success(request, "Telegram was asked: every bot and channel is fine.")
    elif not untold:
        messages.info(request, "Telegram was asked. What needs attention stands below.")
    return redirect(PAGE)


def _tells(alert: Alert, finding: Finding) -> bool:
    """Whether an alert of the page says what was found: of a bot that is not used at all, or in the same words."""
    if alert.kind == "bot" and alert.id == finding.bot_id and not finding.channel_id:
        return True
    return alert.id in (finding.bot_id, finding.channel_id) and finding.text in alert.text
