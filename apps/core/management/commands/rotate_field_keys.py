"""``manage.py rotate_field_keys``: encrypt every stored secret with the first of FIELD_KEYS."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
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
        parser.add_argument(
            "--new", action="store_true", help="change nothing: make a new key and print the values of FIELD_KEYS"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["new"]:
            self._print_new(as_json=options["json"])
            return
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

    def _print_new(self, *, as_json: bool) -> None:
        new, known = Fernet.generate_key().decode(), settings.ENV.field_keys
        steps = {"first": ",".join((*known, new)), "then": ",".join((new, *known)), "last": new}
        if as_json:
            self.stdout.write(json.dumps(steps))
            return
        self.stdout.write("1. Several nodes: set this on each and restart it. All can read the new key's secrets then.")
        self.stdout.write(f"FIELD_KEYS={steps['first']}")
        self.stdout.write("2. Set this on each node and restart it. The new key encrypts from then on.")
        self.stdout.write(f"FIELD_KEYS={steps['then']}")
        self.stdout.write("3. Run `manage.py rotate_field_keys`, while everything runs. Then this is enough:")
        self.stdout.write(f"FIELD_KEYS={steps['last']}")
        self.stdout.write("Keep the old key as long as you keep backups of its time.")
