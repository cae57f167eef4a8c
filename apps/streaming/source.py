"""Where a stream's bytes come from: the hot file, its growing end, or blocks that are brought back one by one."""

from __future__ import annotations

import asyncio

from apps.core.errors import STILL_COMING_RETRY_S, UpstreamError, UpstreamTimeout
from apps.streaming.errors import disk_full
from apps.streaming.following import FinishedElsewhere, Followers
from apps.streaming.hotstore import BLOCK_BYTES, FileState, HotFile, HotStore, HotStoreFull
from apps.streaming.ports import FetchedAnew, StreamBackend, StreamTarget
from apps.streaming.sparse import SparseFiles
from apps.streaming.timing import StreamTiming

REOPEN_ATTEMPTS = 3
UNFINISHED = frozenset({FileState.GROWING, FileState.FAILED})
TIERS = {FileState.FINAL: "hot", FileState.SPARSE: "telegram"}


class Source:
    """One stream's view of one asset. Use ``Source.open``; ``close`` it in any case."""

    def __init__(
        self,
        *,
        backend: StreamBackend,
        store: HotStore,
        sparse: SparseFiles,
        followers: Followers,
        timing: StreamTiming,
        target: StreamTarget,
    ) -> None:
        self._backend = backend
        self._store = store
        self._sparse = sparse
        self._followers = followers
        self._timing = timing
        self._hot_file_or_none: HotFile | None = None
        self.target = target

    @property
    def _hot_file(self) -> HotFile:
        if self._hot_file_or_none is None:
            raise ValueError("this source is not open")
        return self._hot_file_or_none

    @property
    def size_bytes(self) -> int | None:
        return self._hot_file.size_bytes or self.target.size_bytes

    @property
    def is_final(self) -> bool:
        return self._hot_file.state not in UNFINISHED

    @property
    def tier(self) -> str:
        """Where the bytes come from, as the API's ``source`` says it: hot, telegram or external."""
        return TIERS.get(self._hot_file.state, "external")

    def close(self) -> None:
        if self._hot_file_or_none is not None:
            self._hot_file_or_none.close()

    async def open(self) -> None:
        """Open the hot file; wait for it when the fetch has not made it yet. Raises ApiError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timing.stall_s
        refresh_at = loop.time() + self._timing.refresh_s
        while True:
            hot_file = self._store.open(self.target.asset_id, self.target.generation)
            if self.target.block_hashes and (hot_file is None or hot_file.state in UNFINISHED):
                hot_file = await self._sparse.open(self.target)
            if hot_file is not None:
                self.close()
                self._hot_file_or_none = hot_file
                return
            if loop.time() > deadline:
                raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S)
            await asyncio.sleep(self._timing.poll_s)
            if loop.time() > refresh_at:
                refresh_at = loop.time() + self._timing.refresh_s
                self._use(await self._backend.refresh_target(self.target))

    def _use(self, target: StreamTarget) -> None:
        if target.generation != self.target.generation:
            raise FetchedAnew
        self.target = target

    def available_from(self, offset: int) -> int:
        return self._hot_file.available_from(offset)

    def view(self, start: int, stop: int) -> memoryview:
        return self._hot_file.view(start, stop)

    async def wait_for(self, offset: int) -> None:
        """Until a byte at ``offset`` can be read, or the file has ended before it. Raises ApiError.

        Waits as long as the source makes progress.
        """
        for _ in range(REOPEN_ATTEMPTS):
            while not self.available_from(offset):
                size = self._hot_file.size_bytes
                if self.is_final and size is not None and offset >= size:
                    return
                if self.is_final:
                    await self._fill(offset)
                    break
                try:
                    await self._followers.wait_for(self.target, self._hot_file, offset)
                except FinishedElsewhere as finished:
                    self._use(finished.target)
                    break
            if self.available_from(offset):
                return
            # Ours is not the store's file any more: it was removed and made anew, or finished in another file.
            if not self.target.block_hashes:
                self._use(await self._backend.refresh_target(self.target))
            await self.open()
        raise UpstreamError

    async def _fill(self, offset: int) -> None:
        try:
            async with asyncio.timeout(self._timing.stall_s):
                await self._backend.filler.fill(self.target, self._hot_file, offset // BLOCK_BYTES)
        except TimeoutError:
            raise UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S) from None
        except HotStoreFull:
            raise disk_full() from None
