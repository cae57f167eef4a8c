"""``manage.py create_key``: make an API key and print it, once."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core import audit
from apps.core.command import clear_failures
from apps.keys.arguments import ACTOR, add_key_arguments, key_fields
from apps.keys.services import create_key


class Command(BaseCommand):
    help = (
        "Make an API key. It is printed once and cannot be read again. It may use info, media and search, 1000 times "
        "an hour, unless you or its user's plan say otherwise."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="what the key is for")
        add_key_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            new = create_key(name=options["name"], **key_fields(options))
            prefix, after = new.document.prefix, {"name": new.document.name}
            audit.record(actor=ACTOR, action="key.create", target_kind="key", target_id=prefix, after=after)
        if options["json"]:
            self.stdout.write(json.dumps({"key": new.key, "prefix": new.document.prefix}))
        else:
            self.stdout.write(new.key)
