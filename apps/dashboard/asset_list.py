"""The list of assets in the cache."""

from __future__ import annotations

from django.urls import reverse

from apps.dashboard.lists import Cell, Column, ListSpec
from apps.dashboard.lists.spec import Empty, choices_filter
from apps.telegram_cache.documents import Asset, AssetState, MediaKind

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
        choices_filter("kind", "Kind", tuple((kind.value, kind.value) for kind in MediaKind)),
        choices_filter("state", "State", tuple((state.value, state.value) for state in AssetState)),
    ),
    exclude=("block_sha256", "parts"),
    empty=Empty(
        title="Nothing in the cache yet",
        text="The first request for a video puts it here. Create an API key, then ask for one: the overview shows how.",
        icon="film",
        href="/admin/keys/new",
        label="Create a key",
    ),
)
