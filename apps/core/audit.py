"""Writes the audit log. Every change made in the admin goes through ``record``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from apps.core.documents import AuditEntry
from apps.core.logs import REDACTED, redact, request_id_var

MAX_VALUE_LENGTH = 500
_SECRET_NAME = re.compile(r"password|secret|token|cookie|hash|^key$", re.IGNORECASE)


class Who(TypedDict):
    """Who does something, and from which address."""

    actor: str
    address: str


def record(
    *,
    actor: str,
    action: str,
    target_kind: str,
    target_id: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    address: str = "",
) -> None:
    """Write one entry. ``before`` and ``after`` name the fields that changed.

    Fields named like secrets are blanked, whatever they hold, and secrets inside other texts too.
    """
    AuditEntry(
        actor=actor,
        action=action,
        target_kind=target_kind,
        target_id=target_id,
        before=_without_secrets(before),
        after=_without_secrets(after),
        address=address,
        request_id=request_id_var.get(),
    ).save(force_insert=True)


def _without_secrets(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: REDACTED if _SECRET_NAME.search(name) and value else _plain(value)
        for name, value in (fields or {}).items()
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return redact(str(value))[:MAX_VALUE_LENGTH]
