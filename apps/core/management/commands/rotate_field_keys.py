"""``manage.py rotate_field_keys``: encrypt every stored secret with the first of FIELD_KEYS."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.core.field_keys import rotate_field_keys

SHOWN = 10


class Command(BaseCommand):
    help = (
        "Encrypt every stored secret with the first of FIELD_KEYS. Put the new key first and leave the old ones, "
        "restart everything, run this, then take the old keys away. It can be repeated, and stopped at any time."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            rotation = rotate_field_keys()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(rotation)))
        else:
            self.stdout.write(f"{rotation.changed} encrypted anew, {rotation.current} had the first key already")
        if rotation.unreadable:
            names = ", ".join(rotation.unreadable[:SHOWN])
            raise CommandError(
                f"{len(rotation.unreadable)} cannot be read with any key in FIELD_KEYS (put the old key back, or set "
                f"them anew): {names}"
            )
        if not options["json"]:
            self.stdout.write("Keys behind the first one are not needed any more.")
