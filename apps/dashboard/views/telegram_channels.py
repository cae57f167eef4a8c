"""One Telegram channel: add it, look at it, its settings, stop and use it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import ApiError
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, may, problem, record_change
from apps.dashboard.telegram_forms import ChannelForm, ChannelSettingsForm
from apps.dashboard.telegram_lists import channel_state
from apps.dashboard.views.telegram import PAGE
from apps.keys.documents import Role
from apps.telegram_cache.documents import TelegramChannel
from apps.telegram_cache.selectors import all_bots, find_channel
from apps.telegram_cache.services.channels import (
    add_channel,
    disable_channel,
    enable_channel,
    make_channel_default,
    set_messages_per_min,
    set_playable,
    set_scratch_chat,
)
from apps.telegram_cache.services.checks import Finding

SETTINGS = ("scratch_chat_id", "playable", "messages_per_min")


@admin_page()
def channel_detail(request: AdminRequest, channel_id: str) -> HttpResponse:
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)
    return _show(request, channel, _settings_form(channel))


@admin_page(Role.OPERATOR, methods=("POST",))
def channel_settings(request: AdminRequest, channel_id: str) -> HttpResponse:
    """Scratch chat, playable copies, messages a minute. New uploads and reads keep to it within a second."""
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)
    form = ChannelSettingsForm(request.POST)
    if not form.is_valid():
        return _show(request, channel, form, status=422)
    wanted = form.cleaned_data
    try:
        if wanted["scratch_chat"].strip() != channel.scratch_chat_id:
            set_scratch_chat(channel_id, wanted["scratch_chat"].strip())
    except ApiError as error:
        form.add_error("scratch_chat", error.message)
        return _show(request, channel, form, status=422)
    set_playable(channel_id, wanted["playable"])
    after = set_messages_per_min(channel_id, wanted["messages_per_min"])
    record_change(
        request, "channel.settings", target_kind="channel", target_id=channel_id, before=_facts(channel, SETTINGS),
        after=_facts(after, SETTINGS),
    )  # fmt: skip
    messages.success(request, "The settings are in use.")
    return redirect("dashboard:telegram-channel", channel_id)


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
            after = _facts(channel, ("title", "is_default"))
            record_change(request, "channel.add", target_kind="channel", target_id=channel.channel_id, after=after)
            return _in_use(request, channel, findings)
    context = {"form": form, "title": "Add a channel", "label": "Check and add", "help": "channel"}
    return render(request, "dashboard/telegram/new.html", context, status=422 if form.errors else 200)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_disable(request: AdminRequest, channel_id: str) -> HttpResponse:
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)
    if request.method != "POST":
        text = f"Nothing new is sent to “{channel.title or channel_id}”. What it holds stays readable."
        return _ask(request, title="Stop using this channel?", text=text, label="Stop using", icon="pause")
    disable_channel(channel_id)
    record_change(
        request, "channel.disable", target_kind="channel", target_id=channel_id, before={"state": channel.state},
        after={"state": "disabled"},
    )  # fmt: skip
    messages.success(request, "The channel is not used any more.")
    return redirect(PAGE)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_enable(request: AdminRequest, channel_id: str) -> HttpResponse:
    """Use a channel again, if a bot can post there."""
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)
    if request.method != "POST":
        text = f"Telegram is asked whether the bots can post in “{channel.title or channel_id}”. Then it is used again."
        return _ask(request, title="Use this channel again?", text=text, label="Use again", icon="check")
    try:
        after, findings = enable_channel(channel_id)
    except ApiError as error:
        messages.error(request, error.message)
        return redirect("dashboard:telegram-channel", channel_id)
    record_change(
        request, "channel.enable", target_kind="channel", target_id=channel_id, before={"state": channel.state},
        after={"state": after.state},
    )  # fmt: skip
    return _in_use(request, after, findings)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_default(request: AdminRequest, channel_id: str) -> HttpResponse:
    """Send new parts to another channel. Uploads that have begun go on; each of their parts says where it is."""
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)
    name = channel.title or channel_id
    if request.method != "POST":
        text = f"From now on everything new goes to “{name}”. The others stay readable."
        return _ask(request, title="Send new parts to this channel?", text=text, label="Use it", icon="check")
    try:
        make_channel_default(channel_id)
    except ApiError as error:
        messages.error(request, error.message)
        return redirect(PAGE)
    record_change(
        request, "channel.default", target_kind="channel", target_id=channel_id,
        before={"is_default": channel.is_default}, after={"is_default": True},
    )  # fmt: skip
    messages.success(request, f"New parts go to “{name}”.")
    return redirect(PAGE)


def _settings_form(channel: TelegramChannel) -> ChannelSettingsForm:
    return ChannelSettingsForm(
        initial={
            "scratch_chat": channel.scratch_chat_id,
            "playable": channel.playable,
            "messages_per_min": channel.messages_per_min,
        }
    )


def _show(
    request: AdminRequest, channel: TelegramChannel, form: ChannelSettingsForm, *, status: int = 200
) -> HttpResponse:
    if not may(request.admin_user, Role.OPERATOR):
        for field in form.fields.values():
            field.disabled = True
    context = {
        "channel": channel,
        "form": form,
        "state": channel_state(channel),
        "barred": [
            (bot.username or bot.bot_id, bot.barred[channel.channel_id])
            for bot in all_bots()
            if channel.channel_id in bot.barred
        ],
        "history": selectors.history("channel", channel.channel_id),
    }
    return render(request, "dashboard/telegram/channel.html", context, status=status)


def _in_use(request: AdminRequest, channel: TelegramChannel, findings: Sequence[Finding]) -> HttpResponse:
    messages.success(request, f"The channel “{channel.title or channel.channel_id}” is in use.")
    for finding in findings:
        if finding.fix:
            messages.warning(request, f"{finding.text} {finding.fix}")
    return redirect(PAGE)


def _facts(channel: TelegramChannel, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(channel, name) for name in names}


def _ask(request: AdminRequest, *, title: str, text: str, label: str, icon: str) -> HttpResponse:
    context = {
        "title": title,
        "text": text,
        "label": label,
        "tone": "danger" if icon == "pause" else "primary",
        "icon_name": icon,
        "back": reverse(PAGE),
        "back_label": "Telegram",
    }
    return render(request, "dashboard/confirm.html", context)


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such channel.", "It may have been removed since the list was shown.")
