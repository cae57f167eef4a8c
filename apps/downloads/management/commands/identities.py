"""``manage.py identities``: the cookies, proxies and PO tokens with which yt-dlp asks YouTube."""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.downloads.documents import IdentityKind, ProxyUse
from apps.downloads.services.identities import (
    Actor,
    IdentityView,
    add_cookies,
    add_po_tokens,
    add_proxy,
    remove_identity,
    set_identity_enabled,
    view_identities,
)

WHO = Actor(name="manage.py")
MAX_FILE_BYTES = 4 * 1024 * 1024


class Command(BaseCommand):
    help = "Add, list, switch and remove the cookies, proxies and PO tokens with which yt-dlp asks YouTube."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        cookies = actions.add_parser("add-cookies", help="keep a cookies.txt; one of that name is replaced")
        cookies.add_argument("name", help="your own name for them")
        cookies.add_argument("file", help="a cookies.txt (Netscape format); - reads standard input")
        proxy = actions.add_parser(
            "add-proxy", help="keep a proxy's address, which is asked for, or read from standard input"
        )
        proxy.add_argument("name", help="your own name for it; one of that name is replaced")
        proxy.add_argument("--use", choices=[use.value for use in ProxyUse], default=ProxyUse.BOTH.value)
        tokens = actions.add_parser("add-po-tokens", help="keep PO tokens; those of that name are replaced")
        tokens.add_argument("name", help="your own name for them")
        tokens.add_argument(
            "file",
            nargs="?",
            default="-",
            help="one a line, CLIENT.CONTEXT+TOKEN such as web.gvs+AbC..., and visitor_data=... as a line when they "
            "were made for a visitor; default: standard input",
        )
        listing = actions.add_parser("list", help="list all and how they are doing; never secrets")
        listing.add_argument("--json", action="store_true", help="print one JSON object")
        for name, words in (("enable", "use it again, at once"), ("disable", "stop using it"), ("remove", "delete it")):
            actions.add_parser(name, help=words).add_argument("id", help="its id or its name")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            getattr(self, f"_{options['action'].replace('-', '_')}")(options)

    def _add_cookies(self, options: dict[str, Any]) -> None:
        view = add_cookies(options["name"], _read_file(options["file"]), actor=WHO)
        self.stdout.write(f"Kept cookies {view.name} ({view.id}): {view.about}.")

    def _add_proxy(self, options: dict[str, Any]) -> None:
        asked = sys.stdin.isatty()  # never from an argument: arguments show in the list of processes
        address = getpass.getpass("Proxy, such as http://user:password@host:8080: ") if asked else sys.stdin.readline()
        view = add_proxy(options["name"], address, use=ProxyUse(options["use"]), actor=WHO)
        self.stdout.write(f"Kept proxy {view.name} ({view.id}): {view.about}.")

    def _add_po_tokens(self, options: dict[str, Any]) -> None:
        view = add_po_tokens(options["name"], _read_file(options["file"]), actor=WHO)
        self.stdout.write(f"Kept PO tokens {view.name} ({view.id}): {view.about}.")

    def _list(self, options: dict[str, Any]) -> None:
        views = list(_all())
        if options["json"]:
            self.stdout.write(json.dumps({"identities": [asdict(view) for view in views]}, default=str))
            return
        for view in views:
            line = f"{view.kind:<8} {view.id:<13} {view.name:<20} {view.state:<8} {view.use or '':<9} {view.about}"
            rest = f", until {view.resting_until:%H:%M:%S} UTC" if view.resting_until else ""
            self.stdout.write(line + (f" ({view.reason}{rest})" if view.reason and view.strikes else ""))
        if not views:
            self.stdout.write("There are none. yt-dlp asks YouTube directly, or as YTDLP_OPTIONS says.")

    def _enable(self, options: dict[str, Any]) -> None:
        view = _find(options["id"])
        set_identity_enabled(view.id, enabled=True, kind=IdentityKind(view.kind), actor=WHO)
        self.stdout.write(f"{view.name} is in use.")

    def _disable(self, options: dict[str, Any]) -> None:
        view = _find(options["id"])
        set_identity_enabled(view.id, enabled=False, kind=IdentityKind(view.kind), actor=WHO)
        self.stdout.write(f"{view.name} is not used any more.")

    def _remove(self, options: dict[str, Any]) -> None:
        view = _find(options["id"])
        remove_identity(view.id, kind=IdentityKind(view.kind), actor=WHO)
        self.stdout.write(f"{view.name} is deleted.")


def _all() -> Iterator[IdentityView]:
    for kind in IdentityKind:
        yield from view_identities(kind)


def _find(wanted: str) -> IdentityView:
    found = [view for view in _all() if wanted in (view.id, view.name)]
    if not found:
        raise CommandError(f"There is nothing that is called {wanted}. See: manage.py identities list")
    if len(found) > 1:
        raise CommandError(f"Several are called {wanted}. Say which by its id.")
    return found[0]


def _read_file(name: str) -> str:
    if name == "-":
        return sys.stdin.read(MAX_FILE_BYTES)
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise CommandError(f"{name} cannot be read ({error.strerror}).") from None
