"""Brings missing blocks back from Telegram: part by part, verified block by block, each part downloaded once."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import structlog

from apps.core.errors import NotReady, Overloaded, UpstreamError, UpstreamUnreachable
from apps.streaming.hotstore import FileState, HotFile, WrongBlock
from apps.streaming.ports import BytesGone, StreamTarget
from apps.telegram_cache.block_writer import BlockTaker, BlockWriter
from apps.telegram_cache.clients.bot_files import BotFiles
from apps.telegram_cache.clients.errors import (
    FileUnavailable,
    TelegramError,
    TelegramUncertain,
    TelegramUnreachable,
)
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.failures import Failures
from apps.telegram_cache.flights import Flight
from apps.telegram_cache.judging import Verdict, judge
from apps.telegram_cache.part_source import PartSource
from apps.telegram_cache.reach import OUT_OF_REACH, is_in_reach
from apps.telegram_cache.roster import Bot, forget_roster
from apps.telegram_cache.selectors import find_asset, parked_since
from apps.telegram_cache.services.care_records import mark_part_bad, note_out_of_reach
from apps.telegram_cache.services.pool import note_error, readers_in_turn
from apps.telegram_cache.stretches import DAMAGED, Stretch, cut_into_stretches, stretch_of

log = structlog.get_logger(__name__)
FILLS = 3
ROUNDS = 8  # each usable bot is asked once in each
ROUNDS_WITHOUT_CONNECTION = 3  # nobody answers at all: no reason to let people wait
ROUNDS_UNTIL_FORWARDING = 2
ROUND_PAUSE_S = 0.25
LONGEST_PAUSE_S = 3.0
TRY_FOR_S = 30.0  # no new round after that, nor one that would begin later
LONGEST_COOL_WAIT_S = 5.0
LOCKED_POLL_S = 0.02
NEW_TOKEN_WAIT_S = 20.0  # the only bot's token is refused: streams go on if the new one comes within this time
NEW_TOKEN_WITHIN = timedelta(minutes=1)
NEW_TOKEN_POLL_S = 0.5
RECORD_LIFE_S = 5.0
MAX_RECORDS = 1000
LOCAL_WINDOW_BLOCKS = 16
READ_AHEAD_MAX = 3


def target_to_fill(asset: Asset) -> StreamTarget:
    """All of a stored asset, for who fills its hot file and sends nothing to anybody."""
    return StreamTarget(
        asset_id=asset.id,
        generation=asset.generation,
        size_bytes=asset.size_bytes,
        mime=asset.mime,
        file_name="",
        attachment=False,
        block_hashes=tuple(asset.block_hashes),
        etag="",
        key_prefix="",
    )


class TelegramFiller:
    """The BlockFiller of streams. One for each event loop; end it with ``aclose``."""

    def __init__(self) -> None:
        self._files = BotFiles()
        self._source = PartSource(self._files)
        self._flights: dict[tuple[str, int, int], Flight] = {}
        self._records: dict[tuple[str, int], tuple[float, asyncio.Task[list[Stretch]]]] = {}
        self._bot_count = 1  # as last seen; asking again could block the event loop
        self._closed = False

    async def aclose(self) -> None:
        """Stop every download and close the connections."""
        self._closed = True
        flights = [flight for flight in self._flights.values() if flight.is_running]
        for flight in flights:
            flight.task.cancel()
        if flights:
            await asyncio.wait([flight.task for flight in flights])
        await self._source.aclose()
        await self._files.aclose()

    async def fill(self, target: StreamTarget, hot_file: HotFile, block: int) -> None:
        """Return once ``block`` is in ``hot_file``. See ``BlockFiller.fill``.

        Raises BytesGone (damaged for good, replaced), UpstreamError (nobody can read it), UpstreamUnreachable,
        Overloaded or NotReady.
        """
        for _ in range(FILLS):
            if hot_file.has_block(block):
                return
            if self._closed or hot_file.state is not FileState.SPARSE:
                raise NotReady
            flight = self._running(target, block)
            if flight is None:
                stretches = await self._stretches(target)
                stretch = stretch_of(stretches, block)
                if not is_in_reach(stretch.part.size):
                    await asyncio.to_thread(note_out_of_reach, target.asset_id)
                    raise BytesGone(OUT_OF_REACH)
                flight = self._running(target, block) or self._start(target, hot_file, stretch, wanted_block=block)
            self._read_ahead(flight, block)
            if await flight.wait_for(hot_file, block):
                return
        raise UpstreamUnreachable("The stored copy could not be read. Try again.")

    # -- flights -----------------------------------------------------------------------------------------------

    def _running(self, target: StreamTarget, block: int) -> Flight | None:
        return next(
            (
                flight
                for (asset_id, generation, _), flight in self._flights.items()
                if asset_id == target.asset_id
                and generation == target.generation
                and flight.covers(block)
                and flight.is_running
            ),
            None,
        )

    def _start(self, target: StreamTarget, hot_file: HotFile, stretch: Stretch, *, wanted_block: int | None) -> Flight:
        flight = Flight(target, hot_file, stretch, bring=self._bring, wanted_block=wanted_block)
        name = (target.asset_id, target.generation, stretch.first_block)
        self._flights[name] = flight

        def forget(_: asyncio.Task[None]) -> None:
            if self._flights.get(name) is flight:
                del self._flights[name]

        flight.task.add_done_callback(forget)
        return flight

    def _read_ahead(self, flight: Flight, block: int) -> None:
        """Start what comes next, once a client reads on: it asks for a second block, or comes from the part before."""
        first = flight.stretch.first_block
        came_from_before = block == first and first > 0 and flight.hot_file.has_block(first - 1)
        if flight.wanted_block is None:
            flight.wanted_block = block
        elif block <= flight.wanted_block and not came_from_before:
            return
        kept = self._records.get((flight.target.asset_id, flight.target.generation))
        if kept is None or not kept[1].done() or kept[1].cancelled() or kept[1].exception():
            return
        ahead = max(1, min(self._bot_count, READ_AHEAD_MAX))
        after = flight.stretch.stop_block
        later = [
            stretch for stretch in kept[1].result() if stretch.first_block >= after and is_in_reach(stretch.part.size)
        ]
        for stretch in later[:ahead]:
            blocks = range(stretch.first_block, stretch.stop_block)
            if self._running(flight.target, stretch.first_block) or all(map(flight.hot_file.has_block, blocks)):
                continue
            self._start(flight.target, flight.hot_file, stretch, wanted_block=None).follow(flight)

    # -- the record --------------------------------------------------------------------------------------------

    async def _stretches(self, target: StreamTarget) -> list[Stretch]:
        """The asset's parts as the record had them at most 5 s ago; simultaneous askers share one read."""
        name = (target.asset_id, target.generation)
        read_at, task = self._records.get(name, (0.0, None))
        stale = time.monotonic() - read_at > RECORD_LIFE_S
        if task is None or stale or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(self._read_record(target))
            task.add_done_callback(_notice)
            self._records[name] = (time.monotonic(), task)
            if len(self._records) > MAX_RECORDS:
                self._records.pop(next(iter(self._records)))
        return await asyncio.shield(task)

    async def _read_record(self, target: StreamTarget) -> list[Stretch]:
        asset = await asyncio.to_thread(find_asset, target.asset_id)
        parts = asset.parts_of(target.generation) if asset else None
        if parts is None:
            raise BytesGone("This media was replaced or removed. Ask for it again.")
        return list(cut_into_stretches(parts, LOCAL_WINDOW_BLOCKS if self._files.reads_local_files else None))

    # -- downloading -------------------------------------------------------------------------------------------

    async def _bring(self, flight: Flight) -> None:
        stretch = flight.stretch
        while flight.missing():
            lock = await asyncio.to_thread(flight.hot_file.lock_blocks, stretch.first_block, stretch.block_count)
            if lock is None:  # another process brings it: watch the map, and be ready to take over
                flight.progressed()
                await asyncio.sleep(LOCKED_POLL_S)
                continue
            with lock:
                if flight.missing():  # another process may have brought it before the lock came free
                    await self._download(flight)
            return

    async def _download(self, flight: Flight) -> None:
        failures = Failures()
        part = flight.stretch.part
        end_at = time.monotonic() + TRY_FOR_S
        for number in range(ROUNDS):
            bots = await self._readers()
            self._bot_count = len(bots)
            bots.sort(key=lambda bot: (failures.count_of(bot.bot_id), not self._source.has_file_id(bot, part)))
            for bot in bots:
                if failures.is_final(bot.bot_id):
                    continue
                if bot.cooling_s() and not self._source.knows_link(bot, part):
                    continue
                if number >= ROUNDS_UNTIL_FORWARDING and isinstance(failures.said.get(bot.bot_id), FileUnavailable):
                    self._source.distrust(bot, part)  # that answer can also mean a file_id that is no good any more
                try:
                    await self._download_from(bot, flight)
                except (TelegramError, WrongBlock) as error:
                    failures.add(bot.bot_id, error)
                    await self._note(error, bot, flight)
                else:
                    return
            if all(failures.is_final(bot.bot_id) for bot in bots) or not self._may_go_on(number, failures):
                break
            pause_s = await self._pause_s(number, failures)
            if time.monotonic() + pause_s > end_at:
                break
            await asyncio.sleep(pause_s)
        await self._settle(flight, failures)

    @staticmethod
    def _may_go_on(number: int, failures: Failures) -> bool:
        """Whether another round makes sense after this one (the first is 0)."""
        return number + 1 < (ROUNDS_WITHOUT_CONNECTION if failures.nobody_answered else ROUNDS)

    async def _readers(self) -> list[Bot]:
        """Bots to ask, none if there is none. While a token that Telegram refuses may be being replaced, it waits."""
        deadline = time.monotonic() + NEW_TOKEN_WAIT_S
        while not (bots := await asyncio.to_thread(readers_in_turn)):
            is_parked = await asyncio.to_thread(parked_since, datetime.now(UTC) - NEW_TOKEN_WITHIN)
            forget_roster()
            if not is_parked or time.monotonic() > deadline:
                return await asyncio.to_thread(readers_in_turn)  # the new token may be there by now
            await asyncio.sleep(NEW_TOKEN_POLL_S)
        return bots

    async def _pause_s(self, number: int, failures: Failures) -> float:
        """How long to wait before the next round. Raises Overloaded when Telegram wants us to wait for long."""
        bots = await asyncio.to_thread(readers_in_turn)
        wait_s = min((bot.cooling_s() for bot in bots if not failures.is_final(bot.bot_id)), default=0.0)
        if wait_s > LONGEST_COOL_WAIT_S:
            raise Overloaded("Telegram asked us to wait. Try again soon.", retry_after_s=wait_s)
        return max(wait_s, min(LONGEST_PAUSE_S, ROUND_PAUSE_S * float(2**number)))

    async def _note(self, error: Exception, bot: Bot, flight: Flight) -> None:
        log.warning(
            "telegram_read_failed", asset_id=flight.target.asset_id, part=flight.stretch.part.index,
            bot_id=bot.bot_id, error=f"{type(error).__name__}: {error}",
        )  # fmt: skip
        if isinstance(error, WrongBlock):
            self._source.forget_link(bot, flight.stretch.part)
        if isinstance(error, TelegramError):
            await asyncio.to_thread(note_error, error, bot, channel_id=flight.stretch.part.channel_id or "")

    async def _settle(self, flight: Flight, failures: Failures) -> None:
        """No usable bot gave it. Returns when one that is not in use did, or the record has moved on; else raises."""
        target, part = flight.target, flight.stretch.part
        verdict = await judge(self._source, part, failures, lambda bot: self._download_from(bot, flight))
        if verdict is Verdict.READ:
            return
        usable = {bot.bot_id for bot in await asyncio.to_thread(readers_in_turn)}
        said = [failures.said.get(bot_id) for bot_id in usable]
        if verdict is Verdict.BAD:
            reason = str(next(filter(None, said), "no bot gives it"))
            is_marked = await asyncio.to_thread(
                mark_part_bad, target.asset_id, generation=target.generation, part=part, reason=reason
            )
            self._records.pop((target.asset_id, target.generation), None)
            if not is_marked:  # it was stored anew meanwhile: whoever waits looks at the record again
                return
            log.error("telegram_part_bad", asset_id=target.asset_id, part=part.index, reason=reason)
            raise BytesGone(DAMAGED)
        if not any(isinstance(error, (TelegramUncertain, TelegramUnreachable)) for error in said):
            raise UpstreamError("No Telegram bot of this server can read this media right now.")
        raise UpstreamUnreachable("Telegram cannot be reached. Try again later.")

    async def _download_from(self, bot: Bot, flight: Flight) -> None:
        """Every missing block of the stretch, each verified as it completes. Writing some overlaps reading the next."""
        if self._files.reads_local_files:
            await self._read_local(bot, flight)
        else:
            await self._source.read_blocks(
                bot, asset_id=flight.target.asset_id, part=flight.stretch.part, sizes=flight.block_sizes(),
                take=BlockTaker(flight, asyncio.get_running_loop()).take,
            )  # fmt: skip
        if flight.missing():
            raise TelegramUncertain("the file ended too early")

    async def _read_local(self, bot: Bot, flight: Flight) -> None:
        stretch = flight.stretch
        source = self._source.stream(
            bot, asset_id=flight.target.asset_id, part=stretch.part, offset=stretch.offset_in_part
        )
        writer = BlockWriter(flight)
        try:
            async with aclosing(source) as pieces:
                async for piece in pieces:
                    if await writer.take(piece):
                        break
        except BaseException:
            await writer.settle()
            raise
        await writer.finish()


def _notice(task: asyncio.Task[list[Stretch]]) -> None:
    """Its error goes to whoever waits; when they have all left, it is nobody's."""
    if not task.cancelled():
        task.exception()
