"""One Telegram bot: add it, look at it, give it a new token, stop and use it again."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.core.errors import ApiError
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, problem, record_change
from apps.dashboard.telegram_forms import BotForm
from apps.dashboard.telegram_lists import bot_state
from apps.dashboard.views.telegram import PAGE
from apps.keys.documents import Role
from apps.telegram_cache.documents import TelegramBot
from apps.telegram_cache.selectors import all_channels, find_bot
from apps.telegram_cache.services.bots import add_bot, disable_bot, enable_bot, replace_token


@admin_page()
def bot_detail(request: AdminRequest, bot_id: str) -> HttpResponse:
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)
    names = {channel.channel_id: channel.title or channel.channel_id for channel in all_channels()}
    context = {
        "bot": bot,
        "state": bot_state(bot),
        "barred": [(names.get(channel_id, channel_id), reason) for channel_id, reason in bot.barred.items()],
        "history": selectors.history("bot", bot_id),
    }
    return render(request, "dashboard/telegram/bot.html", context)


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
            record_change(request, "bot.add", target_kind="bot", target_id=bot.bot_id, after=_facts(bot))
            messages.success(request, f"The bot @{bot.username} is in use.")
            return redirect(PAGE)
    context = {"form": form, "title": "Add a bot", "label": "Check and add", "help": "bot"}
    return render(request, "dashboard/telegram/new.html", context, status=422 if form.errors else 200)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_token(request: AdminRequest, bot_id: str) -> HttpResponse:
    """Give a bot the token that BotFather made anew. Running uploads and streams go on with it."""
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)
    form = BotForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            after = replace_token(bot_id, form.cleaned_data["token"])
        except ApiError as error:
            form.add_error("token", error.message)
        else:
            record_change(
                request, "bot.token", target_kind="bot", target_id=bot_id, before=_facts(bot), after=_facts(after)
            )
            messages.success(request, f"@{after.username} has its new token. What it stored stays readable.")
            return redirect(PAGE)
    context = {"form": form, "title": f"A new token for @{bot.username or bot_id}", "label": "Check and use it",
               "help": "token"}  # fmt: skip
    return render(request, "dashboard/telegram/new.html", context, status=422 if form.errors else 200)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_disable(request: AdminRequest, bot_id: str) -> HttpResponse:
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)
    if request.method != "POST":
        text = (
            f"@{bot.username or bot_id} sends and reads nothing from now on. What it stored stays readable "
            "through the other bots of the channel."
        )
        answer = {"label": "Stop using", "tone": "danger", "icon_name": "pause"}
        return _ask(request, {"title": "Stop using this bot?", "text": text, **answer})
    disable_bot(bot_id)
    record_change(
        request, "bot.disable", target_kind="bot", target_id=bot_id, before={"state": bot.state},
        after={"state": "disabled"},
    )  # fmt: skip
    messages.success(request, "The bot is not used any more.")
    return redirect(PAGE)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_enable(request: AdminRequest, bot_id: str) -> HttpResponse:
    """Use a bot again, if Telegram still takes its token."""
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)
    if request.method != "POST":
        text = (
            f"Telegram is asked whether the stored token of @{bot.username or bot_id} is still good. Then it is used."
        )
        answer = {"label": "Use again", "tone": "primary", "icon_name": "check"}
        return _ask(request, {"title": "Use this bot again?", "text": text, **answer})
    try:
        after = enable_bot(bot_id)
    except ApiError as error:
        messages.error(request, error.message)
        return redirect("dashboard:telegram-bot", bot_id)
    record_change(request, "bot.enable", target_kind="bot", target_id=bot_id, before=_facts(bot), after=_facts(after))
    messages.success(request, f"The bot @{after.username} is in use.")
    return redirect(PAGE)


def _facts(bot: TelegramBot) -> dict[str, str]:
    return {"username": bot.username, "state": bot.state}


def _ask(request: AdminRequest, question: dict[str, str]) -> HttpResponse:
    return render(request, "dashboard/confirm.html", {**question, "back": reverse(PAGE), "back_label": "Telegram"})


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such bot.", "It may have been removed since the list was shown.")
