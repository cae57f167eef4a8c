"""The forms that make and change keys, and those about users and their plans."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from django import forms

from apps.dashboard.amounts import AmountField, amount_words
from apps.dashboard.change_forms import ChangeForm
from apps.dashboard.form_tokens import FormTokenField
from apps.dashboard.forms import SCOPE_LABELS, AdminForm, FieldGroup
from apps.keys.documents import LIMIT_NAMES, MAX_NOTES, ApiKey, Role, Scope, User
from apps.keys.fields import LIMIT_RANGES, MAX_LABEL_CHARACTERS
from apps.keys.roles import may
from apps.keys.services import DEFAULT_SCOPES

LIMIT_LABELS = {
    "limit_per_hour": "Requests in any hour",
    "limit_per_day": "Requests in any 24 hours",
    "bytes_per_day": "Streamed in any 24 hours",
    "concurrent_streams": "Streams at the same time",
    "concurrent_jobs": "Fetches at the same time",
    "longest_video_s": "Longest video",
    "largest_file_bytes": "Largest file",
}
LIMIT_UNITS = {"bytes_per_day": "bytes", "longest_video_s": "s", "largest_file_bytes": "bytes"}
LIMIT_EXAMPLES = {"bytes_per_day": "20 GB", "longest_video_s": "2 h", "largest_file_bytes": "500 MB"}
GRACE_CHOICES = (
    ("0", "not at all: it stops within a second"),
    ("3600", "for an hour"),
    ("86400", "for a day"),
    ("604800", "for a week"),
)


def limit_words(name: str, value: int | None) -> str:
    """A limit for reading: "1,000", "20 GB", "no limit"."""
    return amount_words(value, LIMIT_UNITS.get(name, "")) if value else "no limit"


class WordsField(forms.CharField):
    """Words with commas or line ends between them, as a list."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        return [word.strip() for word in str(value or "").replace("\n", ",").split(",") if word.strip()]


class _WithLimits(AdminForm):
    """A form that ends in the seven limits."""

    limits_note = "Empty: as the user's plan or the default has it. 0: no limit."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (least, most) in LIMIT_RANGES.items():
            field = AmountField(unit=LIMIT_UNITS.get(name, ""), limits=(least, most), label=LIMIT_LABELS[name])
            field.widget.attrs |= {"class": "form-control"}
            if name in LIMIT_EXAMPLES:
                field.help_text = f"Such as {LIMIT_EXAMPLES[name]}."
            elif least:
                field.help_text = f"At least {least}: this one is never without a limit."
            self.fields[name] = field

    def groups(self) -> list[FieldGroup]:
        others = [field for field in self.visible_fields() if field.name not in LIMIT_RANGES]
        limits = FieldGroup(title="Limits", note=self.limits_note, fields=[self[name] for name in LIMIT_LABELS])
        return [FieldGroup(fields=others), limits]


class _KeyFields(_WithLimits):
    """Everything of a key that people choose. Only owners may give the admin scope."""

    name = forms.CharField(max_length=100, help_text="Who or what uses it, such as “music bot”.")
    owner = forms.CharField(
        max_length=64, required=False, help_text="The user whom it belongs to. A new name becomes a user."
    )
    labels = WordsField(
        required=False, help_text=f"Words to find it by, with commas; at most {MAX_LABEL_CHARACTERS} characters each."
    )
    scopes = forms.MultipleChoiceField(label="May use", widget=forms.CheckboxSelectMultiple)
    expires_on = forms.DateField(
        label="Works until",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="The last day, in UTC. Empty: it never expires.",
    )
    allowed_cidrs = WordsField(
        label="May be used from",
        required=False,
        help_text="Networks such as 203.0.113.0/24, with commas. Empty: from everywhere.",
    )
    allowed_origins = WordsField(
        label="Web pages that may use it",
        required=False,
        help_text="Origins such as https://app.example.com, with commas; * for all. Empty: no page of another site.",
    )
    bind_links = forms.BooleanField(label="Links work only from the address that asked for them", required=False)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        allowed = [scope for scope in Scope if scope != Scope.ADMIN or may(user, Role.OWNER)]
        self.fields["scopes"].choices = [(scope.value, SCOPE_LABELS[scope]) for scope in allowed]  # type: ignore[attr-defined]

    def clean_expires_on(self) -> datetime | None:
        """The last second of the day."""
        day = self.cleaned_data["expires_on"]
        if day is None:
            return None
        moment = datetime.combine(day, time(23, 59, 59), UTC)
        if moment <= datetime.now(UTC) and "expires_on" in self.changed_data:
            raise forms.ValidationError("This day is over. Choose a later one.")
        return moment


