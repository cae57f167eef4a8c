"""Who may have which bytes: the stream application's view of keys, links, assets and fetches."""

from __future__ import annotations

import asyncio
import contextvars
import re
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from apps.core.api_errors import SERVICE_DOWN
from apps.core.asker import asker_var
from apps.core.errors import (
    ApiError,
    Conflict,
    IpNotAllowed,
    LinkInvalid,
    NotFound,
    NotReady,
    Overloaded,
    ScopeMissing,
    UpstreamTimeout,
)
from apps.core.shared_looks import SharedLooks
from apps.core.suspend import Suspend
from apps.core.wake import wake_hub
from apps.downloads.fields import check_fields
from apps.downloads.open_links import read_wish
from apps.downloads.request_serializers import AudioStreamRequestSerializer, VideoStreamRequestSerializer
from apps.downloads.services.key_limits import check_media
from apps.downloads.services.media import MediaAsk, Tier, hot_store, join_fetch, resolve_key, start_or_join
from apps.downloads.stream_records import AssetRecord, RecordCache
from apps.downloads.variants import AS_IT_COMES, MediaOptions
from apps.keys.authentication import authenticate, extract_key, grant_for_prefix, is_let_in
from apps.keys.documents import Scope
from apps.keys.grants import KeyGrant
from apps.keys.limits import LimitState, charge, charge_failure, limit_headers, network_of
from apps.keys.meter import StreamMeters
from apps.streaming.hotstore import FileState
from apps.streaming.links import SIGNATURE_PARAMETER, SignedLink, check_link
from apps.streaming.ports import BlockFiller, StreamBackend, StreamMeter, StreamRequest, StreamTarget
from apps.telegram_cache.documents import AssetKey, AssetState, MediaKind
from apps.telegram_cache.reader import TelegramFiller

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
FILE_NAME_CHARACTERS = 120
_NOT_IN_FILE_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]+')


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A request whose key or link is good. ``asset_id`` (from a link) or ``wish`` says what is wanted."""

    key_prefix: str
    attachment: bool
    kind: MediaKind
    video_id: str
    asset_id: str | None = None
    wish: str | None = None
    options: MediaOptions = AS_IT_COMES
    opened_from: str = ""
    link_expires_at: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    meter: StreamMeter | None = None
    range_header: str | None = None
    if_range: str | None = None
    is_renewal: bool = False  # bytes turned out to be gone: what is left without them will not do


class Find(Protocol):
    """One look for a target. Raises Suspend when it is worth looking again."""

    def __call__(self, *, waited_s: float, not_before: float) -> StreamTarget: ...


class MediaStreamBackend(StreamBackend):
    """What may block (MongoDB, Redis, disk) runs in a bounded set of threads. Waiting for a fetch holds none."""

    def __init__(self, filler: TelegramFiller) -> None:
        self.filler: BlockFiller = filler
        self._close_filler = filler.aclose
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stream-backend")
        self.pending = 0
        self.waiting = 0
        self._looks: SharedLooks[StreamTarget] = SharedLooks()
        self._turns = asyncio.Semaphore(TURNS)
        self._records = RecordCache()
        self._meters = StreamMeters()

    async def aclose(self) -> None:
        """Stop what the filler downloads, and give the threads back. What still waits in them is dropped."""
        await self._meters.aclose()
        await self._close_filler()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def open_target(self, request: StreamRequest) -> StreamTarget:
        """See StreamBackend. Waits up to MAX_WAIT_S for a fetch, then raises UpstreamTimeout."""
        admission = await self._run(partial(_admit, request, self._meters))
        find = partial(self._find_target, admission)
        target = await self._wait_for_target(find, max_age_s=RECORD_MAX_AGE_S, question=_question(admission))
        return _for_this_request(target, admission)

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
            with suppress(ApiError, *SERVICE_DOWN):
                self._records.get(asset_id, not_before=time.monotonic() - max_age_s)
                grant_for_prefix(key_prefix, max_age_s=max_age_s)

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
            look = partial(self._look, find, waited_s=waited_s, max_age_s=max_age_s if is_first else None)
            try:
                if question is None or waited_s >= SHARED_FOR_S:
                    return await look()
                return await self._looks.look(question, look)
            except Suspend as pending:
                topic = pending.topic
            if waited_s >= MAX_WAIT_S:
                raise UpstreamTimeout("The file is not ready yet. Try again later.")
            await self._wait(topic, since=looked_at)
            is_first = False

    async def _look(self, find: Find, *, waited_s: float, max_age_s: float | None) -> StreamTarget:
        """Now. ``max_age_s``: how old the record may be at the first look; None: at a later one it is read anew."""
        not_before = time.monotonic() - (max_age_s or 0.0)
        look = partial(find, waited_s=waited_s, not_before=not_before)
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
        if self.pending >= MAX_PENDING:
            raise Overloaded(retry_after_s=2)
        self.pending += 1
        try:
            context = contextvars.copy_context()  # the request id, for the log
            return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
        except SERVICE_DOWN:
            raise NotReady(retry_after_s=2) from None
        finally:
            self.pending -= 1

    def _find_target(self, admission: Admission, *, waited_s: float, not_before: float) -> StreamTarget:
        """The target if its bytes can flow. Else starts or joins the fetch and raises Suspend, or the fetch's error."""
        asker_var.set(admission.key_prefix)  # in the context of this call alone: see _run
        key, record = self._look_up(admission, waited_s=waited_s, not_before=not_before)
        target = _target_of(record, admission) if record else None
        if target is not None and record is not None and not record.is_finished and _follows(target, record):
            join_fetch(key.asset_id, key_prefix=admission.key_prefix)
        if target is None:
            state = start_or_join(key, key_prefix=admission.key_prefix, waited_s=waited_s)
            if state.tier is not Tier.EXTERNAL:
                target = _target_of(AssetRecord.of(state.asset), admission)
        if target is None:
            raise Suspend(f"asset:{key.asset_id}")
        return target

    def _find_renewed(self, target: StreamTarget, *, waited_s: float, not_before: float) -> StreamTarget:
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
        return self._find_target(admission, waited_s=waited_s, not_before=not_before)

    def _look_up(
        self, admission: Admission, *, waited_s: float, not_before: float
    ) -> tuple[AssetKey, AssetRecord | None]:
        if admission.asset_id is None:
            ask = MediaAsk(
                kind=admission.kind, video_id=admission.video_id, wish=admission.wish, options=admission.options
            )
            key = resolve_key(ask, waited_s=waited_s)
            return key, self._records.get(key.asset_id, not_before=not_before)
        record = self._records.get(admission.asset_id, not_before=not_before)
        if record is None:
            raise NotFound("This file is no longer kept. Ask the API for a new link.")
        if (record.key.kind, record.key.video_id) != (admission.kind, admission.video_id):
            raise LinkInvalid
        return record.key, record

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
            size_bytes=record.size_bytes if record.is_finished else _growing_size(record)[1],
            block_hashes=record.block_hashes,
            etag=record.etag,
        )


