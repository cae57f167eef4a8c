"""``manage.py create_admin``: make somebody who may enter the admin."""

from __future__ import annotations

import json
import secrets
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core import audit
from apps.core.command import clear_failures, show_once
from apps.keys.admins import ADMIN_ROLES
from apps.keys.arguments import ACTOR
from apps.keys.documents import Role
from apps.keys.services import create_user


class Command(BaseCommand):
    help = "Make an admin user. The password is made up and printed once, unless it is given on standard input."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True)
        parser.add_argument(
            "--role",
            choices=[role.value for role in ADMIN_ROLES],
            default=Role.OWNER.value,
            help="owner (everything), operator (all but admins, secrets and settings) or viewer (looks only)",
        )
        parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        is_given = options["password_stdin"]
        password = sys.stdin.readline().rstrip("\r\n") if is_given else secrets.token_urlsafe(18)
        with clear_failures():
            user = create_user(username=options["username"], password=password, role=Role(options["role"]))
            after = {"role": user.role}
            audit.record(actor=ACTOR, action="user.create", target_kind="user", target_id=user.username, after=after)
        made = {"username": user.username} if is_given else {"username": user.username, "password": password}
        text = json.dumps(made) if options["json"] else "\n".join(f"{name}: {value}" for name, value in made.items())
        show_once(self.stdout, text, otherwise="the admin is there; `manage.py reset_admin` makes another password.")
