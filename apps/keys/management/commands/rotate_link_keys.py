"""``manage.py rotate_link_keys``: a new secret for signed links, and how to bring it in without breaking any link."""

from __future__ import annotations

import json
import secrets
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

KEPT = 3  # secrets that go on being believed beside the new one


class Command(BaseCommand):
    help = (
        "Make a new secret that signs links, and print the values of LINK_KEYS that bring it in. Nothing is changed by "
        "this command. Links that are out stay valid until they expire."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        new, known = secrets.token_urlsafe(48), settings.ENV.link_keys[:KEPT]
        first = ",".join((*known, new)) if known else ""
        then = ",".join((new, *known))
        if options["json"]:
            self.stdout.write(json.dumps({"first": first, "then": then}))
            return
        if first:
            self.stdout.write("1. Several nodes: set this on each and restart it. All then believe the new secret.")
            self.stdout.write(f"LINK_KEYS={first}")
        else:
            self.stdout.write(
                "1. Several nodes: restart them one right after the other. Links of a node that signs with the new "
                "secret are refused by those that don't know it yet."
            )
        self.stdout.write("2. Set this on each node and restart it. The new secret signs from then on.")
        self.stdout.write(f"LINK_KEYS={then}")
        self.stdout.write(
            f"3. After {settings.ENV.link_ttl_s} s (LINK_TTL_S) no link of the old secrets is left: they may go."
        )
