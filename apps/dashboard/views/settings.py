"""The settings that change while the server runs."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from apps.core.errors import ApiError, Conflict
from apps.core.tunables import TUNABLES, Group, Tunable, set_tunable, stored_tunables
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, client_address, may, problem
from apps.dashboard.amounts import ON_OFF, AmountField, amount_text, amount_words
from apps.dashboard.audit_list import changes
from apps.dashboard.change_forms import ChangeForm
from apps.dashboard.forms import FieldGroup
from apps.keys.documents import Role


class TunablesForm(ChangeForm):
    """One field for each setting, in groups; an empty one means the default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored = stored_tunables()
        for name, item in TUNABLES.items():
            self.fields[name] = field = _field(item)
            field.initial = self.stored.get(name)

    def groups(self) -> list[FieldGroup]:
        return [
            FieldGroup(title=group, fields=[self[name] for name, item in TUNABLES.items() if item.group == group])
            for group in Group
        ]


def _field(item: Tunable) -> forms.Field:
    default = amount_words(item.default(), item.unit)
    if item.unit == ON_OFF:
        choices = [("", f"default ({default})"), ("1", "on"), ("0", "off")]
        field: forms.Field = forms.TypedChoiceField(choices=choices, coerce=int, empty_value=None, required=False)
        field.widget.attrs["class"] = "form-select"
        field.says_what_empty_means = True  # type: ignore[attr-defined]
        field.help_text = item.help
    else:
        field = AmountField(unit=item.unit)
        field.widget.attrs |= {"class": "form-control", "placeholder": amount_text(item.default(), item.unit)}
        source = f" ({item.env_name} of the environment)" if item.env_name else ""
        field.help_text = f"{item.help} Empty: {default}{source}."
    field.label = item.label
    return field


@admin_page(methods=("GET", "HEAD", "POST"))
def settings_page(request: AdminRequest) -> HttpResponse:
    """Everybody looks; owners change."""
    can_change = may(request.admin_user, Role.OWNER)
    if request.method == "POST" and not can_change:
        return problem(request, 403, "You may look, but not change this.", "Only owners change settings.")
    form = TunablesForm(request.POST or None)
    if not can_change:
        for field in form.fields.values():
            field.disabled = True
    if request.method == "POST" and form.is_valid() and _save(request, form):
        return redirect("dashboard:settings")
    history = [
        {"entry": entry, "label": _label(entry.target_id), "changes": changes(entry)}
        for entry in selectors.history_of_kind("setting")
    ]
    context = {"form": form, "can_change": can_change, "history": history}
    return render(request, "dashboard/settings.html", context, status=422 if form.errors else 200)


def _label(name: str) -> str:
    item = TUNABLES.get(name)
    if item is None:
        return name
    return f"{item.label} (dialect)" if item.group == Group.DIALECTS else item.label


def _save(request: AdminRequest, form: TunablesForm) -> bool:
    """Check all, then store what differs. False: something does not fit and nothing was stored, or somebody else
    changed one of them at this moment, which is said beside it."""
    changes = {name: form.cleaned_data[name] for name in form.changed_data}
    for name, value in changes.items():
        try:
            if value is not None:
                TUNABLES[name].check(value)
        except ApiError as error:
            form.add_error(name, error.message)
    if form.errors:
        return False
    actor, address = request.admin_user.username, client_address(request)
    changed = []
    for name, value in changes.items():
        try:
            if set_tunable(name, value, seen=form.stored, actor=actor, address=address):
                changed.append(_label(name))
        except Conflict as error:
            form.add_error(name, error.message)
    if changed:
        messages.success(request, f"Changed: {', '.join(changed)}. In effect everywhere within two seconds.")
    elif not form.errors:
        messages.info(request, "Nothing was different.")
    return not form.errors
