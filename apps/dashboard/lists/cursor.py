"""Paging by cursor: a place in a sorted list that stays right while documents come and go."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import bson
from bson import ObjectId, json_util
from bson.errors import BSONError

MAX_LENGTH = 1000


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Stands beside one document: its value in the sorted field, its id. ``backward``: read towards the start."""

    value: Any
    id: Any
    backward: bool

    def encode(self) -> str:
        text = json_util.dumps([self.value, self.id, int(self.backward)], json_options=json_util.CANONICAL_JSON_OPTIONS)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str) -> Cursor | None:
    """The cursor in a query parameter; None for anything that is not one (then the list starts at its start)."""
    if not text or len(text) > MAX_LENGTH:
        return None
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value, document_id, backward = json_util.loads(
            decoded.decode(), json_options=json_util.JSONOptions(tz_aware=True)
        )
        bson.encode({"": [value, document_id]})  # whether MongoDB can be asked about them
    except (binascii.Error, BSONError, ArithmeticError, RecursionError, ValueError, TypeError, KeyError):
        return None
    plain = (str, int, float, bool, datetime, ObjectId, type(None))
    if not isinstance(value, plain) or not isinstance(document_id, plain):
        return None  # an operator or a pattern in the place of a value
    return Cursor(value=value, id=document_id, backward=bool(backward))


def beyond(field: str, cursor: Cursor, *, descending: bool) -> dict[str, Any]:
    """The MongoDB condition for everything on the far side of a cursor.

    Missing values come first in ascending order, as MongoDB sorts them; comparisons alone would leave them out.
    """
    operator = "$lt" if descending else "$gt"
    if field == "_id":
        return {"_id": {operator: cursor.id}}
    tie: dict[str, Any] = {field: cursor.value, "_id": {operator: cursor.id}}
    if cursor.value is None:
        return tie if descending else {"$or": [tie, {field: {"$ne": None}}]}
    further: list[dict[str, Any]] = [tie, {field: {operator: cursor.value}}]
    if descending:
        further.append({field: None})
    return {"$or": further}
