"""The forms about people: their own password and second factor, and the admins that an owner manages."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.dashboard.forms import AdminForm
from apps.keys.documents import Role
from apps.keys.services import MIN_PASSWORD_LENGTH

ROLE_LABELS = (
    (Role.VIEWER.value, "viewer: sees everything, changes nothing"),
    (Role.OPERATOR.value, "operator: works with keys, cache, jobs and Telegram"),
    (Role.OWNER.value, "owner: everything, also admins, secrets and settings"),
)


def _password(label: str, autocomplete: str, help_text: str = "") -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": autocomplete})
    return forms.CharField(label=label, max_length=1000, strip=False, widget=widget, help_text=help_text)


class PasswordForm(AdminForm):
    """A new password for oneself."""

    password = _password("Your password now", "current-password")
    new = _password("New password", "new-password", f"At least {MIN_PASSWORD_LENGTH} characters.")
    again = _password("The new password again", "new-password")

    def clean_new(self) -> str:
        new: str = self.cleaned_data["new"]
        if len(new) < MIN_PASSWORD_LENGTH:
            raise forms.ValidationError(f"A password has at least {MIN_PASSWORD_LENGTH} characters.")
        return new

    def clean_again(self) -> str:
        again: str = self.cleaned_data["again"]
        if again != self.cleaned_data.get("new", again):
            raise forms.ValidationError("The two new passwords are not the same.")
        return again


def _code(help_text: str = "") -> forms.CharField:
    attributes = {"autocomplete": "one-time-code", "spellcheck": "false"}
    widget = forms.TextInput(attrs=attributes)
    return forms.CharField(label="Code from the app", max_length=40, widget=widget, help_text=help_text)


class ConfirmForm(AdminForm):
    """The password once more, and a code for who has a second factor, before something that matters."""

    password = _password("Your password", "current-password")
    code = _code("Or a recovery code. Each works once: after a login, wait for the next one.")

    def __init__(self, *args: Any, with_code: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not with_code:
            del self.fields["code"]


class CodeForm(AdminForm):
    """The first code of an app."""

    code = _code()


class AdminUserForm(AdminForm):
    """Somebody new who may enter the admin."""

    username = forms.CharField(
        label="Name", max_length=64, widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
        help_text="What they type to log in. A user without a role who has this name gets one.",
    )  # fmt: skip
    contact = forms.CharField(max_length=254, required=False, help_text="An address, for you to remember.")
    role = forms.ChoiceField(choices=ROLE_LABELS, initial=Role.VIEWER.value)


class RoleForm(AdminForm):
    """Another role for somebody."""

    role = forms.ChoiceField(choices=(*ROLE_LABELS, (Role.NONE.value, "none: may not enter the admin any more")))

    def __init__(self, *args: Any, role: str, **kwargs: Any) -> None:
        super().__init__(*args, initial={"role": role}, **kwargs)
