"""Who fetches an asset: one owner at a time, on a lease, fenced by the asset's attempt number.

All time comparisons happen in MongoDB (``$$NOW``), so that clocks of different machines do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from bson.binary import Binary
from pymongo import ReturnDocument

from apps.core.clock import utcnow
from apps.core.errors import ApiError, InternalError
from apps.core.ffmpeg import MediaFacts
from apps.core.search import search_words
from apps.core.wake import publish
from apps.downloads.errors import CONTENT_ERRORS
from apps.downloads.providers.base import FetchPlan
from apps.telegram_cache.documents import Asset, AssetKey, AssetState
from apps.telegram_cache.services.generations import CANCELLED, given_up

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
CONTENT_RETRY_S = 600.0
FIRST_RETRY_S = 15.0
LONGEST_RETRY_S = 3600.0  # whatever a source asks for
MEASURED = ("video_codec", "audio_codec", "width", "height", "fps", "dynamic_range", "bitrate_kbps")
CLAIMABLE = (AssetState.ABSENT.value, AssetState.QUEUED.value, AssetState.FETCHING.value)


class ClaimLost(Exception):
    """Somebody else has taken the asset over, or it was taken back. Stop: nothing may be committed any more."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The outcome of a claim. When it is lost, ``state`` and ``owner`` say why: what the asset is, and whose."""

    won: bool
    asset_id: str
    attempt: int
    owner: str
    state: AssetState
    generation: int
    generation_is_used: bool  # bytes of this generation may already have been shown to somebody


def _collection() -> Any:
    return Asset._get_collection()


def ensure_asset(key: AssetKey, **details: Any) -> tuple[Asset, bool]:
    """The asset's document, made if there is none; and whether this call made it. ``details`` are set only on a new
    document. Idempotent."""
    fresh = Asset(id=key.asset_id, video_id=key.video_id, kind=key.kind.value, variant=key.variant, **details)
    fresh.clean()
    fields = fresh.to_mongo().to_dict()
    own_id = {"_id": fields.pop("_id")}
    document = _collection().find_one_and_update(
        own_id, {"$setOnInsert": fields}, upsert=True, return_document=ReturnDocument.BEFORE
    )
    return cast("Asset", Asset._from_son(document or {**own_id, **fields})), document is None


def claim_asset(*, key: AssetKey, owner: str, lease_s: float) -> Claim:
    """Become the one fetcher of an asset, or learn who is.

    One atomic update: of any number of simultaneous callers exactly one gets ``Claim.won``. A lease that has run out
    can be taken over; its old owner can no longer commit (fencing by ``attempt``). Finished assets, and failed ones
    whose time to try again has not come, cannot be claimed.
    """
    ensure_asset(key)
    lease_is_free = {"$lte": [{"$ifNull": ["$lease_until", NEVER]}, "$$NOW"]}
    may_retry = {"$lte": [{"$ifNull": ["$retry_at", NEVER]}, "$$NOW"]}
    document = _collection().find_one_and_update(
        {
            "_id": key.asset_id,
            "$expr": {"$and": [
                lease_is_free,
                {"$or": [
                    {"$in": ["$state", list(CLAIMABLE)]},
                    {"$and": [{"$eq": ["$state", AssetState.FAILED.value]}, may_retry]},
                ]},
            ]},
        },
        [{"$set": {
            "state": AssetState.FETCHING.value,
            "attempt": {"$add": ["$attempt", 1]},
            "lease_owner": {"$literal": owner},
            "lease_until": {"$add": ["$$NOW", round(lease_s * 1000)]},
            "updated_at": "$$NOW",
        }}],
        return_document=ReturnDocument.AFTER,
    )  # fmt: skip
    won = document is not None
    if document is None:
        document = _collection().find_one({"_id": key.asset_id}) or {}
    else:
        publish(f"asset:{key.asset_id}")
    return Claim(
        won=won,
        asset_id=key.asset_id,
        attempt=document.get("attempt", 0),
        owner=document.get("lease_owner") or "",
        state=AssetState(document.get("state", AssetState.ABSENT)),
        generation=document.get("generation", 1),
        generation_is_used=bool(document.get("provider")),
    )


def _held(claim: Claim) -> dict[str, Any]:
    return {
        "_id": claim.asset_id,
        "attempt": claim.attempt,
        "lease_owner": claim.owner,
        "state": AssetState.FETCHING.value,
    }


def _update(claim: Claim, change: dict[str, Any] | list[dict[str, Any]]) -> None:
    if not _collection().update_one(_held(claim), change).matched_count:
        raise ClaimLost(claim.asset_id)


def renew_claim(claim: Claim, *, lease_s: float) -> None:
    """Hold the asset for another ``lease_s`` seconds from now. Raises ClaimLost."""
    _update(claim, [{"$set": {"lease_until": {"$add": ["$$NOW", round(lease_s * 1000)]}}}])


