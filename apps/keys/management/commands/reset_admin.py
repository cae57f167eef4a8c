"""``manage.py reset_admin``: help somebody back in who lost the password or the second factor."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core import audit
from apps.core.command import clear_failures, show_once
from apps.keys.admins import find_admin_by_name, reset_password, set_admin_active
from apps.keys.arguments import ACTOR
from apps.keys.second_factor import remove_second_factor


class Command(BaseCommand):
    help = "Give an admin a new password, printed once, and log them out everywhere."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True)
        parser.add_argument("--second-factor", action="store_true", help="take the second factor away too")
        parser.add_argument("--activate", action="store_true", help="switch them on, if they were switched off")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            user = find_admin_by_name(options["username"])
            password = reset_password(user)
            self._record("user.reset_password", user.username)
            if options["second_factor"] and remove_second_factor(user):
                self._record("user.reset_second_factor", user.username)
            if options["activate"] and set_admin_active(user, active=True):
                self._record("user.activate", user.username)
        made = {"username": user.username, "password": password}
        text = json.dumps(made) if options["json"] else "\n".join(f"{name}: {value}" for name, value in made.items())
        show_once(self.stdout, text, otherwise="the old password is gone, too. Run this again.")

    def _record(self, action: str, username: str) -> None:
        audit.record(actor=ACTOR, action=action, target_kind="user", target_id=username)
