"""The lists of Telegram bots and channels."""

from __future__ import annotations

from datetime import UTC, datetime

from django.urls import reverse

from apps.dashboard.lists import Action, Cell, Column, ListSpec
from apps.dashboard.lists.spec import Empty
from apps.dashboard.templatetags.ui import relative
from apps.telegram_cache.documents import BotState, TelegramBot, TelegramChannel

STATE_WORDS = {
    BotState.ACTIVE: ("in use", "success"),
    BotState.COOLING: ("resting", "warning"),
    BotState.DISABLED: ("off", "danger"),
}


def bot_state(bot: TelegramBot) -> Cell:
    """The state in plain words, why, and until when."""
    word, tone = STATE_WORDS[bot.state_now]
    note = bot.reason_now or (f"cannot post in {len(bot.barred)} of the channels" if bot.barred else "")
    if bot.until_now is not None:
        note = f"{note or 'Telegram asked to wait'}, goes on {relative(bot.until_now, datetime.now(UTC))}"
    return Cell(kind="badge", value=word, tone=tone, note=note)


def channel_state(channel: TelegramChannel) -> Cell:
    """The state in plain words and why; whether new parts go there."""
    word, tone = STATE_WORDS[BotState(channel.state)]
    note = channel.reason or channel.alert or ("new parts go here" if channel.is_default else "read only")
    return Cell(kind="badge", value=word, tone=tone, note=note)


def _bot_href(bot: TelegramBot, action: str = "") -> str:
    return reverse(f"dashboard:telegram-bot{action}", args=[bot.bot_id])


def _bot_actions(bot: TelegramBot) -> list[Action]:
    actions = [Action(label="New token", icon="key", href=_bot_href(bot, "-token"))]
    if bot.state == BotState.DISABLED:
        return [*actions, Action(label="Use again", icon="check", href=_bot_href(bot, "-enable"), tone="success")]
    return [*actions, Action(label="Stop using", icon="pause", href=_bot_href(bot, "-disable"), tone="danger")]


def _channel_href(channel: TelegramChannel, action: str = "") -> str:
    return reverse(f"dashboard:telegram-channel{action}", args=[channel.channel_id])


def _channel_actions(channel: TelegramChannel) -> list[Action]:
    if channel.state == BotState.DISABLED:
        return [Action(label="Use again", icon="check", href=_channel_href(channel, "-enable"), tone="success")]
    actions = []
    if not channel.is_default:
        actions.append(Action(label="Use for new parts", icon="check", href=_channel_href(channel, "-default")))
    stop = Action(label="Stop using", icon="pause", href=_channel_href(channel, "-disable"), tone="danger")
    return [*actions, stop]


BOT_LIST = ListSpec(
    document=TelegramBot,
    sort="_id",
    page_size=500,  # both lists share one page: no paging
    columns=(
        Column(
            label="Bot",
            cell=lambda bot: Cell(
                value=f"@{bot.username}" if bot.username else "name not known yet", href=_bot_href(bot)
            ),
        ),
        Column(label="Id", cell=lambda bot: Cell(kind="code", value=bot.bot_id)),
        Column(label="State", cell=bot_state),
        Column(label="Changed", cell=lambda bot: Cell(kind="time", value=bot.updated_at)),
    ),
    exclude=("token_encrypted",),
    row_actions=_bot_actions,
    empty=Empty(
        title="No bots yet",
        text="Without a bot, videos stay on this server only and old ones are fetched again. "
        "Make a bot with BotFather in Telegram, then add its token here.",
        icon="send",
        href="/admin/telegram/bots/new",
        label="Add a bot",
    ),
)

CHANNEL_LIST = ListSpec(
    document=TelegramChannel,
    sort="_id",
    page_size=500,  # both lists share one page: no paging
    columns=(
        Column(
            label="Channel",
            cell=lambda channel: Cell(
                value=channel.title or channel.channel_id,
                note=f"@{channel.username}" if channel.username else "",
                href=_channel_href(channel),
            ),
        ),
        Column(label="Id", cell=lambda channel: Cell(kind="code", value=channel.channel_id)),
        Column(label="State", cell=channel_state),
        Column(label="Playable copies", cell=lambda channel: Cell(value="yes" if channel.playable else "no")),
        Column(label="Changed", cell=lambda channel: Cell(kind="time", value=channel.updated_at)),
    ),
    row_actions=_channel_actions,
    empty=Empty(
        title="No channel yet",
        text="Make a private channel in Telegram, add your bots to it as administrators who may post, then add it "
        "here. Bots come first: the channel is looked up with them.",
        icon="inbox",
        href="/admin/telegram/channels/new",
        label="Add a channel",
    ),
)
