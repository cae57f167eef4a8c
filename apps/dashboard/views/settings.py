"""The settings that change while the server runs."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from apps.core.errors import ApiError
from apps.core.tunables import TUNABLES, Tunable, set_tunable, stored_tunables
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, client_address, may, problem
from apps.dashboard.amounts import AmountField, amount_text, amount_words
from apps.dashboard.forms import AdminForm
from apps.keys.documents import Role


class TunablesForm(AdminForm):
    """One field for each setting; an empty one means the default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = stored_tunables()
        for name, item in TUNABLES.items():
            field = AmountField(unit=item.unit, label=item.label, help_text=_help(item))
            field.widget.attrs |= {"class": "form-control", "placeholder": amount_text(item.default(), item.unit)}
            field.initial = stored.get(name)
            self.fields[name] = field


def _help(item: Tunable) -> str:
    source = f" ({item.env_name} of the environment)" if item.env_name else ""
    return f"{item.help} Empty: {amount_words(item.default(), item.unit)}{source}."


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
    context = {"form": form, "can_change": can_change, "history": selectors.history_of_kind("setting")}
    return render(request, "dashboard/settings.html", context, status=422 if form.errors else 200)


def _save(request: AdminRequest, form: TunablesForm) -> bool:
    """Check all, then store what differs. False: something does not fit; nothing was stored."""
    for name, value in list(form.cleaned_data.items()):
        try:
            if value is not None:
                TUNABLES[name].check(value)
        except ApiError as error:
            form.add_error(name, error.message)
    if form.errors:
        return False
    actor, address = request.admin_user.username, client_address(request)
    changed = [
        TUNABLES[name].label
        for name, value in form.cleaned_data.items()
        if set_tunable(name, value, actor=actor, address=address)
    ]
    if changed:
        messages.success(request, f"Changed: {', '.join(changed)}. In effect everywhere within two seconds.")
    else:
        messages.info(request, "Nothing was different.")
    return True
