"""``manage.py create_key``: make an API key and print it, once."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core import audit
from apps.core.command import clear_failures, show_once
from apps.keys.arguments import ACTOR, add_key_arguments, key_fields
from apps.keys.changes import delete_key
from apps.keys.documents import ApiKey
from apps.keys.services import create_recorded_key


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
            new = create_recorded_key(_record, name=options["name"], **key_fields(options))
            prefix = new.document.prefix
            text = json.dumps({"key": new.key, "prefix": prefix}) if options["json"] else new.key
            try:
                show_once(self.stdout, text, otherwise=f"the key {prefix} was deleted again. Make another one.")
            except BaseException:
                delete_key(prefix, actor=ACTOR)
                raise


def _record(key: ApiKey) -> None:
    audit.record(actor=ACTOR, action="key.create", target_kind="key", target_id=key.prefix, after={"name": key.name})
