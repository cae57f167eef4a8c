"""``manage.py users``: the people who have API keys."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.keys.arguments import ACTOR, add_limit_arguments, limit_fields
from apps.keys.changes import add_user, delete_user, update_user
from apps.keys.documents import LIMIT_NAMES, User
from apps.keys.selectors import count_keys_by_owner, iterate_users

TEXTS = ("name", "contact", "notes")


class Command(BaseCommand):
    help = "Add, change, delete and list users: whom keys belong to, and the limits their keys start from."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for action, words in (("add", "add a user who has keys, without entry to the admin"), ("update", "change one")):
            one = actions.add_parser(action, help=words)
            one.add_argument("username")
            for text in TEXTS:
                one.add_argument(f"--{text}")
            switch = one.add_mutually_exclusive_group()
            switch.add_argument("--on", dest="active", action="store_const", const=True, help="their keys work")
            switch.add_argument(
                "--off", dest="active", action="store_const", const=False, help="no key of theirs works"
            )
            add_limit_arguments(one)
        actions.add_parser("delete", help="delete a user without keys").add_argument("username")
        actions.add_parser("list", help="list them").add_argument("--json", action="store_true", help="one JSON array")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            if options["action"] == "list":
                self._list(as_json=options["json"])
            elif options["action"] == "delete":
                delete_user(options["username"], actor=ACTOR)
                self.stdout.write(f"Deleted {options['username']}.")
            else:
                self._change(options)

    def _change(self, options: dict[str, Any]) -> None:
        fields = limit_fields(options)
        fields |= {name: options[name] for name in (*TEXTS, "active") if options[name] is not None}
        if options["action"] == "add":
            add_user(options["username"], fields, actor=ACTOR)
            self.stdout.write(f"Added {options['username']}.")
            return
        if not fields:
            raise CommandError("Say what to change: see --help.")
        update_user(options["username"], fields, actor=ACTOR)
        self.stdout.write(f"Changed {options['username']}.")

    def _list(self, *, as_json: bool) -> None:
        keys = count_keys_by_owner()
        rows = [_row(user, keys.get(user.username, 0)) for user in iterate_users()]
        if as_json:
            self.stdout.write(json.dumps(rows))
            return
        for row in rows:
            plan = ", ".join(f"{name} {row[name]}" for name in LIMIT_NAMES if row[name] is not None) or "no plan"
            state = "on" if row["active"] else "off"
            self.stdout.write(f"{row['username']}  {state}  {row['role']}  keys: {row['keys']}  {plan}")


def _row(user: User, keys: int) -> dict[str, Any]:
    return {
        "username": user.username,
        "name": user.name,
        "contact": user.contact,
        "active": user.active,
        "role": user.role,
        "keys": keys,
        **{name: getattr(user, name) for name in LIMIT_NAMES},
    }
