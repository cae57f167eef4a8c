"""The forms for warm-ups: a new list, and the limits."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.errors import ApiError
from apps.dashboard.change_forms import ChangeForm
from apps.dashboard.forms import AdminForm
from apps.downloads.list_links import parse_playlist_id
from apps.downloads.variants import AUDIO_FORMATS
from apps.telegram_cache.documents import MediaKind

GIB = 1024**3
HEIGHTS = ("2160", "1440", "1080", "720", "480", "360", "240", "144")
WHAT = (
    ("audio", "Audio: m4a, else mp3"),
    *((f"audio:{name}", f"Audio: {name}") for name in AUDIO_FORMATS),
    ("video", "Video: the best there is"),
    *((f"video:{height}", f"Video: {height}p or the next lower") for height in HEIGHTS),
)


class WarmUpForm(AdminForm):
    """A list of links, or a playlist."""

    name = forms.CharField(max_length=100, help_text="Your own name for this list.")
    links = forms.CharField(
        required=False,
        max_length=60_000,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
        help_text="Video links or ids, one a line. About a thousand fit; `manage.py cache warm --later` takes more.",
    )
    playlist = forms.CharField(
        required=False, max_length=500, help_text="Instead of links: a playlist's link or id. Its first 500 videos."
    )
    what = forms.ChoiceField(label="Fetch", choices=WHAT)
    any_hour = forms.BooleanField(required=False, label="Begin now, whatever the hour")

    def clean_playlist(self) -> str:
        text = self.cleaned_data["playlist"]
        try:
            return parse_playlist_id(text) if text else ""
        except ApiError as error:
            raise forms.ValidationError(error.message) from None

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if bool(data.get("links")) == bool(data.get("playlist")) and not self.errors:
            raise forms.ValidationError("Give either links or a playlist.")
        return data

    def arguments(self) -> dict[str, Any]:
        """The valid form as keyword arguments of ``make_warm_up``."""
        data = self.cleaned_data
        kind, _, wish = data["what"].partition(":")
        lines = (line.strip() for line in data["links"].splitlines())
        return {
            "name": data["name"],
            "kind": MediaKind(kind),
            "wish": wish or None,
            "links": [line for line in lines if line and not line.startswith("#")],
            "playlist_id": data["playlist"],
            "any_hour": data["any_hour"],
        }


class WarmLimitsForm(ChangeForm):
    """When and how much is fetched ahead."""

    quiet_from = forms.CharField(label="Quiet hours from", max_length=5, widget=forms.TimeInput(attrs={"type": "time"}))
    quiet_until = forms.CharField(
        label="until",
        max_length=5,
        widget=forms.TimeInput(attrs={"type": "time"}),
        help_text="May go over midnight. The same time twice: every hour is quiet.",
    )
    time_zone = forms.CharField(label="Time zone", max_length=50, help_text="Such as Europe/Berlin, or UTC.")
    at_once = forms.IntegerField(label="Fetches at once", min_value=1, max_value=50)
    max_per_hour = forms.IntegerField(label="Fetches an hour", min_value=1, max_value=10_000)
    gib_per_day = forms.FloatField(
        label="GiB a day", min_value=0.01, max_value=100_000, help_text="When so much was fetched, the rest waits."
    )

    def changes(self) -> dict[str, Any]:
        """What was changed in the form, as ``save_warm_limits`` takes it."""
        data = {name: self.cleaned_data[name] for name in self.changed_data}
        if "gib_per_day" in data:
            data["max_bytes_per_day"] = round(data.pop("gib_per_day") * GIB)
        return data
