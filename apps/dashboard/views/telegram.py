"""Telegram bots and channels: list, add, check, stop using."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import ApiError
from apps.dashboard.access import AdminRequest, admin_page, may, problem, record_change
from apps.dashboard.forms import BotForm, ChannelForm
from apps.dashboard.lists import read_page
from apps.dashboard.telegram_lists import BOT_LIST, CHANNEL_LIST
from apps.keys.documents import Role
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.selectors import find_bot, find_channel
from apps.telegram_cache.services.bots import add_bot, check_all, disable_bot
from apps.telegram_cache.services.channels import add_channel, disable_channel, make_channel_default

PAGE = "dashboard:telegram"


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
    """Ask Telegram about every bot and channel, and say what it said."""
    findings = check_all()
    for finding in findings:
        if not finding.ok:
            messages.error(request, f"{finding.text} {finding.fix}".strip())
    if findings and all(finding.ok for finding in findings):
        messages.success(request, "Telegram was asked: every bot and channel is fine.")
    if not findings:
        messages.info(request, "There is nothing to check yet: add a bot first.")
    return redirect(PAGE)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_new(request: AdminRequest) -> HttpResponse:
    """Add a bot, or give a known one a new token."""
    form = BotForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            bot = add_bot(form.cleaned_data["token"])
        except ApiError as error:
            form.add_error("token", error.message)
        else:
            after = {"username": bot.username, "state": bot.state}
            record_change(request, "bot.add", target_kind="bot", target_id=bot.bot_id, after=after)
            messages.success(request, f"The bot @{bot.username} is in use.")
            return redirect(PAGE)
    context = {"form": form, "title": "Add a bot", "label": "Check and add", "help": "bot"}
    return render(request, "dashboard/telegram/new.html", context, status=422 if form.errors else 200)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_new(request: AdminRequest) -> HttpResponse:
    """Add a channel that the bots can post in."""
    form = ChannelForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            channel, findings = add_channel(
                form.cleaned_data["channel"], make_default=form.cleaned_data["make_default"]
            )
        except ApiError as error:
            form.add_error("channel", error.message)
        else:
            after = {"title": channel.title, "is_default": channel.is_default}
            record_change(request, "channel.add", target_kind="channel", target_id=channel.channel_id, after=after)
            messages.success(request, f"The channel “{channel.title or channel.channel_id}” is in use.")
            for finding in findings:
                if not finding.ok:
                    messages.error(request, f"{finding.text} {finding.fix}".strip())
            return redirect(PAGE)
    context = {"form": form, "title": "Add a channel", "label": "Check and add", "help": "channel"}
    return render(request, "dashboard/telegram/new.html", context, status=422 if form.errors else 200)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_disable(request: AdminRequest, bot_id: str) -> HttpResponse:
    bot = find_bot(bot_id)
    if bot is None:
        return problem(request, 404, "There is no such bot.", "It may have been removed since the list was shown.")
    question = {
        "title": "Stop using this bot?",
        "text": f"@{bot.username or bot_id} sends and reads nothing from now on. What it stored stays readable "
        "through the other bots of the channel. Add its token again to use it again.",
    }
    return _stop(request, question, "bot", bot_id, before={"state": bot.state}, stop=lambda: disable_bot(bot_id))


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_disable(request: AdminRequest, channel_id: str) -> HttpResponse:
    channel = find_channel(channel_id)
    if channel is None:
        return problem(request, 404, "There is no such channel.", "It may have been removed since the list was shown.")
    question = {
        "title": "Stop using this channel?",
        "text": f"Nothing new is sent to “{channel.title or channel_id}”. What it holds stays readable. "
        "Add it again to use it again.",
    }
    before = {"state": channel.state}
    return _stop(request, question, "channel", channel_id, before=before, stop=lambda: disable_channel(channel_id))


def _stop(
    request: AdminRequest,
    question: dict[str, str],
    kind: str,
    target_id: str,
    *,
    before: dict[str, Any],
    stop: Callable[[], None],
) -> HttpResponse:
    if request.method != "POST":
        back = {"back": reverse(PAGE), "back_label": "Telegram"}
        answer = {"label": "Stop using", "tone": "danger", "icon_name": "pause"}
        return render(request, "dashboard/confirm.html", {**question, **answer, **back})
    stop()
    record_change(
        request, f"{kind}.disable", target_kind=kind, target_id=target_id, before=before, after={"state": "disabled"}
    )
    messages.success(request, f"The {kind} is not used any more.")
    return redirect(PAGE)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_default(request: AdminRequest, channel_id: str) -> HttpResponse:
    channel = find_channel(channel_id)
    if channel is None:
        return problem(request, 404, "There is no such channel.", "It may have been removed since the list was shown.")
    if request.method != "POST":
        context = {
            "title": "Send new parts to this channel?",
            "text": f"From now on everything new goes to “{channel.title or channel_id}”. The others stay readable.",
            "label": "Use it",
            "tone": "primary",
            "icon_name": "check",
            "back": reverse(PAGE),
            "back_label": "Telegram",
        }
        return render(request, "dashboard/confirm.html", context)
    make_channel_default(channel_id)
    record_change(
        request,
        "channel.default",
        target_kind="channel",
        target_id=channel_id,
        before={"is_default": channel.is_default},
        after={"is_default": True},
    )
    messages.success(request, f"New parts go to “{channel.title or channel_id}”.")
    return redirect(PAGE)
