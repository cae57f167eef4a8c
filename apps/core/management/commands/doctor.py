"""``manage.py doctor``: is everything here that the server needs, and what to do if not."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

import pymongo.errors
from django.conf import settings
from django.core.management.base import BaseCommand

from apps.core.doctor import GIB, Result, all_checks
from apps.core.tunables import hot_max_bytes
from apps.downloads.documents import IdentityKind
from apps.downloads.services.identities import view_identities
from apps.streaming.usage import hot_usage_now, is_over
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.services.bots import check_all


class Command(BaseCommand):
    help = "Check every dependency and say what to do. The exit code is 1 when something is wrong."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        results = []
        for result in _results():
            results.append(result)
            if not options["json"]:
                advice = f"\n         -> {result.fix}" if result.fix else ""
                self.stdout.write(f"{'ok      ' if result.ok else 'PROBLEM '} {result.name}: {result.text}{advice}")
        ok = all(result.ok for result in results)
        if options["json"]:
            self.stdout.write(json.dumps({"ok": ok, "checks": [dataclasses.asdict(result) for result in results]}))
        if not ok:
            sys.exit(1)


def _results() -> Iterator[Result]:
    for check in all_checks(settings.ENV, settings.SERVICES):
        yield check()
    yield _hot_store_size()
    yield from _cookies_and_proxies()
    try:
        findings = check_all()
    except pymongo.errors.PyMongoError:
        yield Result(name="Telegram", ok=True, text="not known without MongoDB")
        return
    if not findings:
        yield Result(
            name="Telegram", ok=True, text="no bots: nothing is kept in Telegram",
            fix="`manage.py telegram add-bot` and `add-channel`",
        )  # fmt: skip
    for finding in findings:
        yield Result(name="Telegram", ok=finding.ok, text=finding.text, fix=finding.fix)
    for alert in alerts():
        yield Result(name="Telegram", ok=False, text=alert.text, fix=alert.fix)


def _hot_store_size() -> Result:
    """Above its bound it grows until the disk is full."""
    try:
        usage, bound = hot_usage_now(), hot_max_bytes()
    except OSError:
        return Result(name="size of the hot store", ok=True, text="not known without the disk")
    size, allowed = f"{usage.disk_bytes / GIB:.1f} GiB", f"{bound / GIB:.1f} GiB"
    if not is_over(usage, bound):
        return Result(name="size of the hot store", ok=True, text=f"{size} of {allowed}")
    return Result(
        name="size of the hot store", ok=False, text=f"{size}, more than the {allowed} it may have: what is not safe in"
        " Telegram stays, until the disk is full",
        fix="`manage.py cache evict` says what may not leave, `manage.py telegram check` why; or raise HOT_MAX_BYTES",
    )  # fmt: skip


def _cookies_and_proxies() -> Iterator[Result]:
    """The pools of yt-dlp: how many work, and what is wrong with those that do not."""
    try:
        views = [view for kind in IdentityKind for view in view_identities(kind) if view.state != "off"]
    except pymongo.errors.PyMongoError:
        return
    if not views:
        yield Result(name="cookies and proxies", ok=True, text="none: YouTube is asked directly")
        return
    ready = [view for view in views if view.state == "ready"]
    proxies = [view for view in views if view.kind == IdentityKind.PROXY]
    resting = "; ".join(f"{view.name}: {view.reason}" for view in views if view.state == "resting")
    yield Result(
        name="cookies and proxies",
        ok=not proxies or any(view in ready for view in proxies),
        text=f"{len(ready)} of {len(views)} are ready",
        fix=resting,
    )