class KeyForm(_KeyFields):
    """A new key."""

    form_token = FormTokenField()

    def __init__(self, *args: Any, user: User) -> None:
        super().__init__(*args, user=user, initial={"scopes": [scope.value for scope in DEFAULT_SCOPES]})

    def key_arguments(self) -> dict[str, Any]:
        """The valid form as keyword arguments of ``create_key``."""
        return _as_stored({name: value for name, value in self.cleaned_data.items() if name != "form_token"})


class KeyEditForm(ChangeForm, _KeyFields):
    """A key that is there."""

    def __init__(self, *args: Any, key: ApiKey, user: User, **kwargs: Any) -> None:
        names = ("name", "owner", "labels", "scopes", "allowed_cidrs", "allowed_origins", "bind_links", *LIMIT_NAMES)
        initial = {name: getattr(key, name) for name in names}
        for name in ("labels", "scopes", "allowed_cidrs", "allowed_origins"):
            initial[name] = list(initial[name])
        initial["expires_on"] = key.expires_at.date() if key.expires_at else None
        super().__init__(*args, user=user, initial=initial, **kwargs)

    def changes(self) -> dict[str, Any]:
        """What was changed in the form, as ``update_key`` takes it."""
        return _as_stored({name: self.cleaned_data[name] for name in self.changed_data})


def _as_stored(data: dict[str, Any]) -> dict[str, Any]:
    """A form's values by the names of the key's fields."""
    return {"expires_at" if name == "expires_on" else name: value for name, value in data.items()}


class RotateForm(AdminForm):
    """How long the old secret works on."""

    form_token = FormTokenField()
    grace_s = forms.ChoiceField(label="The old secret works", choices=GRACE_CHOICES, initial="86400")


class _UserFields(_WithLimits):
    """A user and their plan."""

    limits_note = "What keys of this user start from. Empty: the default. 0: no limit."

    name = forms.CharField(max_length=100, required=False, help_text="Their full name, or what they do.")
    contact = forms.CharField(max_length=254, required=False, help_text="An address, for you to remember.")
    notes = forms.CharField(
        max_length=MAX_NOTES,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Only admins see them.",
    )

    def changes(self) -> dict[str, Any]:
        """What was changed in the form, as ``update_user`` and ``add_user`` take it."""
        return {name: self.cleaned_data[name] for name in self.changed_data if name != "username"}


class UserForm(ChangeForm, _UserFields):
    """A user who is there."""

    def __init__(self, *args: Any, person: User, **kwargs: Any) -> None:
        names = ("name", "contact", "notes", *LIMIT_NAMES)
        super().__init__(*args, initial={name: getattr(person, name) for name in names}, **kwargs)


class NewUserForm(_UserFields):
    """Somebody new who has keys, and no entry to the admin."""

    username = forms.RegexField(
        r"^[A-Za-z0-9._@+-]{1,64}$",
        max_length=64,
        help_text="1 to 64 letters, digits or any of . _ @ + -",
        error_messages={"invalid": "Use only letters from a to z, digits and . _ @ + -"},
    )
    field_order = ("username", "name", "contact", "notes")
