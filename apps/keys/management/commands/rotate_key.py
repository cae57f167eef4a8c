"""``manage.py rotate_key``: give an API key a new secret and print it, once."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.command import clear_failures, show_once
from apps.keys.arguments import ACTOR
from apps.keys.changes import DEFAULT_GRACE_S, rotate_key


class Command(BaseCommand):
    help = "Give an API key a new secret. Prefix, limits, use and links stay. The old secret works for a while more."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prefix", help="the 8 characters after yt_ (list_keys shows them)")
        parser.add_argument(
            "--grace-s",
            type=int,
            default=DEFAULT_GRACE_S,
            help="seconds that the old secret works; default: %(default)s",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            new = rotate_key(options["prefix"], grace_s=options["grace_s"], actor=ACTOR)
        until = new.document.old_secret_until.isoformat(timespec="seconds")
        said = {"key": new.key, "prefix": new.document.prefix, "old_works_until": until}
        text = json.dumps(said) if options["json"] else new.key
        otherwise = (
            f"the old secret works until {until}. Rotate again when nobody uses it any more: that ends it at once."
        )
        show_once(self.stdout, text, otherwise=otherwise)
        if not options["json"]:
            self.stderr.write(f"The old secret works until {until}.")