def record_plan(claim: Claim, plan: FetchPlan, *, generation: int) -> None:
    """Write down what is about to arrive, before its first byte. Raises ClaimLost."""
    known = {"title": plan.title, "uploader": plan.uploader, "duration_s": plan.duration_s, "thumbnail": plan.thumbnail}
    change = {
        "$set": {
            **{name: value for name, value in known.items() if value},
            "container": plan.container,
            "mime": plan.mime,
            "provider": plan.provider,
            "generation": generation,
            "updated_at": utcnow(),
        },
        "$addToSet": {"words": {"$each": search_words(plan.title, plan.uploader)}},
    }
    _update(claim, change)
    publish(f"asset:{claim.asset_id}")


def commit_ready(
    claim: Claim,
    *,
    size_bytes: int,
    sha256: str,
    block_hashes: Iterable[bytes],
    duration_s: float | None,
    facts: MediaFacts | None = None,
) -> None:
    """Make the fetched bytes the asset: state ``ready``, hashes on the record, lease given up. Raises ClaimLost.

    ``facts`` is what the finished file was measured to be.
    """
    change = {
        "state": AssetState.READY.value,
        "size_bytes": size_bytes,
        "sha256": sha256,
        "block_sha256": Binary(b"".join(block_hashes)),
        "parts": [],
        "fetch_failures": 0,
        "updated_at": utcnow(),
        **({"duration_s": duration_s} if duration_s else {}),
        **_measured(facts, size_bytes=size_bytes, duration_s=duration_s),
    }
    gone = (
        "lease_owner",
        "lease_until",
        "error_code",
        "error_message",
        "retry_at",
        "upload_error",
        "upload_retry_at",
        "upload_waits_for",
    )
    _update(claim, {"$set": change, "$unset": dict.fromkeys(gone, "")})
    publish(f"asset:{claim.asset_id}")


def _measured(facts: MediaFacts | None, *, size_bytes: int, duration_s: float | None) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(MEASURED)
    if facts is not None:
        found = {name: getattr(facts, name) for name in found}
    if duration_s:
        found["bitrate_kbps"] = round(size_bytes * 8 / 1000 / duration_s, 1)
    return found


def commit_failed(claim: Claim, error: ApiError) -> datetime:
    """Record why the asset could not be had and give up the lease. Raises ClaimLost.

    An asset that was to be fetched anew is what it was before: what is left of it in Telegram can still be read.
    Returns when it may be tried again: 10 minutes for what the video itself refuses (private, removed, ...), else 15
    seconds that double with each failure in a row, up to 10 minutes. Later when the source asked for that
    (``retry_after_s``), but within an hour.
    """
    document = _collection().find_one(_held(claim), {"fetch_failures": 1})
    if document is None:
        raise ClaimLost(claim.asset_id)
    failures = document.get("fetch_failures") or 0
    delay_s, is_final = CONTENT_RETRY_S, isinstance(error, CONTENT_ERRORS)
    if not is_final:
        delay_s = min(FIRST_RETRY_S * 2 ** min(failures, 10), CONTENT_RETRY_S)
    delay_s = min(max(delay_s, error.retry_after_s or 0.0), LONGEST_RETRY_S)
    retry_at = utcnow() + timedelta(seconds=delay_s)
    change = {
        "state": AssetState.FAILED.value,
        "error_code": error.code,
        "error_message": InternalError.default_message if isinstance(error, InternalError) else error.message,
        "retry_at": retry_at,
        "fetch_failures": failures + 1,
        "updated_at": utcnow(),
    }
    alert = f"a part in Telegram is bad, and it cannot be fetched anew: {change['error_message']}"
    _update(claim, given_up(change, alert=alert if is_final else "", upload_retry_at=retry_at))
    publish(f"asset:{claim.asset_id}")
    return retry_at


def release_claim(claim: Claim, *, state: AssetState) -> None:
    """Give the asset back unfinished: ``queued`` when its job goes on later, ``absent`` when it was cancelled.

    Does nothing when the claim is lost already.
    """
    fields = {"state": state.value, "updated_at": utcnow()}
    change: Any = {"$set": fields, "$unset": {"lease_owner": "", "lease_until": ""}}
    if state is AssetState.ABSENT:
        change = given_up(fields, alert=CANCELLED)
    if _collection().update_one(_held(claim), change).matched_count:
        publish(f"asset:{claim.asset_id}")


def free_dead_lease(asset: Asset) -> bool:
    """End the lease of a process that is known to be dead. Returns whether this call did it."""
    held = {
        "_id": asset.id,
        "attempt": asset.attempt,
        "lease_owner": asset.lease_owner,
        "state": AssetState.FETCHING.value,
    }
    change = {"$unset": {"lease_until": "", "lease_owner": ""}}
    return bool(_collection().update_one(held, change).matched_count)
