"""The forms of the admin: what may be typed, and what to say when it may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms

from apps.keys.documents import Scope

SCOPE_LABELS = {
    Scope.INFO: "info: metadata of videos",
    Scope.MEDIA: "media: files and streams",
    Scope.SEARCH: "search: search and playlists",
    Scope.ADMIN: "admin: everything, also other people's keys",
}
BOUNDS = {
    "min_value": "Give %(limit_value)s or more.",
    "max_value": "Give %(limit_value)s or less.",
    "max_length": "Give at most %(limit_value)s characters; these are %(show_value)s.",
}


@dataclass(frozen=True, kw_only=True)
class FieldGroup:
    """Fields of a form that belong together. With a title they stand side by side under it."""

    fields: list[forms.BoundField]
    title: str = ""
    note: str = ""


class AdminForm(forms.Form):
    """Base of the admin's forms: Bootstrap's classes, and errors that screen readers find."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.error_messages = {**BOUNDS, **field.error_messages}
            kind = getattr(field.widget, "input_type", "text")
            by_kind = {"checkbox": "form-check-input", "radio": "form-check-input", "select": "form-select"}
            field.widget.attrs["class"] = by_kind.get(kind, "form-control")

    def groups(self) -> list[FieldGroup]:
        """The fields in the order they are shown; one group without a title, unless a form has more to say."""
        return [FieldGroup(fields=self.visible_fields())]
