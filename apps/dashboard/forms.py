"""The forms of the admin: what may be typed, and what to say when it may not."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

from django import forms

from apps.dashboard.access import may
from apps.keys.documents import DEFAULT_LIMIT_PER_HOUR, MAX_LIMIT, Role, Scope, User
from apps.keys.services import DEFAULT_SCOPES

SCOPE_LABELS = {
    Scope.INFO: "info: metadata of videos",
    Scope.MEDIA: "media: files and streams",
    Scope.SEARCH: "search: search and playlists",
    Scope.ADMIN: "admin: everything, also other people's keys",
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
            kind = getattr(field.widget, "input_type", "text")
            by_kind = {"checkbox": "form-check-input", "radio": "form-check-input", "select": "form-select"}
            field.widget.attrs["class"] = by_kind.get(kind, "form-control")

    def groups(self) -> list[FieldGroup]:
        """The fields in the order they are shown; one group without a title, unless a form has more to say."""
        return [FieldGroup(fields=self.visible_fields())]


class KeyForm(AdminForm):
    """A new API key. Only owners may give the admin scope."""

    name = forms.CharField(max_length=100, help_text="Who or what uses it, such as “music bot”.")
    owner = forms.CharField(max_length=64, required=False, help_text="The user whom it belongs to.")
    scopes = forms.MultipleChoiceField(label="May use", widget=forms.CheckboxSelectMultiple)
    limit_per_hour = forms.IntegerField(
        label="Requests per hour", min_value=1, max_value=MAX_LIMIT, initial=DEFAULT_LIMIT_PER_HOUR
    )
    expires_on = forms.DateField(
        label="Works until",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="The last day, in UTC. Empty: it never expires.",
    )
    form_token = forms.RegexField(r"^[0-9a-f]{32}$", widget=forms.HiddenInput)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        allowed = [scope for scope in Scope if scope != Scope.ADMIN or may(user, Role.OWNER)]
        kwargs.setdefault(
            "initial", {"scopes": [scope.value for scope in DEFAULT_SCOPES], "form_token": secrets.token_hex(16)}
        )
        super().__init__(*args, **kwargs)
        self.fields["scopes"].choices = [(scope.value, SCOPE_LABELS[scope]) for scope in allowed]  # type: ignore[attr-defined]

    def clean_expires_on(self) -> datetime | None:
        day = self.cleaned_data["expires_on"]
        if day is None:
            return None
        moment = datetime.combine(day, time(23, 59, 59), UTC)
        if moment <= datetime.now(UTC):
            raise forms.ValidationError("This day is over. Choose a later one.")
        return moment

    def key_arguments(self) -> dict[str, Any]:
        """The valid form as keyword arguments of ``create_key``."""
        data = self.cleaned_data
        return {
            "name": data["name"],
            "owner": data["owner"],
            "scopes": tuple(data["scopes"]),
            "limit_per_hour": data["limit_per_hour"],
            "expires_at": data["expires_on"],
        }
