"""One shared download of one stretch of blocks: who waits for it, and when it ends because nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from apps.streaming.hotstore import HotFile
from apps.streaming.ports import StreamTarget
from apps.telegram_cache.documents import BLOCK_BYTES
from apps.telegram_cache.stretches import Stretch

GRACE_S = 1.0  # a player that seeks closes one request and opens the next
LINGER_S = 20.0  # the reader is busy sending what it has


class Flight:
    """A running download, shared by everybody in this process who needs its blocks. One event loop only."""

    def __init__(
        self,
        target: StreamTarget,
        hot_file: HotFile,
        stretch: Stretch,
        *,
        bring: Callable[[Flight], Coroutine[Any, Any, None]],
        wanted_block: int | None,
    ) -> None:
        self.target = target
        self.hot_file = hot_file.share()
        self.stretch = stretch
        self.wanted_block = wanted_block  # the first one asked for; None: only read ahead
        self.followers: list[Flight] = []
        self._leader_runs: Callable[[], bool] = lambda: False
        self._waiters = 0
        self._progress = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.task = self._loop.create_task(bring(self), name=f"telegram-part-{target.asset_id}-{stretch.part.index}")
        self.task.add_done_callback(self._on_done)
        if wanted_block is None:
            self._look_again(LINGER_S)

    @property
    def is_running(self) -> bool:
        return not self.task.done() and not self.task.cancelling()

    @property
    def has_waiters(self) -> bool:
        """From any thread. Who begins to wait after this has looked sees every block that was set before it looked."""
        return self._waiters > 0

    def follow(self, leader: Flight) -> None:
        """Read ahead for ``leader``'s readers: as long as it runs, this one is wanted too."""
        leader.followers.append(self)
        self._leader_runs = lambda: leader.is_running

    def covers(self, block: int) -> bool:
        return self.stretch.first_block <= block < self.stretch.stop_block

    def missing(self) -> list[int]:
        """Blocks of the stretch that are not in the hot file yet."""
        blocks = range(self.stretch.first_block, self.stretch.stop_block)
        return [block for block in blocks if not self.hot_file.has_block(block)]

    def block_sizes(self) -> list[int]:
        """Bytes of each block of the stretch: 1 MiB, but for the asset's last one."""
        whole = self.target.size_bytes or 0
        blocks = range(self.stretch.first_block, self.stretch.stop_block)
        return [min(BLOCK_BYTES, whole - block * BLOCK_BYTES) for block in blocks]

    def progressed(self) -> None:
        """Wake everybody who waits, to look at the map again."""
        self._progress.set()
        self._progress = asyncio.Event()

    async def wait_for(self, hot_file: HotFile, block: int) -> bool:
        """Whether ``block`` is in ``hot_file``; False when the download ended without it. Raises what ended it."""
        self._waiters += 1
        grace_s = GRACE_S
        try:
            while not hot_file.has_block(block):
                if self.task.done():
                    if not self.task.cancelled():
                        self.task.result()
                    return hot_file.has_block(block)
                await self._progress.wait()
            grace_s = LINGER_S
            return True
        finally:
            self._waiters -= 1
            if not self._waiters and self.is_running:
                self._look_again(grace_s)

    def _look_again(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(after_s, self._end_if_unwanted)

    def _end_if_unwanted(self) -> None:
        if self._waiters or self.task.done():
            return
        if self._leader_runs():
            self._look_again(LINGER_S)
            return
        self.cancel()

    def cancel(self) -> None:
        """End it, and what was read ahead for it, unless somebody waits there."""
        self.task.cancel()
        for follower in self.followers:
            if not follower._waiters:
                follower.task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not task.cancelled():
            task.exception()  # whoever waits gets it; without waiters it is nobody's
        self.progressed()
        self.hot_file.close()
