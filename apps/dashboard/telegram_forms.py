"""The forms for Telegram bots and channels."""

from __future__ import annotations

from django import forms

from apps.dashboard.change_forms import ChangeForm
from apps.dashboard.forms import AdminForm
from apps.telegram_cache.services.channels import MAX_CHANNEL_CHARACTERS, MAX_MESSAGES_PER_MIN


class BotForm(AdminForm):
    """A bot's token. It is checked with Telegram and stored encrypted; no page ever shows it again."""

    token = forms.CharField(
        max_length=200,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="As BotFather gives it: a number, a colon, letters. It is stored encrypted and never shown again.",
    )


class ChannelForm(AdminForm):
    """A channel's id or name."""

    channel = forms.CharField(
        label="Channel",
        max_length=MAX_CHANNEL_CHARACTERS,
        help_text="The link of one of its messages, its id, such as -1001234567890, or its @name. "
        "The bots must be in it.",
    )
    make_default = forms.BooleanField(label="Send new parts here", required=False, initial=True)


class ChannelSettingsForm(ChangeForm):
    """What can be chosen for one channel."""

    scratch_chat = forms.CharField(
        label="Scratch chat",
        max_length=MAX_CHANNEL_CHARACTERS,
        required=False,
        help_text="Where short-lived copies go when a bot needs its own access to what another one stored: "
        "the id or @name of a chat that all bots may post in. Empty: into the channel itself, and away again.",
    )
    playable = forms.BooleanField(
        label="Also post media up to 50 MB as a song or video that plays",
        required=False,
        help_text="For new media. Answers of the API then have a t.me link to it.",
    )
    messages_per_min = forms.IntegerField(
        label="Messages a minute",
        min_value=1,
        max_value=MAX_MESSAGES_PER_MIN,
        help_text="How many each bot sends there at most. Telegram publishes no exact limit; 60 is careful.",
    )
