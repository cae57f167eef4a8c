"""From a video and a wished-for quality to a file that exists or is being fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache, partial
from typing import NamedTuple

from django.conf import settings

from apps.core.clock import utcnow
from apps.core.errors import STILL_COMING_RETRY_S, ApiError, Conflict, Overloaded, QualityUnavailable, UpstreamTimeout
from apps.core.hot_names import sees_hot_store_of_workers
from apps.core.suspend import Suspend
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.providers.base import VideoInfo
from apps.downloads.quality import (
    asked_height,
    check_video_options,
    exact_variant,
    needs_pictures,
    resolve_audio_variant,
    resolve_video_variant,
    variant_height,
    what_there_is,
)
from apps.downloads.selectors import active_job, latest_job
from apps.downloads.services.doubtful import has_been_looked_at
from apps.downloads.services.info import (
    get_info,
    get_info_with_pictures,
    get_kept_info,
    let_info_age,
    renew_info,
    request_info,
    was_asked_since,
)
from apps.downloads.services.job_limits import raise_if_too_early
from apps.downloads.services.jobs import begin_job
from apps.downloads.services.joining import move_up, note_joined
from apps.downloads.services.key_limits import check_media, take_slot
from apps.downloads.services.originals import find_makeable, info_of_original
from apps.downloads.variants import AS_IT_COMES, MediaOptions
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from apps.telegram_cache.selectors import find_asset, find_best_asset, find_finished_assets
from apps.telegram_cache.services.generations import is_left_in_part
from apps.telegram_cache.services.hot_bytes import can_be_read

INFO_WAIT_S = 25.0
JOIN_TRIES = 3  # a job may end between being found and being joined
REFRESH_EVERY = timedelta(minutes=1)
"""So often, at most, the sources are asked about one video because somebody wants its newest metadata."""


class Tier(StrEnum):
    """Where the bytes of an answer come from."""

    HOT = "hot"
    TELEGRAM = "telegram"
    EXTERNAL = "external"


@dataclass(frozen=True, kw_only=True)
class MediaAsk:
    """What somebody wants: ``wish`` is a quality (video) or a format (audio); None is the best there is.

    ``options`` says what else: container, codec, frames, bitrate, tags, a clip. ``priority``: whether somebody waits.
    """

    kind: MediaKind
    video_id: str
    wish: str | None = None
    options: MediaOptions = AS_IT_COMES
    priority: JobPriority = JobPriority.INTERACTIVE


@dataclass(frozen=True, kw_only=True)
class MediaState:
    """How things stand with one asset. ``job`` is the fetch under way; None when there is nothing to fetch."""

    asset: Asset
    tier: Tier
    job: MediaJob | None


class Resolved(NamedTuple):
    """Which asset is meant. ``info``: the metadata that said so, if it took any."""

    key: AssetKey
    info: VideoInfo | None = None


@cache
def hot_store() -> HotStore:
    """This process's view of the hot store."""
    return HotStore(settings.ENV.hot_root)


def tier_of(asset: Asset | None) -> Tier:
    """Where the asset's bytes can be had right now; EXTERNAL when they must be fetched (again)."""
    if asset is not None and asset.is_finished:
        if hot_store().is_complete(asset.id, asset.generation):
            return Tier.HOT
        if can_be_read(hot_store(), asset):
            return Tier.TELEGRAM
    return Tier.EXTERNAL


def wait_for_info(video_id: str, *, waited_s: float, priority: JobPriority = JobPriority.INTERACTIVE) -> VideoInfo:
    """The video's metadata. Raises Suspend while it is being asked for, UpstreamTimeout after INFO_WAIT_S,
    and the content error (private, removed...) when that is what is known. While too many questions wait to ask for it,
    what was known at some time of the last week is given; Overloaded when there is nothing.
    """
    info = get_info(video_id)
    return _ask_for_info(video_id, waited_s=waited_s, priority=priority) if info is None else info


