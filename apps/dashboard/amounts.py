"""Numbers with units as people write them: "20 GB", "6 h", "1000"."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from apps.dashboard.forms import BOUNDS
from apps.dashboard.templatetags.ui import grouped, human_bytes

UNITS = {
    "bytes": {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4},
    "s": {"s": 1, "min": 60, "h": 3600, "d": 86400},
}
ON_OFF = "on_off"
SUCH_AS = {
    "bytes": " and one of B, KB, MB, GB, TB, such as 20 GB or 1.5 GB",
    "s": " and one of s, min, h, d, such as 90 min or 1.5 h",
}
MOST = 10**18  # that MongoDB keeps as a number
_AMOUNT = re.compile(r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{1,3})?)\s*(?P<unit>[A-Za-z]*)", re.ASCII)


def amount_text(value: int, unit: str) -> str:
    """The exact value with the largest unit that fits evenly: 21600 s is "6 h"."""
    for name, size in reversed(UNITS.get(unit, {}).items()):
        if value and value % size == 0:
            return f"{value // size} {name}"
    return str(value)


def amount_words(value: int, unit: str) -> str:
    """The value for reading: rounded where that reads better."""
    if unit == ON_OFF:
        return "on" if value else "off"
    if unit == "bytes":
        return human_bytes(value)
    return amount_text(value, unit) if unit in UNITS else grouped(value)


def unit_of(name: str) -> str:
    """The unit that a field's or setting's name tells: HOT_MAX_BYTES, grace_s. "" where it tells none."""
    words = name.lower().split("_")
    return "bytes" if "bytes" in words else "s" if words[-1] == "s" else ""


def _limit_words(value: int, unit: str) -> str:
    """The value with its thousands apart, as messages say it: exact, or where nobody could read that, a little less in
    the largest unit."""
    number, _, name = amount_text(value, unit).partition(" ")
    if unit in UNITS and int(number) > 99_999:
        name, size = max(UNITS[unit].items(), key=lambda item: item[1])
        number = str(value // size)
    return f"{grouped(int(number))} {name}".rstrip()


class AmountField(forms.CharField):
    """A whole number, with a unit where ``unit`` has some. Empty: None. Out of ``limits`` (least, most): an error."""

    says_what_empty_means = True  # the form or its help does, so "optional" beside each field would be noise

    def __init__(self, *, unit: str, limits: tuple[int, int] = (0, MOST), **kwargs: Any) -> None:
        self.unit, self.limits = unit, limits
        super().__init__(required=False, max_length=30, error_messages=BOUNDS, **kwargs)
        self.widget.attrs |= {"autocomplete": "off"} | ({} if unit in UNITS else {"inputmode": "numeric"})

    def prepare_value(self, value: Any) -> Any:
        return amount_text(value, self.unit) if isinstance(value, int) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != initial)
        except forms.ValidationError:
            return True

    def clean(self, value: Any) -> int | None:
        text = super().clean(value).strip()
        if not text:
            return None
        match = _AMOUNT.fullmatch(text)
        sizes = {name.lower(): size for name, size in UNITS.get(self.unit, {}).items()} | {"": 1}
        size = sizes.get(match["unit"].lower()) if match else None
        if match is None or size is None or ("." in match["number"] and size == 1):
            such_as = SUCH_AS.get(self.unit)
            raise forms.ValidationError(
                f"Write a number{such_as}." if such_as else "Write a number. Whole, 0 or more, such as 1000."
            )
        number = match["number"].replace(",", "")
        amount = round(float(number) * size) if "." in number else int(number) * size
        if not self.limits[0] <= amount <= self.limits[1]:
            least, most = (_limit_words(value, self.unit) for value in self.limits)
            raise forms.ValidationError(f"From {least} to {most}.")
        return amount
