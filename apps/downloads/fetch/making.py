"""One plan carried out: remote files in, a finished and checked file in the hot store out."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from apps.core.ffmpeg import MediaFacts
from apps.core.wake import publish
from apps.downloads.documents import MediaJob
from apps.downloads.fetch.cover import fetch_cover
from apps.downloads.fetch.finish import FileHashes, check_media, finish_file, hash_file
from apps.downloads.fetch.originals import bring_original
from apps.downloads.fetch.outcomes import JobCancelled, Limits, NotMedia, SourceChanged
from apps.downloads.fetch.progress import Progress
from apps.downloads.fetch.resume import Resume, ResumeFile
from apps.downloads.fetch.room import require_room
from apps.downloads.fetch.sinks import ScratchFile, Sink
from apps.downloads.fetch.sniff import HEAD_BYTES, INDEX_BYTES, check_head, is_streamable_mp4
from apps.downloads.fetch.threads import in_thread
from apps.downloads.fetch.transfer import Connections, Transfer
from apps.downloads.providers.base import FetchPlan, RemoteFile
from apps.downloads.services.claims import Claim, record_plan, renew_claim
from apps.downloads.services.jobs import update_job
from apps.downloads.services.originals import Original
from apps.downloads.stopping import raise_if_stopped
from apps.streaming.hotstore import HotStore, HotWriter, WriterBusy
from apps.streaming.hotstore.layout import HotPath

log = structlog.get_logger(__name__)

FINISHED_COPIES = {
    "direct": 0,
    "remux": 1,
    "mux": 1,
    "extract": 1,
    "mp3": 1,
    "opus": 2,
    "flac": 8,
}  # how often the bytes lie on the disk once more
FILE_SHARE = {"direct": 1.0, "remux": 0.95, "mux": 0.95}
"""How much of the bytes that arrive is surely in the finished file: containers differ, encoding may make it small."""
LEASE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file in the hot store, complete, not yet committed."""

    hashes: FileHashes
    facts: MediaFacts


