"""``manage.py list_keys``: every API key, without its secret."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.command import clear_failures
from apps.keys.documents import LIMIT_NAMES, ApiKey
from apps.keys.selectors import iterate_keys

COLUMNS = ("prefix", "name", "owner", "active", "limit_per_hour", "scopes", "expires_at", "last_used_at")


class Command(BaseCommand):
    help = "List the API keys, newest first."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON array")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            rows = [_row(key) for key in iterate_keys()]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        lines = [COLUMNS, *[tuple(_text(row[column]) for column in COLUMNS) for row in rows]]
        widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
        for line in lines:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "owner": key.owner,
        "active": key.active,
        **{name: getattr(key, name) for name in LIMIT_NAMES},
        "labels": list(key.labels),
        "allowed_cidrs": list(key.allowed_cidrs),
        "allowed_origins": list(key.allowed_origins),
        "bind_links": key.bind_links,
        "revoked": key.revoked_at is not None,
        "scopes": list(key.scopes),
        **{name: getattr(key, name) and getattr(key, name).isoformat(timespec="seconds") for name in COLUMNS[-2:]},
        "created_at": key.created_at.isoformat(timespec="seconds"),
    }


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else str(value)
