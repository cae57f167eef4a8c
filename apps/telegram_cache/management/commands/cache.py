"""``manage.py cache``: look at the stored media, check it, make room, finish what was interrupted."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.telegram_cache.documents import Asset, AssetState, MediaKind
from apps.telegram_cache.selectors import cache_totals, find_asset, iterate_assets
from apps.telegram_cache.services import evict_hot, upload_asset
from apps.telegram_cache.services.upload import UploadResult
from apps.telegram_cache.services.upload_records import make_due
from apps.telegram_cache.services.verifying import verify_asset


class Command(BaseCommand):
    help = "Look at the stored media, check it, make room on the disk, finish interrupted uploads."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="list assets, one a line, and totals")
        listing.add_argument("--kind", choices=list(MediaKind))
        listing.add_argument("--state", choices=list(AssetState))
        listing.add_argument("--json", action="store_true", help="print one JSON object a line")
        verify = actions.add_parser("verify", help="read every stored part back from Telegram and check it")
        verify.add_argument("asset_id", nargs="*", help="default: every asset that is in Telegram")
        evict = actions.add_parser("evict", help="remove the least recently read files that are safe in Telegram")
        evict.add_argument("--max-bytes", type=int, help="how much may stay; default: HOT_MAX_BYTES")
        repair = actions.add_parser("repair", help="finish interrupted uploads and store bad parts again, now")
        repair.add_argument("asset_id", nargs="*", help="default: every asset that is not in Telegram in full")

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
        if not options["json"]:
            totals = cache_totals(most_used=0)
            self.stdout.write(
                f"{totals.count} finished assets, {totals.size_bytes} bytes; {totals.orphans} leftover messages"
            )

    def _verify(self, options: dict[str, Any]) -> None:
        failed = 0
        for asset in _chosen(options["asset_id"], AssetState.CACHED):
            result = verify_asset(asset)
            failed += not result.is_well
            words = "ok" if result.is_well else f"bad parts {list(result.bad)}, not readable now {list(result.unread)}"
            self.stdout.write(f"{result.asset_id} {result.good} parts good, {words}")
        if failed:
            raise CommandError(f"{failed} assets are not well. Bad parts are stored again by: manage.py cache repair")

    def _evict(self, options: dict[str, Any]) -> None:
        done = evict_hot(max_bytes=options["max_bytes"])
        self.stdout.write(
            f"Removed {len(done.removed)} files and {done.stale_removed} leftovers: {done.freed_bytes} bytes freed."
        )
        if done.still_over_bytes:
            raise CommandError(f"{done.still_over_bytes} bytes more should go, but they are not in Telegram yet.")

    def _repair(self, options: dict[str, Any]) -> None:
        failed = 0
        for asset in _chosen(options["asset_id"], AssetState.READY, AssetState.UPLOADING):
            make_due(asset.id)
            result = upload_asset(asset.id)
            if result is UploadResult.OFF:
                raise CommandError("There is no usable bot or channel. See: manage.py telegram check")
            now = find_asset(asset.id)
            failed += result is not UploadResult.CACHED
            self.stdout.write(f"{asset.id} {result.value} {now.upload_error or '' if now else ''}".rstrip())
        if failed:
            raise CommandError(f"{failed} assets could not be finished.")


def _chosen(asset_ids: list[str], *states: AssetState) -> Iterator[Asset]:
    if not asset_ids:
        for state in states:
            yield from iterate_assets(state=state.value)
    for asset_id in asset_ids:
        asset = find_asset(asset_id)
        if asset is None:
            raise CommandError(f"There is no asset {asset_id}.")
        yield asset


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
    }
