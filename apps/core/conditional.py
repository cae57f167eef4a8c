"""Writes that change nothing where somebody else changed the same since it was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGED_MEANWHILE = "Somebody else changed the same at this moment. Send the form again: it shows what they chose."
_NONE: Mapping[str, Any] = {}


def still(seen: Mapping[str, Any] | None, *, defaults: Mapping[str, Any] = _NONE) -> dict[str, Any]:
    """The conditions for MongoDB that these fields are those values. What is empty, or the field's default, may also be
    missing in the document. ``seen`` None: no conditions."""
    return {
        name: {"$in": [value, None]} if _may_be_missing(value) or value == defaults.get(name) else value
        for name, value in (seen or {}).items()
    }


def _may_be_missing(value: Any) -> bool:
    return value in (None, "", []) or value is False
