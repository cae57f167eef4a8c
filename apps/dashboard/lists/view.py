"""Answers a list page: the list by GET; by POST a bulk action, which asks first and then says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from mongoengine.fields import ObjectIdField

from apps.core.errors import ApiError
from apps.dashboard.access import AdminRequest, ask_again, may, problem
from apps.dashboard.lists.page import MAX_TIME_MS, read_page
from apps.dashboard.lists.spec import BulkAction, ListSpec
from apps.keys.documents import Role
from apps.keys.sessions import is_confirmed

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CHOSEN = 200
SHOWN_NAMES = 10
SHOWN_PROBLEMS = 5


def answer_list(
    request: AdminRequest,
    spec: ListSpec,
    *,
    title: str,
    template: str = "dashboard/lists/page.html",
    new_href: str = "",
    new_label: str = "",
    **context: Any,
) -> HttpResponse:
    """The whole view of a list. Let it answer GET, HEAD and, when the list has bulk actions, POST.

    ``new_href`` and ``new_label``: the button for something new, for people who may. ``context`` goes to the template.
    """
    if request.method == "POST":
        return _bulk(request, spec, title)
    page = read_page(spec, request.GET.dict(), user=request.admin_user)
    values = {
        "page": page,
        "title": title,
        "can_change": may(request.admin_user, Role.OPERATOR),
        "new_href": new_href,
        "new_label": new_label,
        **context,
    }
    return render(request, template, values)


def _bulk(request: AdminRequest, spec: ListSpec, title: str) -> HttpResponse:
    allowed = {item.name: item for item in spec.bulk_actions if may(request.admin_user, item.role)}
    name = request.POST.get("action", "")
    if not allowed or name in {item.name for item in spec.bulk_actions} - allowed.keys():
        return problem(request, 403, "You may look, but not change this.", "Ask an owner of this server.")
    if (action := allowed.get(name)) is None:
        return problem(request, 400, "Choose what to do.", "Go back, tick some rows and choose an action.")
    documents = _chosen(spec, request.POST.getlist("id"))
    if not documents:
        messages.info(request, "Nothing was chosen: tick the rows first.")
        return redirect(request.get_full_path())
    if action.asks_again and not is_confirmed(request) and any(map(action.asks_again, documents)):
        messages.info(request, "Some of these may do what an owner may. Give your password, then tick the rows again.")
        return ask_again(request)
    if request.POST.get("confirmed") == "yes":
        _run(request, action, spec, documents)
        return redirect(request.get_full_path())
    names = [spec.name_of(document) for document in documents]
    context: Mapping[str, Any] = {
        "title": action.question(len(documents)),
        "action": action,
        "ids": [str(document.pk) for document in documents],
        "names": names[:SHOWN_NAMES],
        "more": max(0, len(names) - SHOWN_NAMES),
        "back": request.get_full_path(),
        "back_label": title,
    }
    return render(request, "dashboard/lists/confirm.html", context)


def _chosen(spec: ListSpec, ids: Sequence[str]) -> list[Any]:
    """The documents with these ids that are (still) there, at most MAX_CHOSEN, in the order they were ticked."""
    wanted: list[Any] = list(dict.fromkeys(ids))[:MAX_CHOSEN]
    if isinstance(spec.document._fields[spec.document._meta["id_field"]], ObjectIdField):
        wanted = [ObjectId(text) for text in wanted if ObjectId.is_valid(text)]
    found = spec.document.objects(__raw__={"_id": {"$in": wanted}}).exclude(*spec.exclude).max_time_ms(MAX_TIME_MS)
    by_id = {document.pk: document for document in found}
    return [by_id[document_id] for document_id in wanted if document_id in by_id]


def _run(request: AdminRequest, action: BulkAction, spec: ListSpec, documents: Sequence[Any]) -> None:
    problems: list[str] = []
    for document in documents:
        try:
            action.run(request, document)
        except ApiError as error:
            problems.append(f"{spec.name_of(document)}: {error.message}")
    if done := len(documents) - len(problems):
        messages.success(request, action.done(done))
    for text in problems[:SHOWN_PROBLEMS]:
        messages.error(request, text)
    if len(problems) > SHOWN_PROBLEMS:
        messages.error(request, f"{len(problems) - SHOWN_PROBLEMS} more could not be done.")
