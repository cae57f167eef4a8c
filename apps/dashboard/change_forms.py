"""Forms that change what is there: what somebody else changed since the form was shown is not overwritten unseen."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from functools import cached_property
from typing import Any

from django import forms
from django.utils.datastructures import MultiValueDict

from apps.dashboard.forms import AdminForm

SEEN = "seen"


class ChangeForm(AdminForm):
    """``changed_data`` names what differs from what is there now (``initial``), but for fields that were left as they
    were shown. A field that was changed here and elsewhere is refused, once, with what it is now.

    The form carries marks of what it showed. Without them it is taken as shown just now.
    """

    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[SEEN].initial = self._marks_as_text

    @cached_property
    def changed_data(self) -> list[str]:
        shown, now = self._shown, self._now
        changed = []
        for name in now:
            mine = self._mark_of_mine(name)
            if mine != now[name] and not (now[name] != shown[name] == mine):
                changed.append(name)
        return changed

    def clean(self) -> None:
        super().clean()
        shown, now = self._shown, self._now
        both = [name for name in self.changed_data if now[name] != shown[name] and name not in self.errors]
        for name in both:
            words = self._words_of(name)
            text = f"Somebody else changed this meanwhile, to {words}. Send the form again to have it your way."
            self.add_error(name, text)
        if both:
            seen_now = json.dumps({**shown, **{name: now[name] for name in both}})
            self.data = MultiValueDict({**dict(self.data.lists()), self.add_prefix(SEEN): [seen_now]})  # type: ignore[attr-defined]

    @cached_property
    def _now(self) -> dict[str, str]:
        return {
            name: _mark(self.get_initial_for_field(field, name)) for name, field in self.fields.items() if name != SEEN
        }

    @cached_property
    def _shown(self) -> dict[str, str]:
        try:
            given = json.loads(self.data.get(self.add_prefix(SEEN)) or "{}")
        except ValueError:
            given = {}
        if not isinstance(given, dict):
            given = {}
        return {name: given[name] if isinstance(given.get(name), str) else now for name, now in self._now.items()}

    def _marks_as_text(self) -> str:
        return json.dumps(self._now)

    def _mark_of_mine(self, name: str) -> str:
        """The mark of what was typed; of none when it may not be typed."""
        field = self.fields[name]
        try:
            return _mark(field.clean(self[name].data))
        except forms.ValidationError:
            return ""

    def _words_of(self, name: str) -> str:
        value = self.fields[name].prepare_value(self.get_initial_for_field(self.fields[name], name))
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        return f"“{value}”" if value not in (None, "") else "nothing"


def _mark(value: Any) -> str:
    """The same for a stored value and for what a field makes of the same typed again."""
    if isinstance(value, list):
        value = sorted(value)
    if value in (None, "", []):
        value = None
    text = json.dumps(value, default=date.isoformat)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