def make_backend() -> MediaStreamBackend:
    """The backend of this process's stream application."""
    return MediaStreamBackend(TelegramFiller())


def _admit(request: StreamRequest, meters: StreamMeters) -> Admission:
    kind = MediaKind(request.kind)
    if SIGNATURE_PARAMETER in request.query:
        return _admit_link(request, kind, meters)
    grant, limit = _admit_key(request)
    serializer_class = VideoStreamRequestSerializer if kind is MediaKind.VIDEO else AudioStreamRequestSerializer
    fields = check_fields(request.query, serializer_class)
    return Admission(
        key_prefix=grant.prefix,
        attachment=fields["download"],
        kind=kind,
        video_id=request.video_id,
        wish=fields["quality"] if kind is MediaKind.VIDEO else fields.get("format"),
        options=fields["options"],
        opened_from=request.client_address,
        headers=tuple(limit_headers(limit).items()),
        meter=meters.meter(grant),
        range_header=_range_header(request, "range"),
        if_range=_range_header(request, "if-range"),
    )


def _admit_link(request: StreamRequest, kind: MediaKind, meters: StreamMeters) -> Admission:
    """A link is as good as the key that asked for it. Following it is no request, but a stream of that key.

    Forged links count against the address; one that has expired was good, and does not.
    """
    try:
        link = check_link(request.path, request.query)
    except LinkInvalid:
        charge_failure(request.client_address)
        raise
    grant = grant_for_prefix(link.key_prefix)
    _check_scope(grant)
    if link.bound_to and link.bound_to != network_of(request.client_address):
        raise IpNotAllowed("This link was made for another address.")
    wish = read_wish(link.asset_id)
    return Admission(
        key_prefix=link.key_prefix,
        attachment=link.attachment,
        kind=kind,
        video_id=request.video_id,
        asset_id=link.asset_id if wish is None else None,
        wish=wish or None,
        link_expires_at=link.expires_at,
        meter=meters.meter(grant),
        range_header=_range_header(request, "range"),
        if_range=_range_header(request, "if-range"),
    )


def _range_header(request: StreamRequest, name: str) -> str | None:
    return request.headers.get(name) if request.method == "GET" else None  # HEAD knows no ranges


