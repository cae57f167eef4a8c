"""Numbers with units as people write them: "20 GB", "6 h", "1000"."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from apps.dashboard.templatetags.ui import grouped, human_bytes

UNITS = {
    "bytes": {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4},
    "s": {"s": 1, "min": 60, "h": 3600, "d": 86400},
}
_AMOUNT = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,3})?)\s*(?P<unit>[A-Za-z]*)", re.ASCII)


def amount_text(value: int, unit: str) -> str:
    """The exact value with the largest unit that fits evenly: 21600 s is "6 h"."""
    for name, size in reversed(UNITS.get(unit, {}).items()):
        if value and value % size == 0:
            return f"{value // size} {name}"
    return str(value)


def amount_words(value: int, unit: str) -> str:
    """The value for reading: rounded where that reads better."""
    if unit == "bytes":
        return human_bytes(value)
    return amount_text(value, unit) if unit in UNITS else grouped(value)


class AmountField(forms.CharField):
    """A whole number, with a unit where ``unit`` has some. Empty: None."""

    def __init__(self, *, unit: str, **kwargs: Any) -> None:
        self.unit = unit
        super().__init__(required=False, max_length=30, **kwargs)

    def clean(self, value: Any) -> int | None:
        text = super().clean(value).strip().replace(",", "")
        if not text:
            return None
        match = _AMOUNT.fullmatch(text)
        sizes = {name.lower(): size for name, size in UNITS.get(self.unit, {}).items()} | {"": 1}
        size = sizes.get(match["unit"].lower()) if match else None
        if match is None or size is None:
            names = ", ".join(UNITS.get(self.unit, {}))
            raise forms.ValidationError(f"Write a number{f' and one of {names}' if names else ''}.")
        return round(float(match["number"]) * size) if "." in match["number"] else int(match["number"]) * size
