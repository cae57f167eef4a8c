"""Actions that several lists have in the same words: switch on, switch off, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from apps.dashboard.lists.spec import BulkAction


class Switch(Protocol):
    """Switches one document on or off, as ``BulkAction.run`` does its work."""

    def __call__(self, request: Any, document: Any, /, *, active: bool) -> object: ...


def switch_actions(
    switch: Switch, *, on_text: str, off_text: str, asks_again: Callable[[Any], bool] | None = None
) -> tuple[BulkAction, BulkAction]:
    """Switch on and switch off. ``asks_again`` is about switching on."""
    return (
        BulkAction(
            name="activate",
            label="Switch on",
            icon="power",
            question="Switch {things} on?",
            text=on_text,
            run=lambda request, document: switch(request, document, active=True),
            done="{things} switched on.",
            asks_again=asks_again,
        ),
        BulkAction(
            name="deactivate",
            label="Switch off",
            icon="power",
            question="Switch {things} off?",
            text=off_text,
            run=lambda request, document: switch(request, document, active=False),
            done="{things} switched off.",
            tone="danger",
        ),
    )


def delete_action(
    delete: Callable[[Any, Any], object], *, text: str, asks_again: Callable[[Any], bool] | None = None
) -> BulkAction:
    """Delete for good."""
    return BulkAction(
        name="delete",
        label="Delete",
        icon="trash-2",
        question="Delete {things}?",
        text=text,
        run=delete,
        done="{things} deleted.",
        tone="danger",
        asks_again=asks_again,
    )
