"""Fetching one asset: claim, plans, bytes, checks, commit. Every end leaves a state that another attempt can use."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog
from django.conf import settings
from pymongo.errors import ConnectionFailure, PyMongoError

from apps.core.errors import ApiError, InternalError, UpstreamError, error_from_code
from apps.core.ffmpeg import FfmpegStopped
from apps.core.owners import make_owner
from apps.core.wake import publish
from apps.downloads.documents import MediaJob
from apps.downloads.errors import CONTENT_ERRORS, VIDEO_ERRORS, EarlierFetch, NoRoom
from apps.downloads.fetch.making import LEASE_S, Made, Maker, bytes_are_bad
from apps.downloads.fetch.outcomes import AddressRefused, JobCancelled, Limits, ServerStopping, SourceChanged
from apps.downloads.fetch.progress import Progress
from apps.downloads.fetch.room import make_room, raise_if_still_full
from apps.downloads.fetch.threads import in_thread
from apps.downloads.fetch.transfer import Connections
from apps.downloads.providers.chain import PlanOffer, PlanOffers, ProviderChain
from apps.downloads.quality import measured_quality
from apps.downloads.selectors import find_job
from apps.downloads.services.claims import (
    Claim,
    ClaimLost,
    claim_asset,
    commit_failed,
    commit_ready,
    release_claim,
    renew_claim,
)
from apps.downloads.services.jobs import end_attempt, finish_job, requeue_job, start_job, update_job
from apps.downloads.services.originals import find_original
from apps.downloads.services.retrying import postpone_job, retry_delay_s
from apps.downloads.services.turning_away import turn_away
from apps.streaming.hotstore import HotFileRemoved, HotStore, HotStoreFull, WriterBusy, disk_full_reported
from apps.telegram_cache.documents import FINISHED_STATES, Asset, AssetKey, AssetState, MediaKind
from apps.telegram_cache.services import request_upload

log = structlog.get_logger(__name__)

MAX_CRASHES = 5  # in a row, without a new byte: restarts of the server and failures of sources do not count
MAX_OLD_FAILURES = 20  # of earlier attempts, kept on the job
PLAN_TIMEOUT_S = 60.0
BEAT_S = 0.5
RENEW_EVERY_S = 5.0
TURN_AWAY_EVERY_S = 1.0
BUSY_RETRY_S = 1.0
WAITS_WITH_BYTES = 4  # for room: by then the streams that followed the file have ended, and its bytes are in the way
DATABASE_PATIENCE_S = 20.0
DATABASE_RETRY_S = 0.5

stopping = threading.Event()
"""Set when this worker is told to end: running fetches stop and can be gone on from."""

Result = TypeVar("Result")


def fetch_asset(job_id: str, *, chain: ProviderChain, limits: Limits | None = None) -> None:
    """Carry out a job until it is done, failed or cancelled. Safe to call twice, anywhere, at any time.

    Returns quietly when there is nothing to do: the job has ended, or another process works on it.
    """
    job = find_job(job_id)
    if job is None or not job.active or stopping.is_set():
        return
    key = AssetKey(job.video_id, MediaKind(job.kind), job.variant)
    claim = claim_asset(key=key, owner=make_owner(), lease_s=LEASE_S)
    if not claim.won:
        _settle(job, claim)
        return
    job = start_job(job_id)
    if job is None:
        release_claim(claim, state=AssetState.ABSENT)
        return
    with structlog.contextvars.bound_contextvars(job_id=job_id, asset_id=claim.asset_id, attempt=claim.attempt):
        log.info("fetch begins", job_attempt=job.attempts)
        if job.crashes >= MAX_CRASHES:
            _fail(job, claim, UpstreamError("Fetching this video was interrupted too often."))
            return
        _Fetch(job, claim, chain, limits or Limits()).run()


def _settle(job: MediaJob, claim: Claim) -> None:
    """The asset cannot be claimed: bring the job in line with what became of it."""
    if claim.state in FINISHED_STATES:
        finish_job(job.id)
        request_upload(claim.asset_id)
    elif claim.state == AssetState.FAILED:
        asset = Asset.objects.get(id=claim.asset_id)
        finish_job(
            job.id, error=error_from_code(asset.error_code or "", asset.error_message or ""), retry_at=asset.retry_at
        )
    elif job.attempts == 0:  # held by the fetch of an earlier, cancelled job that is just ending
        requeue_job(job.id, delay_s=BUSY_RETRY_S)


def _fail(job: MediaJob, claim: Claim, error: ApiError) -> None:
    with suppress(ClaimLost):
        retry_at = commit_failed(claim, error)
        finish_job(job.id, error=error, retry_at=retry_at)
        log.info("fetch failed", error=error.code, reason=error.message)


def _patiently(work: Callable[[], Result]) -> Result:
    """Try again for a while when MongoDB is away. Writes that got through without an answer are not repeated by
    MongoDB itself (retryable writes)."""
    deadline = time.monotonic() + DATABASE_PATIENCE_S
    while True:
        try:
            return work()
        except ConnectionFailure:
            if time.monotonic() > deadline:
                raise
            time.sleep(DATABASE_RETRY_S)


class _Fetch:
    """One attempt. ``run`` blocks; inside, an event loop of its own carries the transfers and the heartbeat."""

    def __init__(self, job: MediaJob, claim: Claim, chain: ProviderChain, limits: Limits) -> None:
        self._job = job
        self._claim = claim
        self._chain = chain
        self._limits = limits
        self._progress = Progress()
        self._looked_at_size = float("-inf")
        self._store = HotStore(settings.ENV.hot_root)
        self._store.root.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Never raises: what goes wrong is recorded, or left to the sweep when MongoDB is away."""
        try:
            made, maker = asyncio.run(self._attempt())
            self._commit(made, maker)
        except ClaimLost:
            log.warning("fetch lost its claim")
        except JobCancelled:
            log.info("fetch cancelled")
        except ServerStopping:
            log.info("fetch interrupted")
        except PyMongoError as error:
            log.warning("database away, fetch left to the sweep", reason=type(error).__name__)

    def _commit(self, made: Made | ApiError, maker: Maker) -> None:
        if isinstance(made, ApiError):
            _patiently(lambda: self._end_badly(made))
            return
        hashes = made.hashes
        _patiently(
            lambda: commit_ready(
                self._claim,
                size_bytes=hashes.size_bytes,
                sha256=hashes.sha256,
                block_hashes=hashes.blocks,
                duration_s=made.facts.duration_s,
                facts=made.facts,
            )
        )
        maker.clean_up()
        _patiently(
            lambda: update_job(self._job.id, bytes_done=hashes.size_bytes, bytes_total=hashes.size_bytes, resume={})
        )
        _patiently(lambda: finish_job(self._job.id))
        log.info("fetch done", size_bytes=hashes.size_bytes, generation=maker.generation)
        request_upload(self._claim.asset_id)

    def _end_badly(self, error: ApiError) -> None:
        """Back in line for another try, or failed for good."""
        limits = self._limits
        delay_s = retry_delay_s(self._job, error, limits.retry_delays_s, room_delays_s=limits.room_delays_s)
        if delay_s is None:
            _fail(self._job, self._claim, error)
        else:
            postpone_job(self._job, self._claim, error, delay_s=delay_s)

    async def _attempt(self) -> tuple[Made | ApiError, Maker]:
        """Work and heartbeat side by side; whichever ends first ends both."""
        async with Connections(self._limits) as session:
            maker = Maker(
                claim=self._claim,
                job=self._job,
                store=self._store,
                session=session,
                limits=self._limits,
                progress=self._progress,
            )
            tasks = [asyncio.create_task(self._work(maker)), asyncio.create_task(self._beat())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                ended = next(task for task in tasks if task.done())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                return await ended, maker
            except JobCancelled:
                maker.give_up(keep_bytes=True)
                release_claim(self._claim, state=AssetState.ABSENT)
                raise
            except ServerStopping:
                maker.let_go()
                release_claim(self._claim, state=AssetState.QUEUED)
                end_attempt(self._job.id)
                raise
            finally:
                maker.let_go()

    async def _beat(self) -> Made | ApiError:
        """Renew the lease, write progress, and see whether to stop. Ends only by raising."""
        renewed = time.monotonic()
        shown: dict[str, Any] = {}
        while True:
            await asyncio.sleep(BEAT_S)
            if stopping.is_set():
                raise ServerStopping
            fields = self._progress.fields()
            try:
                if not await in_thread(partial(self._write, fields)):
                    raise JobCancelled
                if time.monotonic() - renewed >= RENEW_EVERY_S:
                    await in_thread(lambda _: renew_claim(self._claim, lease_s=LEASE_S))
                    renewed = time.monotonic()
            except ConnectionFailure:
                if time.monotonic() - renewed > LEASE_S:
                    raise ClaimLost(self._claim.asset_id) from None
                continue
            if fields != shown:
                shown = fields
                publish(f"asset:{self._claim.asset_id}")

    def _write(self, fields: dict[str, Any], _stop: threading.Event) -> bool:
        if not update_job(self._job.id, **fields):
            return False
        size_bytes, now = fields["size_at_least"], time.monotonic()
        if size_bytes and now - self._looked_at_size >= TURN_AWAY_EVERY_S:
            self._looked_at_size = now
            turn_away(self._job.id, size_bytes=size_bytes)
        return True

    async def _work(self, maker: Maker) -> Made | ApiError:
        """Plan after plan, until one works. What ends the fetch for good is returned, not raised."""
        offers = self._chain.plans(self._key, timeout_s=PLAN_TIMEOUT_S)
        try:
            await in_thread(lambda _: raise_if_still_full(self._job.needs_free_bytes))
            with disk_full_reported():
                return await self._from_original(maker) or await self._from_outside(offers, maker)
        except NoRoom as still:
            failure: ApiError = still
            self._give_way(maker)
        except ApiError as error:
            failure = error
            self._note_failures(offers)
        except HotStoreFull as full:
            missing_bytes = full.missing_bytes
            failure = await in_thread(lambda _: make_room(self._store.root, missing_bytes))
            self._give_way(maker)
        except WriterBusy:
            failure = EarlierFetch()
        except (FfmpegStopped, ClaimLost, JobCancelled, PyMongoError):
            raise
        except Exception:  # a fault of ours: the job ends with an error in place of hanging
            log.exception("fetch broke")
            failure = InternalError()
        maker.give_up(keep_bytes=not isinstance(failure, CONTENT_ERRORS))
        return failure

    def _give_way(self, maker: Maker) -> None:
        """Of several fetches that filled the disk together none would find room for its rest."""
        if (self._job.full_in_a_row or 0) >= WAITS_WITH_BYTES and maker.give_way():
            log.info("what was fetched so far makes room for others")

    async def _from_outside(self, offers: PlanOffers, maker: Maker) -> Made:
        while True:
            offer = await in_thread(lambda _: next(iter(offers)), may_outlive=True)
            self._note_failures(offers)
            try:
                made = await self._carry_out(offer, maker)
            except VIDEO_ERRORS:
                raise
            except ApiError as error:
                log.info("plan failed", provider=offer.plan.provider, error=error.code, reason=error.message)
                offer.failed(error)
                maker.give_up(keep_bytes=not bytes_are_bad(error))
            else:
                offer.succeeded()
                self._note_served(made, took_s=offer.took_s)
                return made

    async def _from_original(self, maker: Maker) -> Made | None:
        """The file made from a stored one, when there is one that it can be made from and that can be read."""
        original = await in_thread(lambda _: find_original(self._key, self._store))
        if original is None:
            return None
        began_at = time.monotonic()
        try:
            made = await maker.make_from(original)
            self._note_served(made, took_s=time.monotonic() - began_at)
            return made
        except ApiError as error:
            log.info("not made from the stored file", original=original.asset.id, error=error.code)
        maker.give_up(keep_bytes=False)
        return None

    async def _carry_out(self, offer: PlanOffer, maker: Maker) -> Made:
        """One provider's plan, with fresh addresses when they are refused, from the start when the source changed."""
        for tries_left in range(self._limits.plans_again, -1, -1):
            try:
                return await maker.make(offer.plan)
            except AddressRefused:
                if tries_left == 0:
                    raise
                maker.let_go()
            except (SourceChanged, HotFileRemoved) as error:
                if tries_left == 0:
                    raise SourceChanged from error
                maker.give_up(keep_bytes=False)
            log.info("planning again", provider=offer.plan.provider)
            await in_thread(lambda _: offer.renew(timeout_s=PLAN_TIMEOUT_S), may_outlive=True)
        raise AssertionError("the last try returns or raises")

    def _note_served(self, made: Made, *, took_s: float) -> None:
        facts = made.facts
        quality = measured_quality(self._job.variant, width=facts.width, height=facts.height, fps=facts.fps)
        update_job(self._job.id, provider_took_s=round(took_s, 3), measured_quality=quality)

    def _note_failures(self, offers: PlanOffers) -> None:
        """Show on the job which sources have failed so far, and why."""
        if offers.failures:
            now = [{**failure.as_document(), "attempt": self._job.attempts} for failure in offers.failures]
            update_job(self._job.id, provider_errors=[*self._job.provider_errors[-MAX_OLD_FAILURES:], *now])

    @property
    def _key(self) -> AssetKey:
        return AssetKey(self._job.video_id, MediaKind(self._job.kind), self._job.variant)