def _ask_for_info(video_id: str, *, waited_s: float, priority: JobPriority) -> VideoInfo:
    """``wait_for_info`` once a look has shown that nothing is known that may be given."""
    if waited_s >= INFO_WAIT_S:
        raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S)
    try:
        request_info(video_id, patient=priority is JobPriority.BATCH)
    except Overloaded:
        if (kept := get_kept_info(video_id)) is None:
            raise
        return kept
    raise Suspend(f"info:{video_id}")


def wait_for_pictures(video_id: str, *, waited_s: float, priority: JobPriority = JobPriority.INTERACTIVE) -> VideoInfo:
    """As wait_for_info, but from a source that tells codecs and frames. Also raises QualityUnavailable: none does."""
    info = get_info_with_pictures(video_id)
    if info is None:
        if waited_s >= INFO_WAIT_S:
            raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S)
        request_info(video_id, patient=priority is JobPriority.BATCH, with_pictures=True)
        raise Suspend(f"pictures:{video_id}")
    return info


def wait_for_new_info(video_id: str, *, waited_s: float) -> VideoInfo:
    """As wait_for_info, but asked anew: what is given is at most REFRESH_EVERY old, however many ask for it.

    When the sources fail, take too long or are asked too much already, what was known before is given.
    """
    young = utcnow() - timedelta(seconds=waited_s) - REFRESH_EVERY
    if waited_s < INFO_WAIT_S and not was_asked_since(video_id, young):
        let_info_age(video_id, asked_before=young)
        try:
            request_info(video_id)
        except Overloaded:  # what was known before will do
            return wait_for_info(video_id, waited_s=waited_s)
        raise Suspend(f"info:{video_id}")
    return wait_for_info(video_id, waited_s=waited_s)


def resolve_key(ask: MediaAsk, *, waited_s: float) -> AssetKey:
    """``resolve``, for who only looks."""
    return resolve(ask, waited_s=waited_s).key


def resolve(ask: MediaAsk, *, waited_s: float) -> Resolved:
    """Which asset is meant. A wish that names a stored variant exactly needs no metadata.

    Nor does "best" (or a height above it), when the metadata is forgotten or cannot be had: what was the best when it
    was fetched is given, and the metadata is asked for again in the background. When the sources fail, a height also
    gets the next lower one that is stored. Raises what wait_for_info raises, and QualityUnavailable.
    """
    exact = _exact_key(ask)
    if exact is not None:
        stored = find_asset(exact.asset_id)
        if tier_of(stored) is not Tier.EXTERNAL or (stored is not None and is_left_in_part(stored)):
            return Resolved(exact)
    look: Callable[..., VideoInfo] = wait_for_info
    if _may_be_best(ask):
        try:
            known, refusal = get_info(ask.video_id), None
        except ApiError as error:  # removed or private, or the sources are down: what is stored can still be given
            known, refusal = None, error
        if known is None and (kept := _kept_best(ask, is_refused=refusal is not None)) is not None:
            return Resolved(kept)
        look = partial(_after_a_look, known, refusal)
    with _saying_what_there_is(ask.video_id, ask.kind):
        return _by_metadata(ask, look, waited_s=waited_s)


def _after_a_look(
    known: VideoInfo | None, refusal: ApiError | None, video_id: str, *, waited_s: float, priority: JobPriority
) -> VideoInfo:
    """``wait_for_info`` for who has just looked: what that gave, or raised."""
    if refusal is not None:
        raise refusal
    return _ask_for_info(video_id, waited_s=waited_s, priority=priority) if known is None else known


def _by_metadata(ask: MediaAsk, look: Callable[..., VideoInfo], *, waited_s: float) -> Resolved:
    """``look`` gives the metadata, unless it takes some that tells codecs and frames."""
    if ask.kind is MediaKind.VIDEO and needs_pictures(ask.options):
        check_video_options(ask.options)
        look = wait_for_pictures
    try:
        info = look(ask.video_id, waited_s=waited_s, priority=ask.priority)
    except ApiError:
        if (kept := _kept_lower(ask) or _makeable(ask)) is None:
            raise
        return Resolved(kept)
    if ask.kind is MediaKind.VIDEO:
        variant = resolve_video_variant(info, ask.wish or "best", ask.options)
    else:
        variant = resolve_audio_variant(info, ask.wish, ask.options)
    return Resolved(AssetKey(ask.video_id, ask.kind, variant), info)


