"""The stream application's view of keys, links, assets and fetches: waits until the bytes that are asked for flow."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import structlog

from apps.core.asker import asker_var
from apps.core.errors import (
    STILL_COMING_RETRY_S,
    ApiError,
    Conflict,
    LinkInvalid,
    NotFound,
    NotReady,
    Overloaded,
    UpstreamTimeout,
)
from apps.core.outages import outage_of
from apps.core.shared_looks import SharedLooks
from apps.core.suspend import Suspend
from apps.core.wake import wake_hub
from apps.downloads.services.media import MediaAsk, Resolved, Tier, join_fetch, resolve, start_or_join
from apps.downloads.services.retrying import raise_if_no_room
from apps.downloads.stream_admission import Admission, admission_of, admit, question_of, raw_key_of
from apps.downloads.stream_records import AssetRecord, RecordCache
from apps.downloads.stream_targets import follows, for_this_request, growing_size, target_of
from apps.keys.authentication import authenticate_by_heart, grant_for_prefix, is_let_in, prefix_of, read_keys
from apps.keys.charging import Charger
from apps.keys.documents import Scope
from apps.keys.grants import KeyGrant
from apps.keys.meter import StreamMeters
from apps.streaming.ports import BlockFiller, StreamBackend, StreamMeter, StreamRequest, StreamTarget
from apps.telegram_cache.documents import AssetState
from apps.telegram_cache.reader import TelegramFiller

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

THREADS = 16
MAX_PENDING = 4000
MAX_WAIT_S = 120.0
RECHECK_S = 1.0
RECHECKS_PER_S = 100  # with very many waiting requests each one looks again less often; a link may be opened by anybody
TURNS = 8  # of the threads: woken requests take turns, so that they never keep new ones out
SHARED_FOR_S = 20.0  # whoever has waited so long looks alone: it may be time to give up, which is theirs alone
RECORD_MAX_AGE_S = 1.0
KEY_MAX_AGE_S = 0.5  # of running streams: with StreamTiming.key_check_s they end within a second of their key


class Find(Protocol):
    """One look for a target; both times as ``time.monotonic()``. Raises Suspend when it is worth looking again."""

    def __call__(self, *, asked_at: float, not_before: float) -> StreamTarget: ...


class MediaStreamBackend(StreamBackend):
    """What may block (MongoDB, Redis, disk) runs in a bounded set of threads. Waiting for a fetch holds none."""

    def __init__(self, filler: TelegramFiller) -> None:
        self.filler: BlockFiller = filler
        self._close_filler = filler.aclose
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stream-backend")
        self.pending = 0
        self.waiting = 0
        self._looks: SharedLooks[StreamTarget] = SharedLooks()
        self._keys: SharedLooks[None] = SharedLooks()
        self._charger = Charger()
        self._turns = asyncio.Semaphore(TURNS)
        self._records = RecordCache()
        self._meters = StreamMeters()

    async def aclose(self) -> None:
        """Stop what the filler downloads, and give the threads back. What still waits in them is dropped."""
        await self._charger.aclose()
        await self._meters.aclose()
        await self._close_filler()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def open_target(self, request: StreamRequest) -> StreamTarget:
        """See StreamBackend. Waits up to MAX_WAIT_S for a fetch, then raises UpstreamTimeout."""
        admission = await self._admit(request)
        find = partial(self._find_target, admission)
        target = await self._wait_for_target(find, max_age_s=RECORD_MAX_AGE_S, question=question_of(admission))
        return for_this_request(target, admission)

    async def _admit(self, request: StreamRequest) -> Admission:
        """As ``admit``. A good key's request needs no thread: very many may come at the same time."""
        raw = raw_key_of(request)
        prefix = prefix_of(raw)
        if prefix is None:
            return await self._run(partial(admit, request, self._meters))
        if (grant := authenticate_by_heart(raw, request.client_address)) is None:
            await self._keys.look(prefix, partial(self._run, partial(read_keys, [prefix])))
            grant = authenticate_by_heart(raw, request.client_address)
        if grant is None:  # it is refused, and counted as that
            return await self._run(partial(admit, request, self._meters))
        with self._one_more():
            limit = await self._charger.charge(grant)
        return admission_of(request, grant, limit, self._meters)

    def record_by_heart(self, asset_id: str) -> AssetRecord | None:
        """The record as ``open_target`` would take it from memory; None: it would ask. For the event loop."""
        return self._records.by_heart(asset_id, not_before=time.monotonic() - RECORD_MAX_AGE_S)

    async def read_again(self, asset_id: str, key_prefix: str) -> None:
        """Have record and key in memory, as fresh as ``open_target`` wants them. Raises what it raises for the key."""

        def read() -> None:
            grant_for_prefix(key_prefix)
            self._records.get(asset_id, not_before=time.monotonic() - RECORD_MAX_AGE_S)

        await self._run(read)

    def meter(self, grant: KeyGrant) -> StreamMeter:
        """The meter of one more stream of this key."""
        return self._meters.meter(grant)

    def refresh_soon(self, asset_id: str, key_prefix: str, *, max_age_s: float) -> None:
        """Have record and key read again unless they are newer than that. Returns at once, promises nothing."""
        if self.pending >= MAX_PENDING:
            return

        def refresh() -> None:
            try:
                self._records.get(asset_id, not_before=time.monotonic() - max_age_s)
                grant_for_prefix(key_prefix, max_age_s=max_age_s)
            except ApiError:
                pass
            except Exception as error:  # nobody waits for it, and nobody else would tell
                if outage_of(error) is None:
                    log.exception("stream_refresh_failed", asset_id=asset_id)

        self._threads.submit(refresh)

    async def renew_target(self, target: StreamTarget) -> StreamTarget:
        """See StreamBackend. Waits up to MAX_WAIT_S for a fetch, then raises UpstreamTimeout."""
        return await self._wait_for_target(partial(self._find_renewed, target), max_age_s=0.0)

    async def _wait_for_target(self, find: Find, *, max_age_s: float, question: Hashable | None = None) -> StreamTarget:
        """``question``: what the request has in common with others, which then look once for all of them."""
        started_at = time.monotonic()
        is_first = True
        while True:
            looked_at = time.monotonic()
            waited_s = looked_at - started_at
            look = partial(self._look, find, asked_at=started_at, max_age_s=max_age_s if is_first else None)
            try:
                if question is None or waited_s >= SHARED_FOR_S:
                    return await look()
                return await self._looks.look((question, is_first), look)  # a first one's record is too old for others
            except Suspend as pending:
                topic = pending.topic
            if waited_s >= MAX_WAIT_S:
                raise UpstreamTimeout("The file is not ready yet. Try again later.", retry_after_s=STILL_COMING_RETRY_S)
            seen_at = looked_at - max_age_s if is_first else looked_at  # what is older than the record was in it
            await self._wait(topic, since=seen_at)
            is_first = False

    async def _look(self, find: Find, *, asked_at: float, max_age_s: float | None) -> StreamTarget:
        """Now. ``max_age_s``: how old the record may be at the first look; None: at a later one it is read anew."""
        not_before = time.monotonic() - (max_age_s or 0.0)
        look = partial(find, asked_at=asked_at, not_before=not_before)
        if max_age_s is not None:
            return await self._run(look)
        async with self._turns:
            return await self._run(look)

    async def _wait(self, topic: str, *, since: float) -> None:
        self.waiting += 1
        try:
            timeout_s = max(RECHECK_S, self.waiting / RECHECKS_PER_S)
            await wake_hub().wait(topic, timeout_s=timeout_s, since=since)
        finally:
            self.waiting -= 1

    async def refresh_target(self, target: StreamTarget) -> StreamTarget:
        """See StreamBackend. Raises Conflict when the fetch was cancelled."""
        called_at = time.monotonic()
        return await self._run(partial(self._refreshed, target, not_before=called_at))

    async def still_allowed(self, target: StreamTarget) -> bool:
        """See StreamBackend. While MongoDB is away, streams that were allowed go on."""
        try:
            grant = await self._run(partial(grant_for_prefix, target.key_prefix, max_age_s=KEY_MAX_AGE_S))
        except ApiError as error:
            return error.retryable
        self._meters.note_grant(grant)
        return Scope.MEDIA in grant.scopes

    def is_let_in(self, target: StreamTarget) -> bool:
        """See StreamBackend. A key's networks do not bind its links."""
        if not target.opened_from:
            return True
        grant = self._meters.grant_of(target.key_prefix)
        return grant is None or is_let_in(grant, target.opened_from)

    async def _run(self, work: Callable[[], Result]) -> Result:
        with self._one_more():
            context = contextvars.copy_context()  # the request id, for the log
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
            except Exception as error:  # which ones are outages, outage_of knows; any other is raised again
                if outage_of(error) is None:
                    raise
                raise NotReady(retry_after_s=2) from None

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """Of those that wait for MongoDB, Redis or the disk."""
        if self.pending >= MAX_PENDING:
            raise Overloaded(retry_after_s=2)
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    def _find_target(self, admission: Admission, *, asked_at: float, not_before: float) -> StreamTarget:
        """The target if its bytes can flow. Else starts or joins the fetch and raises Suspend, or the fetch's error."""
        asker_var.set(admission.key_prefix)  # in the context of this call alone: see _run
        (key, info), record = self._look_up(admission, asked_at=asked_at, not_before=not_before)
        target = target_of(record, admission) if record else None
        if target is not None and record is not None and not record.is_finished and follows(target, record):
            join_fetch(key.asset_id, key_prefix=admission.key_prefix)
        if target is None:
            waited_s = time.monotonic() - asked_at
            state = start_or_join(key, key_prefix=admission.key_prefix, waited_s=waited_s, info=info)
            if state.tier is not Tier.EXTERNAL:
                target = target_of(AssetRecord.of(state.asset), admission)
            elif state.job is not None:
                raise_if_no_room(state.job)
        if target is None:
            raise Suspend(f"asset:{key.asset_id}")
        return target

    def _find_renewed(self, target: StreamTarget, *, asked_at: float, not_before: float) -> StreamTarget:
        record = self._records.get(target.asset_id, not_before=not_before)
        if record is None:
            raise NotFound("This file is no longer kept. Ask the API for a new link.")
        admission = Admission(
            key_prefix=target.key_prefix,
            attachment=target.attachment,
            kind=record.key.kind,
            video_id=record.key.video_id,
            asset_id=target.asset_id,
            opened_from=target.opened_from,
            link_expires_at=target.link_expires_at,
            headers=target.headers,
            meter=target.meter,
            is_renewal=True,
        )
        return self._find_target(admission, asked_at=asked_at, not_before=not_before)

    def _look_up(
        self, admission: Admission, *, asked_at: float, not_before: float
    ) -> tuple[Resolved, AssetRecord | None]:
        if admission.asset_id is None:
            ask = MediaAsk(
                kind=admission.kind, video_id=admission.video_id, wish=admission.wish, options=admission.options
            )
            resolved = resolve(ask, waited_s=time.monotonic() - asked_at)
            return resolved, self._records.get(resolved.key.asset_id, not_before=not_before)
        record = self._records.get(admission.asset_id, not_before=not_before)
        if record is None:
            raise NotFound("This file is no longer kept. Ask the API for a new link.")
        if (record.key.kind, record.key.video_id) != (admission.kind, admission.video_id):
            raise LinkInvalid
        return Resolved(record.key), record

    def _refreshed(self, target: StreamTarget, *, not_before: float) -> StreamTarget:
        record = self._records.get(target.asset_id, not_before=not_before)
        if record is None:
            raise NotFound("This file is no longer kept.")
        if record.failure:
            raise record.failure
        if record.state is AssetState.ABSENT:
            raise Conflict("The fetch of this file was cancelled.")
        return replace(
            target,
            generation=record.generation,
            size_bytes=record.size_bytes if record.is_finished else growing_size(record)[1],
            block_hashes=record.block_hashes,
            etag=record.etag,
        )


def make_backend() -> MediaStreamBackend:
    """The backend of this process's stream application."""
    return MediaStreamBackend(TelegramFiller())
