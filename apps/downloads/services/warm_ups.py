"""Warm-ups: making them, pausing, going on, cancelling. ``warm_rounds`` fetches what is in them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pymongo import UpdateOne

from apps.core.clock import utcnow
from apps.core.errors import Conflict, InvalidParameter, InvalidUrl, NotFound
from apps.downloads.documents import JobState
from apps.downloads.links import MAX_LINK_CHARS, parse_video_id
from apps.downloads.services.jobs import cancel_job
from apps.downloads.variants import AS_IT_COMES, MediaOptions
from apps.downloads.warm_documents import WarmEntryState, WarmState, WarmUp, WarmUpEntry
from apps.downloads.warm_selectors import fetching_entries, find_warm_up, is_fetched_elsewhere, warm_counts
from apps.telegram_cache.documents import MediaKind

MAX_LINKS = 10_000
MAX_ACTIVE = 100
INSERT_AT_ONCE = 1000


def make_warm_up(
    *,
    name: str,
    kind: MediaKind,
    links: list[str] | None = None,
    playlist_id: str = "",
    wish: str | None = None,
    options: MediaOptions = AS_IT_COMES,
    any_hour: bool = False,
    created_by: str = "",
) -> WarmUp:
    """Keep a list, or a playlist's id, to be fetched ahead. What is no link becomes a failed entry.

    Raises InvalidParameter for an empty or too long list, and Conflict when too many warm-ups run.
    """
    links = list(dict.fromkeys(links or ()))
    if not links and not playlist_id:
        raise InvalidParameter("There is no link in this list.", parameter="links")
    if len(links) > MAX_LINKS:
        raise InvalidParameter(f"At most {MAX_LINKS} links in one list.", parameter="links")
    active = [WarmState.RUNNING.value, WarmState.PAUSED.value]
    if WarmUp.objects(state__in=active).count() >= MAX_ACTIVE:
        raise Conflict(f"There are {MAX_ACTIVE} warm-ups already. Cancel one, or wait until one is done.")
    warm_up = WarmUp(
        name=name,
        kind=kind.value,
        wish=wish,
        options=options.as_document(),
        any_hour=any_hour,
        playlist_id=playlist_id,
        reading=bool(playlist_id),
        created_by=created_by,
        state=WarmState.PAUSED.value,  # until its entries are there
    ).save(force_insert=True)
    add_entries(warm_up, links, first=0)
    _move(warm_up.id, {WarmState.PAUSED}, WarmState.RUNNING)
    return find_warm_up(warm_up.id) or warm_up


def add_entries(warm_up: WarmUp, links: list[str], *, first: int, **noted: Any) -> None:
    """More files for a warm-up, numbered from ``first``; what is ``noted`` about the list changes with its total.

    Can be repeated after a process died in it: entries that are there stay as they are.
    """
    entries = [_new_entry(warm_up.id, first + place, link).to_mongo().to_dict() for place, link in enumerate(links)]
    changes = [UpdateOne({"_id": entry.pop("_id")}, {"$setOnInsert": entry}, upsert=True) for entry in entries]
    for start in range(0, len(changes), INSERT_AT_ONCE):
        WarmUpEntry._get_collection().bulk_write(changes[start : start + INSERT_AT_ONCE], ordered=False)
    total = WarmUpEntry.objects(warm_up_id=warm_up.id).count()
    WarmUp._get_collection().update_one({"_id": warm_up.id}, {"$set": {"total": total, **noted}})


def pause_warm_up(warm_up_id: str) -> None:
    """Begin nothing more until it is resumed; fetches under way end. Raises Conflict, NotFound."""
    _change(warm_up_id, {WarmState.RUNNING}, WarmState.PAUSED)


def resume_warm_up(warm_up_id: str) -> None:
    """Go on. Raises Conflict, NotFound."""
    _change(warm_up_id, {WarmState.PAUSED}, WarmState.RUNNING)


def cancel_warm_up(warm_up_id: str) -> None:
    """End it: what waits is not fetched any more, and fetches stop that nobody else waits for. Files that are there
    stay. Raises Conflict for one that has ended, and NotFound."""
    _change(warm_up_id, {WarmState.RUNNING, WarmState.PAUSED}, WarmState.CANCELLED)
    ended = {"state": WarmEntryState.CANCELLED.value, "ended_at": utcnow()}
    waiting = {"warm_up_id": warm_up_id, "state": WarmEntryState.WAITING.value}
    WarmUpEntry._get_collection().update_many(waiting, {"$set": ended})
    for entry in fetching_entries(warm_up_id):
        cancel_entry(entry)
    counts = warm_counts([warm_up_id])[warm_up_id]
    if not counts[WarmEntryState.WAITING] and not counts[WarmEntryState.FETCHING]:  # else some end a moment later
        WarmUp.objects(id=warm_up_id).update_one(set__counts=counts)


def cancel_entry(entry: WarmUpEntry) -> None:
    """Stop the fetch of an entry unless somebody else waits for it."""
    if entry.job_id and not is_fetched_elsewhere(entry):
        with suppress(NotFound):
            if cancel_job(entry.job_id, key_prefix="", of_batch=True).state == JobState.DONE:
                return
    WarmUpEntry.objects(id=entry.id).update_one(set__state=WarmEntryState.CANCELLED.value, set__ended_at=utcnow())


def _new_entry(warm_up_id: str, number: int, link: str) -> WarmUpEntry:
    about: dict[str, Any] = {"id": f"{warm_up_id}:{number}", "warm_up_id": warm_up_id, "number": number}
    about["link"] = link[:MAX_LINK_CHARS]
    try:
        return WarmUpEntry(**about, video_id=parse_video_id(link))
    except InvalidUrl as error:
        failed = {"error_code": error.code, "error_message": error.message, "ended_at": utcnow()}
        return WarmUpEntry(**about, **failed, state=WarmEntryState.FAILED.value)


def _change(warm_up_id: str, before: set[WarmState], after: WarmState) -> None:
    if _move(warm_up_id, before, after):
        return
    warm_up = find_warm_up(warm_up_id)
    if warm_up is None:
        raise NotFound("There is no such warm-up.")
    raise Conflict(f"This warm-up is {warm_up.state}.")


def _move(warm_up_id: str, before: set[WarmState], after: WarmState) -> bool:
    change: dict[str, Any] = {"set__state": after.value}
    if after is WarmState.CANCELLED:
        change["set__finished_at"] = utcnow()
    return bool(WarmUp.objects(id=warm_up_id, state__in=[state.value for state in before]).update_one(**change))
