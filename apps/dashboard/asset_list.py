"""The list of assets in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from django.urls import reverse

from apps.core.errors import NotFound
from apps.dashboard.asset_work import WORKS
from apps.dashboard.lists import BulkAction, Cell, Column, Empty, Filter, ListSpec, age_filter, choices_filter
from apps.downloads.services.media import hot_store
from apps.telegram_cache.documents import Asset, AssetState, MediaKind
from apps.telegram_cache.selectors import find_asset

MAX_HOT_IDS = 50_000
TIERS = (("hot", "On this server"), ("telegram", "In Telegram"), ("cold", "In Telegram only"))
STATE_TONES = {
    AssetState.ABSENT: "secondary",
    AssetState.QUEUED: "info",
    AssetState.FETCHING: "info",
    AssetState.READY: "success",
    AssetState.UPLOADING: "success",
    AssetState.CACHED: "success",
    AssetState.FAILED: "danger",
}
STATE_NOTES = {
    AssetState.READY: "on this server only",
    AssetState.UPLOADING: "on its way to Telegram",
    AssetState.CACHED: "in Telegram",
}


def asset_state(asset: Asset) -> Cell:
    """The state, and in plain words what it means or what went wrong."""
    state = AssetState(asset.state)
    note = asset.error_message or asset.error_code or "" if state == AssetState.FAILED else STATE_NOTES.get(state, "")
    return Cell(kind="badge", value=state.value, tone=STATE_TONES[state], note=note)


def asset_href(asset_id: str) -> str:
    return reverse("dashboard:assets-detail", args=[asset_id])


def asset_tiers(asset: Asset) -> list[str]:
    """Where the whole file is right now: "hot" (on this server), "telegram", both or nowhere."""
    if not asset.is_finished:
        return []
    tiers = ["hot"] if hot_store().is_complete(asset.id, asset.generation) else []
    return tiers + (["telegram"] if asset.state == AssetState.CACHED else [])


def _where_tier(tier: str) -> Mapping[str, Any]:
    if tier == "telegram":
        return {"state": AssetState.CACHED.value}
    on_disk = set(islice(hot_store().asset_ids(), MAX_HOT_IDS))
    if tier == "hot":
        return {"_id": {"$in": list(on_disk)}}
    return {"state": AssetState.CACHED.value, "_id": {"$nin": list(on_disk)}}


def _as_it_is_now(asset: Asset) -> Asset:
    """All of an asset of the list. Raises NotFound."""
    if (found := find_asset(asset.id)) is None:
        raise NotFound("This is not in the cache.")
    return found


def _bulk(name: str) -> BulkAction:
    work = WORKS[name]
    return BulkAction(
        name=name,
        label=work.label,
        icon=work.icon,
        question=work.many,
        text=work.text,
        run=lambda request, asset: work.do(request, _as_it_is_now(asset)),
        done=work.label + ": {things}.",
        tone=work.tone,
    )


ASSET_LIST = ListSpec(
    document=Asset,
    sort="-last_accessed_at",
    columns=(
        Column(
            label="Title",
            sort="title",
            cell=lambda asset: Cell(
                value=asset.title or asset.video_id, href=asset_href(asset.id), note=asset.video_id
            ),
        ),
        Column(label="Kind", cell=lambda asset: Cell(value=asset.kind)),
        Column(label="Variant", cell=lambda asset: Cell(value=asset.variant)),
        Column(label="State", cell=asset_state),
        Column(label="Where", cell=lambda asset: Cell(kind="badges", value=asset_tiers(asset))),
        Column(
            label="Size", sort="size_bytes", numeric=True, cell=lambda asset: Cell(kind="bytes", value=asset.size_bytes)
        ),
        Column(
            label="Hits",
            sort="access_count",
            numeric=True,
            cell=lambda asset: Cell(kind="number", value=asset.access_count),
        ),
        Column(
            label="Last used",
            sort="last_accessed_at",
            cell=lambda asset: Cell(kind="time", value=asset.last_accessed_at, note="never"),
        ),
    ),
    exact_fields=("video_id", "_id"),
    search_hint="Search title, or a video id",
    filters=(
        choices_filter("kind", "Kind", tuple((kind.value, kind.value) for kind in MediaKind), always=True),
        choices_filter("state", "State", tuple((state.value, state.value) for state in AssetState), always=True),
        Filter(name="tier", label="Where", choices=TIERS, where=_where_tier),
        age_filter("last_accessed_at", name="used", label="Used"),
    ),
    exclude=("block_sha256", "parts"),
    bulk_actions=tuple(_bulk(name) for name in WORKS),
    name=lambda asset: f"{asset.title or asset.video_id} ({asset.kind}, {asset.variant})",
    things=("file", "files"),
    empty=Empty(
        title="Nothing in the cache yet",
        text="The first request for a video puts it here. Try it with a link of yours.",
        icon="film",
        href="/admin/try",
        label="Try a link",
    ),
)
