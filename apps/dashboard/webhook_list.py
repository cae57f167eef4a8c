"""What was told to a key's webhook, and the form for its address."""

from __future__ import annotations

from django import forms
from django.urls import reverse

from apps.dashboard.forms import AdminForm
from apps.dashboard.lists import Action, Cell, Column, Empty, ListSpec, choices_filter
from apps.downloads.documents import WebhookDelivery, WebhookState
from apps.keys.webhooks import MAX_URL_CHARACTERS

TONES = {WebhookState.PENDING: "info", WebhookState.DELIVERED: "success", WebhookState.GIVEN_UP: "danger"}


class WebhookForm(AdminForm):
    """The address that is told. Only public https addresses are taken; each set gives a new signing secret."""

    url = forms.CharField(
        label="Address",
        max_length=MAX_URL_CHARACTERS,
        widget=forms.URLInput(attrs={"spellcheck": "false", "placeholder": "https://"}),
        help_text="A public https:// address. It gets a signed POST when a job ends that this key waits for.",
    )


def _state(delivery: WebhookDelivery) -> Cell:
    state = WebhookState(delivery.state)
    return Cell(kind="badge", value=state.value.replace("_", " "), tone=TONES[state], note=delivery.last_error or "")


def _actions(delivery: WebhookDelivery) -> list[Action]:
    if delivery.state != WebhookState.GIVEN_UP:
        return []
    href = reverse("dashboard:webhooks-again", args=[delivery.key_prefix, delivery.job_id])
    return [Action(label="Send again", icon="rotate-cw", href=href)]


def _ended(delivery: WebhookDelivery) -> Cell:
    return Cell(kind="time", value=delivery.created_at)


def delivery_list(prefix: str) -> ListSpec:
    """What was sent, or waits to be, for one key."""
    return ListSpec(
        document=WebhookDelivery,
        only={"key_prefix": prefix},
        sort="-created_at",
        columns=(
            Column(label="Job", cell=lambda delivery: Cell(kind="code", value=delivery.job_id)),
            Column(label="State", cell=_state),
            Column(label="Tries", cell=lambda delivery: Cell(kind="number", value=delivery.attempts), numeric=True),
            Column(
                label="Ended", sort="created_at", cell=lambda delivery: Cell(kind="time", value=delivery.created_at)
            ),
        ),
        filters=(
            choices_filter("state", "State", tuple((state.value, state.value) for state in WebhookState), always=True),
        ),
        row_actions=_actions,
        live_s=5,
        empty=Empty(title="Nothing was sent yet", text="Each end of a job is listed here for 7 days.", icon="send"),
    )
