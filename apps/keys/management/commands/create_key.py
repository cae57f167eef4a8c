"""``manage.py create_key``: make an API key and print it, once."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.command import clear_failures
from apps.keys.documents import DEFAULT_LIMIT_PER_HOUR, Scope
from apps.keys.services import DEFAULT_SCOPES, create_key

MAX_DAYS = 36_500


class Command(BaseCommand):
    help = "Make an API key. It is printed once and cannot be read again."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="what the key is for")
        parser.add_argument("--owner", default="", help="the username it belongs to")
        parser.add_argument("--limit-per-hour", type=int, default=DEFAULT_LIMIT_PER_HOUR, help="default: %(default)s")
        parser.add_argument(
            "--scope", nargs="+", action="extend", choices=list(Scope), help="default: info, media and search"
        )
        parser.add_argument("--expires-days", type=days, help="days until the key stops; default: never")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        life_days = options["expires_days"]
        with clear_failures():
            new = create_key(
                name=options["name"],
                owner=options["owner"],
                scopes=tuple(options["scope"] or DEFAULT_SCOPES),
                limit_per_hour=options["limit_per_hour"],
                expires_at=None if life_days is None else datetime.now(UTC) + timedelta(days=life_days),
            )
        if options["json"]:
            self.stdout.write(json.dumps({"key": new.key, "prefix": new.document.prefix}))
        else:
            self.stdout.write(new.key)


def days(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_DAYS:
        raise ValueError
    return value
