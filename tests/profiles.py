"""What MongoDB does for a piece of the program, by its profiler: the same on any machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mongoengine


def profiled(work: Callable[[], object]) -> list[dict[str, Any]]:
    """What MongoDB was asked meanwhile, but for settings: a thread that another test left reads those each second."""
    database = mongoengine.get_db()
    database.command("profile", 2)
    try:
        work()
    finally:
        database.command("profile", 0)
    asked = list(database["system.profile"].find({"ns": {"$regex": "[.](?!system|tunables)"}}))
    database.drop_collection("system.profile")
    assert asked
    return asked


def looked_at(work: Callable[[], object]) -> tuple[int, bool]:
    """How many documents MongoDB read, and whether it sorted what it read."""
    asked = profiled(work)
    return sum(row.get("docsExamined", 0) for row in asked), any(row.get("hasSortStage") for row in asked)


def keys_looked_at(work: Callable[[], object]) -> int:
    """How many index keys MongoDB read."""
    return sum(row.get("keysExamined", 0) for row in profiled(work))