def _height(ask: MediaAsk) -> int | None:
    """The height that is asked for; None for "best", and for anything else."""
    return asked_height((ask.wish or "best").strip().lower()) if ask.kind is MediaKind.VIDEO else None


def _may_be_best(ask: MediaAsk) -> bool:
    """Whether the best there is of a video could be what is meant."""
    is_best = (ask.wish or "best").strip().lower() == "best"
    return ask.options == AS_IT_COMES and (is_best or _height(ask) is not None)


def _kept_best(ask: MediaAsk, *, is_refused: bool) -> AssetKey | None:
    """The stored asset that was the best of its video, when it is meant. ``is_refused``: the sources do not give the
    video's metadata now, so it is not asked for again."""
    height = _height(ask)
    best = find_best_asset(ask.video_id, ask.kind)
    if best is None or (height is not None and height < (variant_height(best.variant) or height + 1)):
        return None
    if tier_of(best) is Tier.EXTERNAL:
        return None
    if not is_refused:
        renew_info(ask.video_id, patient=ask.priority is JobPriority.BATCH)
    return best.key


def _kept_lower(ask: MediaAsk) -> AssetKey | None:
    """The highest stored picture that is not above the wish: for when the sources cannot say what there is."""
    height = asked_height(ask.wish or "") if ask.kind is MediaKind.VIDEO else None
    if height is None or ask.options != AS_IT_COMES:
        return None
    fitting = [
        (stored, asset)
        for asset in find_finished_assets(ask.video_id, ask.kind)
        if (stored := variant_height(asset.variant)) is not None
        and stored <= height
        and tier_of(asset) is not Tier.EXTERNAL
    ]
    return max(fitting, key=lambda pair: pair[0])[1].key if fitting else None


def _makeable(ask: MediaAsk) -> AssetKey | None:
    """What can be made from a stored file: clips, and sounds in another form."""
    return find_makeable(ask.kind, ask.video_id, ask.wish, ask.options, hot_store())


def _exact_key(ask: MediaAsk) -> AssetKey | None:
    variant = exact_variant(ask.kind, ask.wish, ask.options)
    return AssetKey(ask.video_id, ask.kind, variant) if variant else None


def start_or_join(
    key: AssetKey,
    *,
    key_prefix: str,
    waited_s: float,
    priority: JobPriority = JobPriority.INTERACTIVE,
    info: VideoInfo | None = None,
) -> MediaState:
    """The asset as it stands; when its bytes are nowhere, its fetch is started or joined. ``info``: the video's
    metadata, for who has just read it.

    Raises the stored error of a fetch that failed and may not be tried again yet (a fetch that fails while this
    request waits is one of those), Conflict when the fetch was cancelled while this request waited, and what
    wait_for_info raises. QualityUnavailable says what there is. Raises Suspend while somebody looks at what an earlier
    boot left of the file.
    """
    for _ in range(JOIN_TRIES):
        with _saying_what_there_is(key.video_id, MediaKind(key.kind)):
            state = _start_or_find(key, info, key_prefix=key_prefix, waited_s=waited_s, priority=priority)
        if state.job is None or note_joined(state.job, key_prefix=key_prefix, priority=priority):
            return state
    raise Conflict("This file's job keeps changing. Try again.")


@contextmanager
def _saying_what_there_is(video_id: str, kind: MediaKind) -> Iterator[None]:
    """Adds to a QualityUnavailable that does not say it what the known metadata has."""
    try:
        yield
    except QualityUnavailable as error:
        with suppress(ApiError):
            if not error.context.get("available") and (info := get_info(video_id)) is not None:
                error.context["available"] = what_there_is(info, kind)
        raise