def _admit_key(request: StreamRequest) -> tuple[KeyGrant, LimitState]:
    try:
        grant = authenticate(extract_key(request.headers, request.query), request.client_address)
    except ApiError:
        charge_failure(request.client_address)
        raise
    limit = charge(grant)
    _check_scope(grant)
    return grant, limit


def _check_scope(grant: KeyGrant) -> None:
    if Scope.MEDIA not in grant.scopes:
        raise ScopeMissing(f"This API key does not have the scope {Scope.MEDIA.value}.")


def _target_of(record: AssetRecord, admission: Admission) -> StreamTarget | None:
    """The target if bytes can flow: the file is here, is in Telegram, or is arriving in its final form."""
    can_flow, size_bytes, here = False, record.size_bytes, 0
    if record.is_finished:
        is_left = record.is_left_in_part and not admission.is_renewal
        can_flow = record.is_in_telegram or is_left or hot_store().is_complete(record.key.asset_id, record.generation)
    elif record.state is AssetState.FETCHING:
        can_flow, size_bytes, here = _growing_size(record)
    if can_flow:
        check_media(admission.key_prefix, duration_s=record.duration_s, size_bytes=size_bytes or here)
        return _make_target(record, admission, size_bytes=size_bytes)
    return None if admission.is_renewal else _target_of_remains(record, admission)


def _target_of_remains(record: AssetRecord, admission: Admission) -> StreamTarget | None:
    """For a range that what is stored still has, though other parts are bad and are fetched anew, or will be."""
    remains = record.remains
    if remains is None or not remains.have(admission.range_header, admission.if_range):
        return None
    check_media(admission.key_prefix, duration_s=record.duration_s, size_bytes=remains.size_bytes)
    return replace(
        _make_target(record, admission, size_bytes=remains.size_bytes),
        generation=remains.generation,
        mime=remains.mime,
        block_hashes=remains.block_hashes,
        etag=remains.etag,
    )


def _follows(target: StreamTarget, record: AssetRecord) -> bool:
    """Whether the target is what is being fetched, not what was stored before."""
    return target.generation == record.generation


def _question(admission: Admission) -> Hashable:
    """What two requests of one key have in common that find the same bytes. The range is part of it: of a file that
    has lost parts, one may be there and another not."""
    wanted = (admission.asset_id, admission.wish, admission.options, admission.range_header, admission.if_range)
    return admission.key_prefix, admission.kind, admission.video_id, *wanted


def _for_this_request(target: StreamTarget, admission: Admission) -> StreamTarget:
    """A target that another request of the same key found, with what belongs to this one."""
    return replace(
        target,
        attachment=admission.attachment,
        opened_from=admission.opened_from,
        link_expires_at=admission.link_expires_at,
        headers=admission.headers,
        meter=admission.meter,
    )


def _growing_size(record: AssetRecord) -> tuple[bool, int | None, int]:
    """Whether a fetch is writing the asset in its final form, its size, if known by now, and what is here of it."""
    hot_file = hot_store().open(record.key.asset_id, record.generation)
    if hot_file is None:
        return False, None, 0
    try:
        can_flow = hot_file.state in (FileState.GROWING, FileState.FINAL)
        return can_flow, hot_file.size_bytes, hot_file.available_from(0)
    finally:
        hot_file.close()


def target_of_link(record: AssetRecord, link: SignedLink) -> StreamTarget:
    """What a link that was checked leads to, when all bytes are here: without meter and hashes (links are kept)."""
    return StreamTarget(
        asset_id=link.asset_id,
        generation=record.generation,
        size_bytes=record.size_bytes,
        mime=record.mime,
        file_name=file_name(record),
        attachment=link.attachment,
        block_hashes=(),
        etag=record.etag,
        key_prefix=link.key_prefix,
        link_expires_at=link.expires_at,
    )


def _make_target(record: AssetRecord, admission: Admission, *, size_bytes: int | None) -> StreamTarget:
    return StreamTarget(
        asset_id=record.key.asset_id,
        generation=record.generation,
        size_bytes=size_bytes,
        mime=record.mime,
        file_name=file_name(record),
        attachment=admission.attachment,
        block_hashes=record.block_hashes,
        etag=record.etag,
        key_prefix=admission.key_prefix,
        opened_from=admission.opened_from,
        link_expires_at=admission.link_expires_at,
        headers=admission.headers,
        meter=admission.meter,
    )


def file_name(record: AssetRecord) -> str:
    """The title as a file name: without what file systems or terminals trip over, with the right extension."""
    title = _NOT_IN_FILE_NAMES.sub(" ", record.title)
    title = " ".join(title.split())[:FILE_NAME_CHARACTERS].strip(". ")
    return f"{title or record.key.video_id}.{record.container or 'bin'}"
