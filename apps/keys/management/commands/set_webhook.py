"""``manage.py set_webhook``: which address is told when a key's jobs end."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.command import clear_failures, show_once
from apps.keys.webhooks import remove_webhook, set_webhook

ACTOR = "command line"


class Command(BaseCommand):
    help = "Set the address that is told when a key's jobs end. Prints the signing secret, once."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prefix", help="the key's 8 characters prefix (list_keys shows it)")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--url", help="a public https address")
        what.add_argument("--remove", action="store_true", help="tell nobody any more")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            if options["remove"]:
                remove_webhook(options["prefix"], actor=ACTOR)
                answer: dict[str, Any] = {"removed": True}
                line = "Removed."
            else:
                line = set_webhook(options["prefix"], options["url"], actor=ACTOR)
                answer = {"secret": line}
        text = json.dumps(answer) if options["json"] else line
        show_once(self.stdout, text, otherwise="it is done all the same. To see the secret, set the address again.")