class Maker:
    """Carries out plans of one attempt, one after another, until one succeeds. For the attempt's event loop."""

    def __init__(
        self,
        *,
        claim: Claim,
        job: MediaJob,
        store: HotStore,
        session: Connections,
        limits: Limits,
        progress: Progress,
    ) -> None:
        self.generation = claim.generation
        self._generation_is_used = claim.generation_is_used
        self._claim = claim
        self._job_id = job.id
        self._store = store
        self._session = session
        self._limits = limits
        self._progress = progress
        self._resume = Resume.read(job.resume)
        self._writer: HotWriter | None = None
        self._scratch: dict[int, ScratchFile] = {}
        self._folder: Path | None = None
        self._sizes: dict[int, int] = {}
        self._is_shown = False  # those who wait have been told that bytes can be read

    async def make(self, plan: FetchPlan) -> Made:
        """Bring the plan's bytes in and finish them. Raises what ``Transfer.run`` raises, ClaimLost, HotStoreFull.

        Called again with a plan for the same files (fresh addresses) it goes on where it was.
        """
        self.let_go()
        resume = await self._begin(plan)
        if resume is None or resume.place == "scratch":
            self._open_scratch(plan, resume)
        return await (self._make_one(plan) if plan.finish in {"direct", "remux"} else self._make_from_scratch(plan))

    async def make_from(self, original: Original) -> Made:
        """Make the file from one that is stored: nothing is fetched. Raises as ``make``, and what the Telegram reader
        raises."""
        self.let_go()
        await self._begin(original.plan)
        folder = self._folder = self._store.scratch_dir(self._claim.asset_id, self._claim.attempt)
        source, room = folder / "original", self._limits.room_bytes
        size_bytes = original.asset.size_bytes or 0
        self._progress.reset(files=1)
        self._progress.set_size(0, size_bytes)
        require_room(self._store.root, size_bytes, keep_free_bytes=room)
        await bring_original(self._store, original.asset, source, keep_free_bytes=room)
        self._progress.have(size_bytes)
        return await self._finish(original.plan, [source], size_was_declared=True)

    def let_go(self) -> None:
        """Close every file, keeping the bytes: whoever follows the hot file waits for them to go on."""
        if self._writer is not None:
            self._writer.close()
        for sink in self._scratch.values():
            sink.close()
        self._writer = None
        self._scratch = {}

    def give_up(self, *, keep_bytes: bool) -> None:
        """Close every file for good: readers of the hot file end. ``keep_bytes``: a later job may go on from them."""
        if self._writer is not None:
            self._writer.fail()
        self.let_go()
        if not keep_bytes:
            self.forget()

    def give_way(self) -> bool:
        """Delete what was fetched so far, by earlier attempts as well. Whether there was anything."""
        kept = self._resume
        if kept is None:
            return False
        self.give_up(keep_bytes=False)
        if kept.place == "hot":
            self._store.remove(self._claim.asset_id, kept.generation)
        elif self._store.root in (folder := Path(kept.folder)).parents:
            shutil.rmtree(folder, ignore_errors=True)
        return True

    def forget(self) -> None:
        """Drop what could be resumed, and the scratch files."""
        self._resume = None
        self._generation_is_used = True
        update_job(self._job_id, resume={})
        self.clean_up()

    def clean_up(self) -> None:
        """Delete this asset's scratch files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _begin(self, plan: FetchPlan) -> Resume | None:
        """Settle the generation and write the plan down, before any byte; open the hot file that can be resumed."""
        self._progress.reset(files=len(plan.files))
        self._progress.stage = "connecting"
        self._progress.counts_as_file(0.0 if plan.clip else FILE_SHARE.get(plan.finish, 0.0))
        self._sizes = {}
        self._is_shown = False
        resume = self._resume if self._resume and self._resume.fits(plan) else None
        if resume is not None and resume.place == "hot":
            generation = resume.generation
            resume = resume if await in_thread(lambda _: self._reopen(generation)) else None
        if resume is None:
            self.clean_up()
        if (resume is None or resume.place == "scratch") and self._generation_is_used:
            old = self.generation
            await in_thread(lambda _: self._retire(old))
            self.generation += 1
            self._generation_is_used = False
        await in_thread(lambda _: record_plan(self._claim, plan, generation=self.generation))
        await in_thread(lambda _: update_job(self._job_id, provider=plan.provider))
        return resume

    def _reopen(self, generation: int) -> bool:
        """Take up the hot file of an earlier attempt. False: it is gone, or an old attempt still writes it."""
        if generation != self.generation:
            return False
        try:
            writer = self._store.create(self._claim.asset_id, self.generation, resume=True, check=raise_if_stopped)
        except WriterBusy:
            return False
        if writer.frontier == 0:
            writer.close()
            return False
        self._writer = writer
        self._generation_is_used = True
        self._progress.have(writer.frontier)
        self._show()
        return True

    def _retire(self, generation: int) -> None:
        """End the readers of a generation that will not go on, and remove its file."""
        with suppress(WriterBusy), self._store.create(self._claim.asset_id, generation, resume=True) as writer:
            writer.fail()
        self._store.remove(self._claim.asset_id, generation)

    def _open_scratch(self, plan: FetchPlan, resume: Resume | None) -> None:
        """Open the folder of an earlier attempt with what it holds, if that can be resumed."""
        if resume is None or not (folder := Path(resume.folder)).is_dir():
            return
        if self._store.root not in folder.parents:
            return
        try:
            for number, kept in enumerate(resume.files):
                if (path := folder / f"{number}.part").exists():
                    sink = self._scratch[number] = ScratchFile(path)
                    if kept.size_bytes is not None:
                        sink.set_size(kept.size_bytes)
                        self._learn_size(plan, number, kept.size_bytes)
                    self._progress.have(sink.frontier)
        except WriterBusy:
            self.let_go()
            return
        self._folder = folder

    async def _make_one(self, plan: FetchPlan) -> Made:
        """A single file: straight into the hot store where that is possible."""
        transfer = self._transfer(plan, 0, self._writer or self._scratch.get(0))
        await transfer.run()
        if self._writer is None:
            return await self._finish(plan, self._parts(), size_was_declared=transfer.size_was_declared)
        writer, path = self._writer, HotPath.of(self._store.root, self._claim.asset_id, self.generation).data
        self._progress.stage = "checking"
        facts = await in_thread(
            lambda stop: check_media(path, plan, size_was_declared=transfer.size_was_declared, stop=stop)
        )
        blocks = await in_thread(lambda _: writer.finish())
        hashes = FileHashes(size_bytes=writer.frontier, sha256=writer.sha256_hex, blocks=blocks)
        return Made(hashes=hashes, facts=facts)

    async def _make_from_scratch(self, plan: FetchPlan) -> Made:
        """All files at once, each into its scratch file; the first failure stops the others."""
        transfers = [self._transfer(plan, number, self._scratch.get(number)) for number in range(len(plan.files))]
        running = [asyncio.create_task(transfer.run()) for transfer in transfers]
        try:
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        is_sure = all(transfer.size_was_declared for transfer in transfers)
        return await self._finish(plan, self._parts(), size_was_declared=is_sure)

    def _parts(self) -> list[Path]:
        return [sink.path for _, sink in sorted(self._scratch.items())]

    async def _finish(self, plan: FetchPlan, parts: list[Path], *, size_was_declared: bool) -> Made:
        """Scratch files in, the finished file in the hot store out."""
        output = parts[0].with_name(f"finished-{self._claim.attempt}.{plan.container}")
        self._progress.stage = "muxing"
        cover = await fetch_cover(self._session, plan.cover, output.with_suffix(".cover"))
        try:
            await in_thread(lambda stop: finish_file(plan, parts, output, cover=cover, stop=stop))
        except BaseException:  # also when the job is cancelled: half a file is of no use, the parts are
            output.unlink(missing_ok=True)
            raise
        self._progress.stage = "checking"
        tells_its_length = size_was_declared or plan.finish != "mux"  # one file, written anew, does; two hide a cut one
        facts = await in_thread(lambda stop: check_media(output, plan, size_was_declared=tells_its_length, stop=stop))
        hashes = await in_thread(lambda stop: hash_file(output, stop=stop))
        await in_thread(lambda _: renew_claim(self._claim, lease_s=LEASE_S))  # nobody else adopts this generation now
        asset_id, generation = self._claim.asset_id, self.generation
        self._generation_is_used = True
        await in_thread(lambda _: self._store.adopt(asset_id, generation, output, block_hashes=hashes.blocks))
        return Made(hashes=hashes, facts=facts)

    def _transfer(self, plan: FetchPlan, number: int, sink: Sink | None) -> Transfer:
        file = plan.files[number]
        if sink is not None and sink.size_bytes is not None:
            self._learn_size(plan, number, sink.size_bytes)
        return Transfer(
            file,
            session=self._session,
            limits=self._limits,
            sink=sink,
            choose_sink=lambda head: self._choose_sink(plan, number, head),
            head_bytes=INDEX_BYTES if plan.finish == "remux" else HEAD_BYTES,
            on_size=lambda size_bytes: self._learn_size(plan, number, size_bytes),
            on_bytes=self._note_bytes,
        )

    def _note_bytes(self, size_bytes: int) -> None:
        self._progress.add(size_bytes)
        if self._writer is not None and not self._is_shown:
            self._show()

    def _show(self) -> None:
        """Wake the streams that wait for the hot file, now, without waiting for the next heartbeat."""
        self._is_shown = bool(self._writer and self._writer.frontier)
        publish(f"asset:{self._claim.asset_id}")

    def _learn_size(self, plan: FetchPlan, number: int, size_bytes: int) -> None:
        self._sizes[number] = size_bytes
        self._progress.set_size(number, size_bytes)
        there = sum(sink.frontier for sink in self._scratch.values()) + (self._writer.frontier if self._writer else 0)
        needed = sum(self._sizes.values()) * (1 + FINISHED_COPIES[plan.finish]) - there
        require_room(self._store.root, needed, keep_free_bytes=self._limits.room_bytes)

    def _choose_sink(self, plan: FetchPlan, number: int, head: bytes) -> Sink:
        """Where this file goes, now that its first bytes are here; noted on the job for a later attempt."""
        check_head(head, container=plan.container if plan.finish == "direct" else None)
        goes_direct = plan.finish == "direct" or (
            plan.finish == "remux" and plan.container == "mp4" and plan.is_kept_as_is and is_streamable_mp4(head)
        )
        sink: Sink
        if goes_direct:
            sink = self._writer = self._store.create(self._claim.asset_id, self.generation, resume=False)
            self._generation_is_used = True
            self._show()
        else:
            if self._folder is None:
                self._folder = self._store.scratch_dir(self._claim.asset_id, self._claim.attempt)
            sink = self._scratch[number] = ScratchFile(self._folder / f"{number}.part")
            sink.clear()
        self._note_resume(plan, "hot" if goes_direct else "scratch")
        return sink

    def _note_resume(self, plan: FetchPlan, place: str) -> None:
        files = [self._resume_file(file, number) for number, file in enumerate(plan.files)]
        self._resume = Resume(
            place="hot" if place == "hot" else "scratch",
            provider=plan.provider,
            finish=plan.finish,
            generation=self.generation,
            folder=str(self._folder or ""),
            files=tuple(files),
        )
        if not update_job(self._job_id, resume=self._resume.model_dump(mode="json")):
            raise JobCancelled

    def _resume_file(self, file: RemoteFile, number: int) -> ResumeFile:
        return ResumeFile(source_id=file.source_id, size_bytes=self._sizes.get(number))


def bytes_are_bad(error: Exception) -> bool:
    """Whether what was fetched so far must not be gone on from."""
    return isinstance(error, NotMedia | SourceChanged)
