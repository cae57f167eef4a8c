"""One Telegram channel: add it, look at it, its settings, stop and use it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import ApiError
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, may, problem, record_change
from apps.dashboard.telegram_forms import ChannelForm, ChannelSettingsForm
from apps.dashboard.telegram_lists import channel_state
from apps.dashboard.views.telegram import PAGE, telegram_form, telegram_question
from apps.keys.documents import Role
from apps.telegram_cache.documents import TelegramChannel
from apps.telegram_cache.selectors import all_bots, find_channel
from apps.telegram_cache.services.channels import (
    add_channel,
    disable_channel,
    enable_channel,
    make_channel_default,
    update_channel,
)
from apps.telegram_cache.services.checks import Finding

SETTINGS = {"scratch_chat": "scratch_chat_id", "playable": "playable", "messages_per_min": "messages_per_min"}


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
    form = _settings_form(channel, request.POST)
    if not form.is_valid():
        return _show(request, channel, form, status=422)
    changes = {SETTINGS[name]: form.cleaned_data[name] for name in form.changed_data}
    if not changes:
        messages.success(request, "Nothing changed.")
        return redirect("dashboard:telegram-channel", channel_id)
    try:
        after = update_channel(channel_id, changes, seen=_facts(channel, list(changes)))
    except ApiError as error:
        field = str(error.context.get("parameter", ""))
        form.add_error(field if field in form.fields else None, error.message)
        return _show(request, channel, form, status=422)
    _record(request, "settings", channel, _facts(after, list(changes)))
    messages.success(request, "The settings are in use.")
    return redirect("dashboard:telegram-channel", channel_id)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_new(request: AdminRequest) -> HttpResponse:
    """Add a channel that the bots can post in."""

    def save(fields: dict[str, Any]) -> HttpResponse:
        channel, findings = add_channel(fields["channel"], make_default=fields["make_default"])
        after = _facts(channel, ("title", "is_default"))
        record_change(request, "channel.add", target_kind="channel", target_id=channel.channel_id, after=after)
        messages.success(request, _in_use(request, channel, findings))
        return redirect(PAGE)

    form = ChannelForm(request.POST or None)
    return telegram_form(
        request, form, title="Add a channel", label="Check and add", about="channel", blamed="channel", save=save
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_disable(request: AdminRequest, channel_id: str) -> HttpResponse:
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)

    def do() -> str:
        disable_channel(channel_id)
        _record(request, "disable", channel, {"state": "disabled"})
        return "The channel is not used any more."

    text = f"Nothing new is sent to “{channel.title or channel_id}”. What it holds stays readable."
    if channel.is_default:
        text += " New files stay on this server only until you choose another channel for new parts."
    return telegram_question(
        request, title="Stop using this channel?", text=text, label="Stop using", icon="pause", do=do
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_enable(request: AdminRequest, channel_id: str) -> HttpResponse:
    """Use a channel again, if a bot can post there."""
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)

    def do() -> str:
        after, findings = enable_channel(channel_id)
        _record(request, "enable", channel, {"state": after.state})
        return _in_use(request, after, findings)

    text = f"Telegram is asked whether the bots can post in “{channel.title or channel_id}”. Then it is used again."
    back = reverse("dashboard:telegram-channel", args=[channel_id])
    return telegram_question(
        request, title="Use this channel again?", text=text, label="Use again", icon="check", do=do, back=back
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def channel_default(request: AdminRequest, channel_id: str) -> HttpResponse:
    """Send new parts to another channel. Uploads that have begun go on; each of their parts says where it is."""
    channel = find_channel(channel_id)
    if channel is None:
        return _unknown(request)
    name = channel.title or channel_id

    def do() -> str:
        make_channel_default(channel_id)
        _record(request, "default", channel, {"is_default": True})
        return f"New parts go to “{name}”."

    text = f"From now on everything new goes to “{name}”. The others stay readable."
    return telegram_question(
        request, title="Send new parts to this channel?", text=text, label="Use it", icon="check", do=do
    )


def _record(request: AdminRequest, what: str, channel: TelegramChannel, after: dict[str, Any]) -> None:
    before = _facts(channel, tuple(after))
    record_change(
        request, f"channel.{what}", target_kind="channel", target_id=channel.channel_id, before=before, after=after
    )


def _settings_form(channel: TelegramChannel, sent: QueryDict | None = None) -> ChannelSettingsForm:
    return ChannelSettingsForm(sent, initial={name: getattr(channel, stored) for name, stored in SETTINGS.items()})


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


def _in_use(request: AdminRequest, channel: TelegramChannel, findings: Sequence[Finding]) -> str:
    """What to say of it; what still needs attention is said as warnings."""
    for finding in findings:
        if finding.fix:
            messages.warning(request, f"{finding.text} {finding.fix}")
    return f"The channel “{channel.title or channel.channel_id}” is in use."


def _facts(channel: TelegramChannel, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(channel, name) for name in names}


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such channel.", "It may have been removed since the list was shown.")