def join_fetch(asset_id: str, *, key_prefix: str) -> None:
    """Note that a key follows the fetch that is under way: nobody else's cancelling ends it then. Idempotent."""
    if (job := active_job(asset_id)) is not None:
        note_joined(job, key_prefix=key_prefix)


def _start_or_find(
    key: AssetKey, info: VideoInfo | None, *, key_prefix: str, waited_s: float, priority: JobPriority
) -> MediaState:
    asset = find_asset(key.asset_id)
    tier = tier_of(asset)
    last = _active_or_last_job(key, has_asset=asset is not None) if tier is Tier.EXTERNAL else None
    job = last if last is not None and last.active else None
    if asset is None and job is not None:  # both were made since the look above
        asset = find_asset(key.asset_id)
        tier = tier_of(asset)
    if asset is not None:
        check_media(key_prefix, duration_s=asset.duration_s, size_bytes=asset.size_bytes)
    if asset is not None and tier is not Tier.EXTERNAL:
        return MediaState(asset=asset, tier=tier, job=None)
    if job is not None:
        take_slot(key_prefix, key.asset_id)
    else:
        _raise_if_cancelled(last, within_s=waited_s)
        if asset is not None and asset.is_finished:  # it lost bytes, and could not be had anew a moment ago
            raise_if_too_early(asset)
            is_elsewhere = waited_s < INFO_WAIT_S and not sees_hot_store_of_workers()  # it may be in Telegram soon
            if is_elsewhere or not has_been_looked_at(hot_store(), asset):
                raise Suspend(f"asset:{key.asset_id}")
        info = info or _info_to_fetch(key, waited_s=waited_s, priority=priority)
        check_media(key_prefix, duration_s=info.duration_s, size_bytes=None)
        job, asset = begin_job(key=key, info=info, key_prefix=key_prefix, priority=priority)
        asset = asset or find_asset(key.asset_id)
        tier = tier_of(asset)
    if asset is None:
        raise Conflict("This file is being removed from the cache. Try again.")
    if tier is not Tier.EXTERNAL:
        return MediaState(asset=asset, tier=tier, job=None)
    if priority is JobPriority.INTERACTIVE:
        move_up(job, key_prefix=key_prefix)
    return MediaState(asset=asset, tier=tier, job=job)


def _active_or_last_job(key: AssetKey, *, has_asset: bool) -> MediaJob | None:
    """The job that fetches an asset, else the last that did. Without an asset there is an active one only when both
    were made this moment, and then it is the last one too."""
    return (active_job(key.asset_id) if has_asset else None) or latest_job(key.asset_id)


def _info_to_fetch(key: AssetKey, *, waited_s: float, priority: JobPriority) -> VideoInfo:
    """Raises what wait_for_info raises, unless a stored file is all it takes."""
    try:
        return wait_for_info(key.video_id, waited_s=waited_s, priority=priority)
    except ApiError:
        if (info := info_of_original(key, hot_store())) is None:
            raise
        return info


def _raise_if_cancelled(last: MediaJob | None, *, within_s: float) -> None:
    """A cancelled fetch is not started again by those who were waiting for it."""
    if (
        last is not None
        and last.state == JobState.CANCELLED
        and last.finished_at > utcnow() - timedelta(seconds=within_s)
    ):
        raise Conflict("The fetch of this file was cancelled.")


def request_media(ask: MediaAsk, *, key_prefix: str, wait_s: float, waited_s: float) -> MediaState:
    """Find or start what is asked for. Called again after each Suspend, with ``waited_s`` grown.

    Raises Suspend while metadata is unknown, and, until ``wait_s`` is over, while the file is not complete.
    """
    asked_at = time.monotonic() - waited_s
    key, info = resolve(ask, waited_s=waited_s)
    by_now_s = time.monotonic() - asked_at
    state = start_or_join(key, key_prefix=key_prefix, waited_s=by_now_s, priority=ask.priority, info=info)
    if state.tier is Tier.EXTERNAL and waited_s < wait_s:
        raise Suspend(f"asset:{key.asset_id}")
    return state
