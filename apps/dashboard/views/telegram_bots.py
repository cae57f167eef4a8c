"""One Telegram bot: add it, look at it, give it a new token, stop and use it again."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, problem, record_change
from apps.dashboard.telegram_forms import BotForm
from apps.dashboard.telegram_lists import bot_state
from apps.dashboard.views.telegram import PAGE, telegram_form, telegram_question
from apps.keys.documents import Role
from apps.telegram_cache.documents import BotState, TelegramBot
from apps.telegram_cache.selectors import all_bots, all_channels, find_bot
from apps.telegram_cache.services.bots import add_and_check_bot, disable_bot, enable_bot, replace_token


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

    def save(fields: dict[str, Any]) -> HttpResponse:
        bot, findings = add_and_check_bot(fields["token"])
        record_change(request, "bot.add", target_kind="bot", target_id=bot.bot_id, after=_facts(bot))
        messages.success(request, f"The bot @{bot.username} is in use.")
        for finding in findings:
            if not finding.ok or finding.fix:
                messages.warning(request, f"{finding.text} {finding.fix}".strip())
        return redirect(PAGE)

    form = BotForm(request.POST or None)
    return telegram_form(
        request, form, title="Add a bot", label="Check and add", about="bot", blamed="token", save=save
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_token(request: AdminRequest, bot_id: str) -> HttpResponse:
    """Give a bot the token that BotFather made anew. Running uploads and streams go on with it."""
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)

    def save(fields: dict[str, Any]) -> HttpResponse:
        after = replace_token(bot_id, fields["token"])
        _record(request, "token", bot, _facts(after))
        messages.success(request, f"@{after.username} has its new token. What it stored stays readable.")
        return redirect(PAGE)

    title, form = f"A new token for @{bot.username or bot_id}", BotForm(request.POST or None)
    return telegram_form(request, form, title=title, label="Check and use it", about="token", blamed="token", save=save)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_disable(request: AdminRequest, bot_id: str) -> HttpResponse:
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)

    def do() -> str:
        disable_bot(bot_id)
        _record(request, "disable", bot, {"state": "disabled"})
        return "The bot is not used any more."

    text = f"@{bot.username or bot_id} sends and reads nothing from now on."
    if any(other.bot_id != bot_id and other.state != BotState.DISABLED for other in all_bots()):
        text += " What it stored stays readable through the other bots of the channel."
    else:
        text += " No other bot is in use: until one is, nothing is stored in Telegram and nothing read from there."
    return telegram_question(request, title="Stop using this bot?", text=text, label="Stop using", icon="pause", do=do)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def bot_enable(request: AdminRequest, bot_id: str) -> HttpResponse:
    """Use a bot again, if Telegram still takes its token."""
    bot = find_bot(bot_id)
    if bot is None:
        return _unknown(request)

    def do() -> str:
        after = enable_bot(bot_id)
        _record(request, "enable", bot, _facts(after))
        return f"The bot @{after.username} is in use."

    text = f"Telegram is asked whether the stored token of @{bot.username or bot_id} is still good. Then it is used."
    back = reverse("dashboard:telegram-bot", args=[bot_id])
    return telegram_question(
        request, title="Use this bot again?", text=text, label="Use again", icon="check", do=do, back=back
    )


def _record(request: AdminRequest, what: str, bot: TelegramBot, after: dict[str, str]) -> None:
    before = {name: value for name, value in _facts(bot).items() if name in after}
    record_change(request, f"bot.{what}", target_kind="bot", target_id=bot.bot_id, before=before, after=after)


def _facts(bot: TelegramBot) -> dict[str, str]:
    return {"username": bot.username, "state": bot.state}


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such bot.", "It may have been removed since the list was shown.")
