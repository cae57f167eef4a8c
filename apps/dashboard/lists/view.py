"""Answers a list page: the list by GET; by POST a bulk action, which asks first and then says what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import redis
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from pymongo.errors import PyMongoError

from apps.core.errors import ApiError
from apps.dashboard.access import AdminRequest, ask_again, may, problem
from apps.dashboard.kept import keep, kept
from apps.dashboard.lists.page import EVERYTHING, TICKED, read_chosen, read_everything, read_page
from apps.dashboard.lists.spec import BulkAction, ListSpec
from apps.keys.documents import Role
from apps.keys.sessions import is_confirmed

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

SHOWN_NAMES = 10
SHOWN_PROBLEMS = 5
SEPARATOR = " "  # of the ids in one field: so many fields of a form are refused
RUN_S = 25.0
KEPT = "chosen"  # in the address after the password was given: what had been chosen before


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
    if name := request.GET.get(KEPT, ""):
        return _go_on(request, spec, title, name)
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
    allowed = _allowed(request, spec)
    name = request.POST.get("action", "")
    if not allowed or name in {item.name for item in spec.bulk_actions} - allowed.keys():
        return problem(request, 403, "You may look, but not change this.", "Ask an owner of this server.")
    if (action := allowed.get(name)) is None:
        return problem(request, 400, "Choose what to do.", "Go back, tick some rows and choose an action.")
    documents, is_cut = _chosen(request, spec)
    if not documents:
        messages.info(request, "Nothing was chosen: tick the rows first.")
        return redirect(request.get_full_path())
    if action.asks_again and not is_confirmed(request) and any(map(action.asks_again, documents)):
        messages.info(request, "Some of these may do what an owner may. Give your password; what you chose is kept.")
        return ask_again(request, _keep(request, action, documents), back=_ticked(request, spec, documents))
    if request.POST.get("confirmed") == "yes" and not _is_everything(request):
        _run(request, action, spec, documents)
        return redirect(_without_kept(request))
    return _ask(request, action, spec, title, documents, is_cut=is_cut)


def _allowed(request: AdminRequest, spec: ListSpec) -> dict[str, BulkAction]:
    """The bulk actions that this person may use, by name."""
    return {item.name: item for item in spec.bulk_actions if may(request.admin_user, item.role)}


def _keep(request: AdminRequest, action: BulkAction, documents: Sequence[Any]) -> str:
    """Remember what was chosen while the password is asked for, and return the address that goes on with it."""
    ids = SEPARATOR.join(str(document.pk) for document in documents)
    query = {**request.GET.dict(), KEPT: keep(request, {"action": action.name, "ids": ids})}
    return f"{request.path}?{urlencode(query)}"


def _go_on(request: AdminRequest, spec: ListSpec, title: str, name: str) -> HttpResponse:
    """Ask whoever chose it, in this list, about what was kept under this name. Is it gone: the list itself."""
    chosen = kept(request, name) or {}
    action = _allowed(request, spec).get(chosen.get("action", ""))
    documents, is_cut = read_chosen(spec, chosen.get("ids", "").split())
    if action is None or not documents:
        messages.info(request, "What you chose is no longer known. Tick the rows again.")
        return redirect(_without_kept(request))
    return _ask(request, action, spec, title, documents, is_cut=is_cut)


def _without_kept(request: AdminRequest, **more: str) -> str:
    """The address of the list as it was searched and filtered."""
    params = {name: value for name, value in request.GET.dict().items() if name not in (KEPT, TICKED)}
    query = urlencode({**params, **more})
    return f"{request.path}?{query}" if query else request.path


def _ticked(request: AdminRequest, spec: ListSpec, documents: Sequence[Any]) -> str:
    """The same with these rows ticked, for those who think again. More than a page has are everything."""
    is_everything = len(documents) > spec.page_size
    ids = EVERYTHING if is_everything else SEPARATOR.join(str(document.pk) for document in documents)
    return _without_kept(request, **{TICKED: ids})


def _ask(
    request: AdminRequest, action: BulkAction, spec: ListSpec, title: str, documents: Sequence[Any], *, is_cut: bool
) -> HttpResponse:
    """The question before anything is done, which names each row."""
    names = [spec.name_of(document) for document in documents]
    context: Mapping[str, Any] = {
        "title": action.question.format(things=spec.count_of(len(documents))),
        "action": action,
        "ids": SEPARATOR.join(str(document.pk) for document in documents),
        "names": names[:SHOWN_NAMES],
        "more": max(0, len(names) - SHOWN_NAMES),
        "chosen": spec.count_of(len(documents)),
        "is_cut": is_cut,
        "back": _ticked(request, spec, documents),
        "back_label": title,
    }
    return render(request, "dashboard/lists/confirm.html", context)


def _chosen(request: AdminRequest, spec: ListSpec) -> tuple[list[Any], bool]:
    """The rows that were chosen, at most MAX_CHOSEN, and whether there were more: those that were ticked, or everything
    that the search and filters of the address let through. A confirmation names each one, so that nothing is done with
    what came to the list after the question; "everything" is therefore always asked about."""
    if _is_everything(request):
        return read_everything(spec, request.GET.dict())
    ids = [text for field in request.POST.getlist("id") for text in field.split(SEPARATOR) if text]
    return read_chosen(spec, ids)


def _is_everything(request: AdminRequest) -> bool:
    return request.POST.get("everything") == "yes"


def _run(request: AdminRequest, action: BulkAction, spec: ListSpec, documents: Sequence[Any]) -> None:
    """One after another, until all are done or RUN_S is over: nobody looks at a blank page for longer. Also when
    MongoDB or Redis goes away in between, whoever chose them is told how many were done."""
    ends_at = time.monotonic() + RUN_S
    problems: list[str] = []
    tried = so_already = 0
    stopped = "It took too long"
    for document in documents:
        if tried and time.monotonic() > ends_at:
            break
        tried += 1
        try:
            so_already += action.run(request, document) is False
        except ApiError as error:
            problems.append(f"{spec.name_of(document)}: {error.message}")
        except (PyMongoError, redis.RedisError):
            logger.exception("a service did not answer in the middle of a bulk action")
            problems.append(f"{spec.name_of(document)}: it is not known whether this was done.")
            stopped = "A part of the server did not answer any more"
            break
    if done := tried - len(problems) - so_already:
        messages.success(request, action.done.format(things=spec.count_of(done)))
    if so_already:
        messages.info(request, f"{spec.count_of(so_already)} {'was' if so_already == 1 else 'were'} so already.")
    for text in problems[:SHOWN_PROBLEMS]:
        messages.error(request, text)
    if len(problems) > SHOWN_PROBLEMS:
        messages.error(request, f"{len(problems) - SHOWN_PROBLEMS:,} more could not be done.")
    if left := len(documents) - tried:
        are = "is as it was" if left == 1 else "are as they were"
        messages.error(request, f"{stopped}: {spec.count_of(left)} of those you chose {are}.")
