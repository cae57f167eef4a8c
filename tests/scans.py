"""Finds queries of the program that no index serves: each kind that the tests make it send is explained once.

With few documents MongoDB takes an index all the same when one fits, so that what reads a whole collection here would
do so with millions of documents too. Reading some documents, whichever, up to a limit, is no such reading. A condition
needs an index of its own beside the one for the order: in the order alone MongoDB reads everything where few fit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mongoengine
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import monitoring
from pymongo.errors import OperationFailure

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = tuple(str(ROOT / folder) + "/" for folder in ("apps", "ytserver"))
OTHERS = tuple(str(ROOT / folder) + "/" for folder in ("tests", "bench"))
CALLER_FRAMES = 80
ANY_DATE: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
"""Plans hold bounds such as the last of all dates, which no datetime can."""
FILTERS = {"find": "filter", "count": "query", "distinct": "query", "findAndModify": "query", "findandmodify": "query"}
SESSION_FIELDS = frozenset(
    {"lsid", "txnNumber", "startTransaction", "autocommit", "readConcern", "writeConcern", "ordered"}
)
SMALL = {
    "telegram_bots": "an installation has a few",
    "telegram_channels": "an installation has a few",
    "provider_settings": "one document for each source",
    "tunables": "one document for each setting that was changed while running",
}
"""Collections that stay small whatever happens: reading all of them is the plan."""
ONCE = {
    "apps/core/restore.py": "what was restored is counted, and its secrets are tried, once",
}
"""Parts of the program that read everything, whatever there is."""


class Scans(monitoring.CommandListener):
    """Remembers one command of each shape that the program itself sent."""

    def __init__(self) -> None:
        self._shapes: set[str] = set()
        self._unexplained: list[tuple[str, dict[str, Any], str]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        for command in _single_queries(event.command_name, dict(event.command)):
            shape = f"{event.database_name} {_shape(command)}"
            if shape not in self._shapes and (place := _place_in_program()):
                self._shapes.add(shape)
                self._unexplained.append((event.database_name, command, place))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass

    def found(self) -> list[str]:
        """Where the program reads whole collections, of what has not been told before."""
        unexplained, self._unexplained = self._unexplained, []
        scans = []
        for database, command, place in unexplained:
            collection = str(next(iter(command.values())))
            if collection in SMALL or place.partition(":")[0] in ONCE:
                continue
            if _reads_everything(database, command):
                scans.append(f"{place}: {command}")
        return scans


def _single_queries(name: str, command: dict[str, Any]) -> list[dict[str, Any]]:
    plain = {field: value for field, value in command.items() if field not in SESSION_FIELDS and field[0] != "$"}
    plain.pop("cursor", None)
    if name in FILTERS:
        return [plain]
    if (
        name == "aggregate"
        and isinstance(plain["aggregate"], str)
        and "$changeStream" not in str(plain["pipeline"][:1])
    ):
        return [{**plain, "cursor": {}}]
    if name in ("update", "delete"):
        many = f"{name}s"
        return [{name: plain[name], many: [one]} for one in plain[many]]
    return []


def _shape(value: Any) -> str:
    """The command without its values, but with names of operators, fields and collections."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_shape(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(sorted({_shape(item) for item in value})) + "]"
    return value if isinstance(value, str) and value.startswith("$") else type(value).__name__


def _place_in_program() -> str:
    """Which line of the program asked; empty when a test did."""
    frame = sys._getframe(2)
    for _ in range(CALLER_FRAMES):
        if frame is None or frame.f_back is None:
            return ""
        name = frame.f_code.co_filename
        if name.startswith(OTHERS):
            return ""
        if name.startswith(PROGRAM):
            return f"{name.removeprefix(str(ROOT) + '/')}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _reads_everything(database: str, command: dict[str, Any]) -> bool:
    if command.get("filter") and "sort" in command and _explained(database, _without_order(command)):
        return True
    return _explained(database, command)


def _without_order(command: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in command.items() if name not in ("sort", "skip")}


def _explained(database: str, command: dict[str, Any]) -> bool:
    """Whether it is answered by reading the collection from its beginning."""
    client = mongoengine.get_connection()
    try:
        plan = client[database].command({"explain": command, "verbosity": "queryPlanner"}, codec_options=ANY_DATE)
    except OperationFailure:  # values that cannot be explained, such as the cursors of an earlier command
        return False
    stages = stages_of(plan)
    return "COLLSCAN" in stages and not ("LIMIT" in stages and "SORT" not in stages and not _has_filter(plan))


def _has_filter(plan: Any) -> bool:
    if isinstance(plan, list):
        return any(map(_has_filter, plan))
    if not isinstance(plan, dict):
        return False
    if plan.get("stage") == "COLLSCAN" and plan.get("filter"):
        return True
    return any(_has_filter(value) for name, value in plan.items() if name != "rejectedPlans")


def stages_of(plan: Any) -> set[str]:
    """The stages of an explained plan, without those of plans that were not chosen."""
    if isinstance(plan, list):
        return set().union(*map(stages_of, plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["stage"]} if isinstance(plan.get("stage"), str) else set()
    below = (value for name, value in plan.items() if name not in ("rejectedPlans", "command", "parsedQuery"))
    return own.union(*map(stages_of, below))


scans = Scans()
