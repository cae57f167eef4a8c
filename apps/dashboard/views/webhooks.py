"""A key's webhook: the address that is told when its jobs end, what was told, a test, sending again."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse

from apps.dashboard.access import AdminRequest, admin_page, client_address, problem, record_change
from apps.dashboard.lists import read_page
from apps.dashboard.pages import confirm_page, form_page
from apps.dashboard.webhook_list import WebhookForm, delivery_list
from apps.downloads.services.webhooks import SIGNATURE_HEADER, send_again, send_test
from apps.keys.documents import ApiKey, Role
from apps.keys.selectors import find_key
from apps.keys.webhooks import remove_webhook, set_webhook


@admin_page()
def webhook(request: AdminRequest, prefix: str) -> HttpResponse:
    key = find_key(prefix)
    if key is None:
        return _unknown(request)
    page = read_page(delivery_list(prefix), request.GET.dict(), user=request.admin_user)
    context = {"key": key, "page": page, "signature_header": SIGNATURE_HEADER}
    return render(request, "dashboard/webhooks/detail.html", context)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def webhook_set(request: AdminRequest, prefix: str) -> HttpResponse:
    """Set the address. The answer shows the new signing secret, once: it is stored encrypted."""
    key = find_key(prefix)
    if key is None:
        return _unknown(request)
    form = WebhookForm(request.POST or None, initial={"url": key.webhook_url})

    def save(data: dict[str, Any]) -> HttpResponse:
        secret = set_webhook(prefix, data["url"], actor=request.admin_user.username, address=client_address(request))
        return render(request, "dashboard/webhooks/secret.html", {"key": key, "secret": secret})

    return form_page(
        request,
        form,
        title="Where to tell that jobs ended",
        label="Use this address",
        back=_page(prefix),
        back_label=f"Webhook of {key.name}",
        save=save,
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def webhook_remove(request: AdminRequest, prefix: str) -> HttpResponse:
    key = find_key(prefix)
    if key is None:
        return _unknown(request)

    def do() -> str:
        remove_webhook(prefix, actor=request.admin_user.username, address=client_address(request))
        return "Nobody is told any more."

    return _ask(
        request,
        key,
        title="Tell this address nothing more?",
        text="The ends of this key's jobs are not sent any more, and the signing secret is forgotten.",
        label="Remove it",
        tone="danger",
        icon="trash-2",
        do=do,
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def webhook_test(request: AdminRequest, prefix: str) -> HttpResponse:
    key = find_key(prefix)
    if key is None:
        return _unknown(request)

    def do() -> str:
        failure = send_test(prefix)
        record_change(
            request, "webhook.test", target_kind="key", target_id=prefix, after={"taken": not failure, "why": failure}
        )
        if failure:
            messages.error(request, f"The test was not taken: {failure}.")
            return ""
        return "The test was taken."

    text = f"A signed POST with the event “test” goes to {key.webhook_url}."
    return _ask(request, key, title="Send a test?", text=text, label="Send it", icon="send", do=do)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def webhook_again(request: AdminRequest, prefix: str, job_id: str) -> HttpResponse:
    key = find_key(prefix)
    if key is None:
        return _unknown(request)

    def do() -> str:
        send_again(prefix, job_id)
        record_change(request, "webhook.again", target_kind="key", target_id=prefix, after={"job": job_id})
        return "It is sent again now."

    text = f"The end of the job {job_id} is told again, with all its tries."
    return _ask(request, key, title="Send this again?", text=text, label="Send again", icon="rotate-cw", do=do)


def _ask(request: AdminRequest, key: ApiKey, **words: Any) -> HttpResponse:
    return confirm_page(request, back=_page(key.prefix), back_label=f"Webhook of {key.name}", **words)


def _page(prefix: str) -> str:
    return reverse("dashboard:webhooks-key", args=[prefix])


def _unknown(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such key.", "It may have been mistyped: a prefix has 8 characters.")
