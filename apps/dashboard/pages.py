"""Two pages that every section needs: a form, and a question before something is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from apps.core.errors import ApiError
from apps.dashboard.access import AdminRequest


def form_page(
    request: AdminRequest,
    form: forms.Form,
    *,
    title: str,
    label: str,
    back: str,
    back_label: str,
    save: Callable[[dict[str, Any]], HttpResponse],
    icon: str = "check",
    help_template: str = "",
    blamed: str = "",
    **context: Any,
) -> HttpResponse:
    """Show a form, or take it: ``save`` gets the clean values and answers (a redirect, or the page of a secret).

    What ``save`` raises as ApiError stands beside the field that its ``parameter`` names, else beside ``blamed``, or
    above the form. A form with problems is shown again with what was typed, status 422. Bind the form to
    ``request.POST or None``.
    """
    if request.method == "POST" and form.is_valid():
        try:
            return save(form.cleaned_data)
        except ApiError as error:
            field = str(error.context.get("parameter", ""))
            form.add_error(field if field in form.fields else blamed or None, _beside(field, error.message))
    values = {
        "form": form,
        "title": title,
        "label": label,
        "icon_name": icon,
        "back": back,
        "back_label": back_label,
        "help_template": help_template,
        **context,
    }
    return render(request, "dashboard/form.html", values, status=422 if form.errors else 200)


def _beside(field: str, message: str) -> str:
    """A message as it reads beside the field, whose name in the API it may begin with."""
    text = message.removeprefix(f"{field}: ")
    return text[:1].upper() + text[1:]


def confirm_page(
    request: AdminRequest,
    *,
    title: str,
    text: str,
    label: str,
    back: str,
    back_label: str,
    do: Callable[[], str | HttpResponse],
    tone: str = "primary",
    icon: str = "check",
    then: str = "",
) -> HttpResponse:
    """Ask by GET; by POST ``do`` it, say what it returns ("" says nothing) and go ``then`` (or back). It may answer
    itself as well, where only the doing shows where to go.

    What ``do`` raises as ApiError is said instead.
    """
    if request.method != "POST":
        context = {
            "title": title,
            "text": text,
            "label": label,
            "tone": tone,
            "icon_name": icon,
            "back": back,
            "back_label": back_label,
        }
        return render(request, "dashboard/confirm.html", context)
    try:
        came = do()
    except ApiError as error:
        messages.error(request, error.message)
        return redirect(back)
    if isinstance(came, HttpResponse):
        return came
    if came:
        messages.success(request, came)
    return redirect(then or back)
