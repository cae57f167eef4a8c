"""The list of warm-ups, and the list of what is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.urls import reverse

from apps.dashboard.asset_list import asset_href
from apps.dashboard.lists import BulkAction, Cell, Column, Empty, ListSpec, choices_filter
from apps.dashboard.templatetags.ui import human_bytes
from apps.dashboard.warm_up_work import STEERING
from apps.downloads.warm_documents import WarmEntryState, WarmState, WarmUp, WarmUpEntry
from apps.downloads.warm_selectors import recent_warm_counts

TONES = {
    WarmState.RUNNING: "info",
    WarmState.PAUSED: "warning",
    WarmState.DONE: "success",
    WarmState.CANCELLED: "secondary",
}
ENTRY_TONES = {
    WarmEntryState.WAITING: "secondary",
    WarmEntryState.FETCHING: "info",
    WarmEntryState.DONE: "success",
    WarmEntryState.FAILED: "danger",
    WarmEntryState.CANCELLED: "warning",
}


def warm_up_state(warm_up: WarmUp) -> Cell:
    state = WarmState(warm_up.state)
    note = "reading the playlist" if warm_up.reading and state == WarmState.RUNNING else warm_up.problem or ""
    return Cell(kind="badge", value=state.value, tone=TONES[state], note=note)


def what_of(warm_up: WarmUp) -> str:
    """What is fetched, in words: "audio, mp3"."""
    return f"{warm_up.kind}, {warm_up.wish or 'the best'}"


def _progress(warm_ups: Sequence[WarmUp]) -> list[Cell]:
    counts = recent_warm_counts([warm_up.id for warm_up in warm_ups])
    return [_progress_of(warm_up, counts[warm_up.id]) for warm_up in warm_ups]


def _progress_of(warm_up: WarmUp, counts: Mapping[str, int]) -> Cell:
    over = warm_up.total - counts["waiting"] - counts["fetching"]
    parts = [f"{counts['done']} of {warm_up.total} there"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    percent = round(100 * over / warm_up.total) if warm_up.total else None
    return Cell(kind="progress", value=percent, note=", ".join(parts))


def _begins(warm_up: WarmUp) -> Cell:
    return Cell(value="at any hour" if warm_up.any_hour else "in quiet hours")


def _bulk(name: str) -> BulkAction:
    steering = STEERING[name]
    return BulkAction(
        name=name,
        label=steering.label,
        icon=steering.icon,
        question=steering.many,
        text=steering.text,
        run=steering.do,
        done=f"{{things}} {steering.done}.",
        tone=steering.tone,
    )


WARM_UP_LIST = ListSpec(
    document=WarmUp,
    sort="-created_at",
    columns=(
        Column(
            label="List",
            cell=lambda warm_up: Cell(
                value=warm_up.name,
                href=reverse("dashboard:warm-ups-detail", args=[warm_up.id]),
                note=what_of(warm_up),
            ),
        ),
        Column(label="State", cell=warm_up_state),
        Column(label="Progress", cells=_progress),
        Column(label="Begins", cell=_begins),
        Column(label="By", cell=lambda warm_up: Cell(value=warm_up.created_by)),
        Column(label="Made", sort="created_at", cell=lambda warm_up: Cell(kind="time", value=warm_up.created_at)),
    ),
    filters=(choices_filter("state", "State", tuple((state.value, state.value) for state in WarmState)),),
    bulk_actions=tuple(_bulk(name) for name in STEERING),
    things=("list", "lists"),
    live_s=5,
    empty=Empty(
        title="Nothing is fetched ahead",
        text="Give a list of links or a playlist. It is fetched in quiet hours, so that it is there when people ask.",
        icon="sunrise",
        href="/admin/warm-ups/new",
        label="Fetch a list",
    ),
)


def _entry_state(entry: WarmUpEntry) -> Cell:
    state = WarmEntryState(entry.state)
    return Cell(kind="badge", value=state.value, tone=ENTRY_TONES[state], note=entry.error_message or "")


def entry_list(warm_up_id: str) -> ListSpec:
    """What is in one warm-up."""
    return ListSpec(
        document=WarmUpEntry,
        only={"warm_up_id": warm_up_id},
        sort="number",
        columns=(
            Column(
                label="Link",
                cell=lambda entry: Cell(value=entry.link, href=asset_href(entry.asset_id) if entry.asset_id else ""),
            ),
            Column(label="State", cell=_entry_state),
            Column(label="No.", sort="number", cell=lambda entry: Cell(value=entry.number + 1), numeric=True),
            Column(
                label="Size",
                numeric=True,
                cell=lambda entry: Cell(value=human_bytes(entry.size_bytes) if entry.size_bytes else ""),
            ),
            Column(label="Ended", cell=lambda entry: Cell(kind="time", value=entry.ended_at)),
        ),
        filters=(
            choices_filter(
                "state", "State", tuple((state.value, state.value) for state in WarmEntryState), always=True
            ),
        ),
        live_s=5,
        empty=Empty(title="Nothing yet", text="The playlist is being read.", icon="list"),
    )
