"""``manage.py cache``: look at the stored media, check and mend it, make room, take it elsewhere, fetch ahead."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core import audit
from apps.core.command import clear_failures, shell_actor
from apps.core.hot_names import note_eviction
from apps.downloads.management.warm import add_warm_arguments, run_warm
from apps.telegram_cache.documents import Asset, AssetState, MediaKind
from apps.telegram_cache.selectors import cache_totals, count_assets, find_asset, iterate_assets
from apps.telegram_cache.services import evict_hot, upload_asset
from apps.telegram_cache.services.care_records import make_due
from apps.telegram_cache.services.transfer import ImportOutcome, export_assets, import_assets
from apps.telegram_cache.services.upload import UploadResult
from apps.telegram_cache.services.verifying import verify_asset

PROGRESS_EVERY = 1000


class Command(BaseCommand):
    help = "Look at the stored media, check and mend it, make room on the disk, take the record elsewhere, fetch ahead."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="list assets, one a line, and totals")
        listing.add_argument("--kind", choices=list(MediaKind))
        listing.add_argument("--state", choices=list(AssetState))
        listing.add_argument("--json", action="store_true", help="print one JSON object a line")
        listing.add_argument("--no-totals", action="store_true", help="leave them out (3 s of counting for a million)")
        verify = actions.add_parser("verify", help="read every stored part back from Telegram and check it")
        verify.add_argument("asset_id", nargs="*", help="default: every asset that is in Telegram")
        evict = actions.add_parser("evict", help="remove the least recently read files that are safe in Telegram")
        evict.add_argument("--max-bytes", type=int, help="how much may stay; default: HOT_MAX_BYTES")
        repair = actions.add_parser("repair", help="finish interrupted uploads and store bad parts again, now")
        repair.add_argument("asset_id", nargs="*", help="default: every asset that is not in Telegram in full")
        export = actions.add_parser("export", help="write the record of what is in Telegram as JSON lines")
        export.add_argument("file", nargs="?", default="-", help="default: standard output")
        taking = actions.add_parser("import", help="read such a file: everything in it is served from Telegram at once")
        taking.add_argument("file", nargs="?", default="-", help="default: standard input")
        add_warm_arguments(actions)

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            getattr(self, f"_{options['action']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        for asset in iterate_assets(kind=options["kind"], state=options["state"]):
            row = _row(asset)
            if options["json"]:
                self.stdout.write(json.dumps(row))
            else:
                self.stdout.write(
                    f"{row['asset_id']} {row['state']:<9} {row['kind']} {row['variant']:<7} {row['size_bytes']:>12} "
                    f"{row['access_count']:>6}x {row['video_id']} {row['title']}"
                )
        if not options["json"] and not options["no_totals"]:
            totals = cache_totals(most_used=0)
            left = f" ({totals.orphans_left} of them for people to remove)" if totals.orphans_left else ""
            self.stdout.write(
                f"{totals.count} finished assets, {totals.size_bytes} bytes; {totals.orphans} leftover messages{left}"
            )

    def _verify(self, options: dict[str, Any]) -> None:
        failed = 0
        total = len(options["asset_id"]) or count_assets(AssetState.CACHED)
        for number, asset in enumerate(_chosen(options["asset_id"], AssetState.CACHED), start=1):
            result = verify_asset(asset)
            failed += not result.is_well
            if result.bad:
                _record("asset.verify", asset, {"bad_parts": list(result.bad)})
            kinds = (("bad", result.bad), ("not readable now", result.unread))
            problems = [f"{what} {_listed(parts)}" for what, parts in kinds if parts]
            words = ", ".join(problems) or "ok"
            self.stdout.write(f"[{number}/{total}] {result.asset_id} {result.good} parts good, {words}")
        if failed:
            raise CommandError(f"{failed} assets are not well. Bad parts are stored again by: manage.py cache repair")
        if not total:
            self.stdout.write("Nothing is in Telegram: there is nothing to verify.")

    def _evict(self, options: dict[str, Any]) -> None:
        def tell(asset_id: str, size_bytes: int, left_bytes: int) -> None:
            self.stdout.write(f"{asset_id} {size_bytes} bytes freed, {left_bytes} bytes more to go")

        done = evict_hot(max_bytes=options["max_bytes"], on_removed=tell, in_turns=False)
        note_eviction()
        if done.removed or done.stale_removed:
            counts = {"files": len(done.removed), "leftovers": done.stale_removed, "freed_bytes": done.freed_bytes}
            _record_all("cache.evict", counts)
        self.stdout.write(
            f"Removed {len(done.removed)} files and {done.stale_removed} leftovers: {done.freed_bytes} bytes freed."
        )
        if done.still_over_bytes:
            raise CommandError(
                f"{done.still_over_bytes} bytes more should go, but they are not in Telegram yet, "
                "or no bot can bring them back now."
            )

    def _repair(self, options: dict[str, Any]) -> None:
        failed = waiting = 0
        total = len(options["asset_id"]) or count_assets(AssetState.READY, AssetState.UPLOADING)
        for number, asset in enumerate(_chosen(options["asset_id"], AssetState.READY, AssetState.UPLOADING), start=1):
            is_due = make_due(asset.id)
            result = upload_asset(asset.id)
            if result is UploadResult.OFF:
                raise CommandError("There is no usable bot or channel. See: manage.py telegram check")
            now = find_asset(asset.id)
            if is_due:
                _record("asset.repair", asset, {"state": now.state if now else "", "result": result.value})
            is_open = now is not None and result is not UploadResult.CACHED
            waits_for = now.upload_waits_for if now and is_open else None
            is_lost = bool(now and is_open and now.refetch_reason)
            waiting += bool(waits_for) or is_lost
            failed += result is not UploadResult.CACHED and not waits_for and not is_lost
            words = f"{result.value} {now.upload_error or '' if now else ''}".rstrip()
            if now and waits_for:
                words = f"waits until {now.upload_retry_at:%H:%M:%S} UTC: {waits_for}"
            elif now and is_lost:
                words = f"is to be fetched anew: {now.refetch_reason}"
            self.stdout.write(f"[{number}/{total}] {asset.id} {words}")
        if waiting:
            self.stdout.write(f"{waiting} wait for their turn. The running server goes on with them.")
        if not total:
            self.stdout.write("There is nothing to repair: everything finished is in Telegram in full.")
        if failed:
            raise CommandError(f"{failed} assets could not be finished.")

    def _export(self, options: dict[str, Any]) -> None:
        with _opened(options["file"], "w") as out:
            count = deque(export_assets(out or self.stdout), maxlen=1)
        self.stderr.write(f"{count[0] if count else 0} assets written.")

    def _import(self, options: dict[str, Any]) -> None:
        counts: Counter[ImportOutcome] = Counter()
        with _opened(options["file"], "rb") as source:
            for item in import_assets(source or sys.stdin.buffer):
                counts[item.outcome] += 1
                if item.outcome is ImportOutcome.WRONG:
                    self.stderr.write(f"line {item.line}: {item.text}")
                elif counts.total() % PROGRESS_EVERY == 0:
                    self.stdout.write(f"{counts.total()} lines ...")
        if counts.total():
            _record_all("cache.import", {outcome.value: count for outcome, count in counts.items()})
        added, known, kept = (counts[outcome] for outcome in list(ImportOutcome)[:3])
        self.stdout.write(f"{added} assets added, {known} known already, {kept} kept as they are here.")
        if counts[ImportOutcome.WRONG]:
            raise CommandError(f"{counts[ImportOutcome.WRONG]} lines are wrong; nothing was changed by those.")

    def _warm(self, options: dict[str, Any]) -> None:
        run_warm(options, self.stdout)


@contextmanager
def _opened(name: str, mode: str) -> Iterator[Any]:
    """The file, or None for `-`: standard input or output."""
    if name == "-":
        yield None
        return
    try:
        file = open(name, mode)  # noqa: SIM115, PTH123 - closed below; the name is the operator's
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from None
    with file:
        yield file


def _chosen(asset_ids: list[str], *states: AssetState) -> Iterator[Asset]:
    if not asset_ids:
        for state in states:
            yield from iterate_assets(state=state.value)
    for asset_id in asset_ids:
        asset = find_asset(asset_id)
        if asset is None:
            raise CommandError(f"There is no asset {asset_id}.")
        yield asset


def _listed(parts: tuple[int, ...]) -> str:
    return f"part{'s' if len(parts) > 1 else ''} {', '.join(map(str, parts))}"


def _record(action: str, asset: Asset, after: dict[str, Any]) -> None:
    before = {"title": asset.title or asset.video_id, "state": asset.state}
    audit.record(
        actor=shell_actor(), action=action, target_kind="asset", target_id=asset.id, before=before, after=after
    )


def _record_all(action: str, after: dict[str, Any]) -> None:
    audit.record(actor=shell_actor(), action=action, target_kind="cache", target_id="all", after=after)


def _row(asset: Asset) -> dict[str, Any]:
    return {
        "asset_id": asset.id,
        "video_id": asset.video_id,
        "kind": asset.kind,
        "variant": asset.variant,
        "state": asset.state,
        "title": asset.title,
        "size_bytes": asset.size_bytes or 0,
        "parts": len(asset.parts),
        "access_count": asset.access_count,
        "upload_error": asset.upload_error or "",
        "upload_waits_for": asset.upload_waits_for or "",
    }
