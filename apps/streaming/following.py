"""Following growing files: one look every few milliseconds per file and process, however many clients wait for it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from apps.core.errors import STILL_COMING_RETRY_S, ApiError, NotReady, Overloaded, UpstreamError, UpstreamTimeout
from apps.streaming.hotstore import FileState, HotFile
from apps.streaming.ports import FetchedAnew, StreamBackend, StreamTarget
from apps.streaming.timing import StreamTiming

logger = logging.getLogger(__name__)

Follow = tuple[str, int]
_Waiter = asyncio.Future[None]


class FinishedElsewhere(Exception):
    """The asset is finished, but not in this file, whose writer is gone. Open it again with the record."""

    def __init__(self, target: StreamTarget) -> None:
        self.target = target
        super().__init__(target.asset_id)


class Followers:
    """The follower of each growing file that somebody waits for."""

    def __init__(self, backend: StreamBackend, timing: StreamTiming) -> None:
        self._backend = backend
        self._timing = timing
        self._by_file: dict[Follow, _Follower] = {}

    def __len__(self) -> int:
        return len(self._by_file)

    async def wait_for(self, target: StreamTarget, hot_file: HotFile, offset: int) -> None:
        """Until a byte at ``offset`` can be read, or the file's state or known size changed.

        Raises the fetch's error when it failed, UpstreamTimeout when nothing moves any more, Conflict when the asset
        was fetched anew, FinishedElsewhere.
        """
        name = (target.asset_id, target.generation)
        follower = self._by_file.get(name)
        if follower is None or follower.task.done():
            follower = _Follower(self._backend, self._timing, target, hot_file)
            self._by_file[name] = follower
            follower.task.add_done_callback(lambda _task: self._forget(name, follower))
        await follower.wait(offset)

    def _forget(self, name: Follow, follower: _Follower) -> None:
        if self._by_file.get(name) is follower:
            del self._by_file[name]


class _Follower:
    def __init__(self, backend: StreamBackend, timing: StreamTiming, target: StreamTarget, hot_file: HotFile) -> None:
        self._backend = backend
        self._timing = timing
        self._target = target
        self._hot_file = hot_file.share()
        self._waiters: dict[_Waiter, int] = {}
        self.task = asyncio.create_task(self._follow(), name=f"follow-{target.asset_id}")

    async def wait(self, offset: int) -> None:
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = offset
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)
            if not self._waiters:
                self.task.cancel()

    async def _follow(self) -> None:
        try:
            await self._look_until_it_ends()
        except (ApiError, FinishedElsewhere) as error:
            self._wake_all(error)
        except asyncio.CancelledError:
            self._wake_all(None)
            raise
        except Exception as error:  # whatever happens, those who wait must hear of it
            logger.error("following a growing file failed", exc_info=error)
            self._wake_all(UpstreamError())
        finally:
            self._hot_file.close()

    def _look(self) -> tuple[int, FileState, int | None]:
        hot_file = self._hot_file
        return hot_file.available_from(0), hot_file.state, hot_file.size_bytes

    async def _look_until_it_ends(self) -> None:
        loop = asyncio.get_running_loop()
        timing = self._timing
        seen = self._look()
        self._wake_reached(seen[0], everybody=False)
        known_failed = False
        moved_at = looked_up_at = loop.time()
        while seen[1] in {FileState.GROWING, FileState.FAILED}:
            await asyncio.sleep(timing.poll_s)
            before, seen, now = seen, self._look(), loop.time()
            if seen != before:
                moved_at = now
                self._wake_reached(seen[0], everybody=seen[1:] != before[1:])
            if now - moved_at > timing.stall_s:
                raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S)
            has_failed = seen[1] is FileState.FAILED
            if now - max(moved_at, looked_up_at) > timing.refresh_s or (has_failed and not known_failed):
                looked_up_at = now
                await self._look_up_record()
            known_failed = has_failed
        self._wake_all(None)

    async def _look_up_record(self) -> None:
        target = self._target
        with suppress(NotReady, Overloaded, TimeoutError):  # the database is away: the file may go on all the same
            async with asyncio.timeout(self._timing.key_answer_s):
                now = await self._backend.refresh_target(target)
            if now.generation != target.generation:
                raise FetchedAnew
            if now.block_hashes and self._look()[1] in {FileState.GROWING, FileState.FAILED}:
                raise FinishedElsewhere(now)

    def _wake_reached(self, frontier: int, *, everybody: bool) -> None:
        for waiter, offset in list(self._waiters.items()):
            if everybody or offset < frontier:
                _wake(waiter, None)

    def _wake_all(self, error: Exception | None) -> None:
        for waiter in list(self._waiters):
            _wake(waiter, error)


def _wake(waiter: _Waiter, error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
