"""Files made ready for bytes that come back from Telegram: one thread for each file, however many streams wait."""

from __future__ import annotations

import asyncio

from apps.core.errors import Overloaded
from apps.streaming.errors import disk_full
from apps.streaming.hotstore import HotFile, HotStore, HotStoreFull, WriterBusy
from apps.streaming.ports import StreamTarget

BUSY_RETRY_S = 2.0


class SparseFiles:
    """Belongs to one event loop.

    Not ``SharedLooks``: there, who asks while a look is under way waits for another one after it, because what was so
    before is no answer. A file that is being made ready is good for whoever asks meanwhile: it is not hashed again.
    """

    def __init__(self, store: HotStore) -> None:
        self._store = store
        self._making: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def open(self, target: StreamTarget) -> HotFile | None:
        """The file, made empty and sparse when it is not there; None when it was removed in the same moment.

        A doubtful file is hashed again first, which can take seconds: in a thread, once for all who ask meanwhile; a
        failure is shared as well, and not remembered. It goes on when who began it has gone. Raises Overloaded.
        """
        refusal: Overloaded | None = None
        try:
            await asyncio.shield(self._making_of(target))
        except HotStoreFull:
            refusal = disk_full()
        except WriterBusy:
            refusal = Overloaded(retry_after_s=BUSY_RETRY_S)
        if (
            refusal is not None
        ):  # not raised where the other was caught: that one knows files, and would be kept with it
            raise refusal
        return self._store.open(target.asset_id, target.generation)

    def _making_of(self, target: StreamTarget) -> asyncio.Task[None]:
        name = target.asset_id, target.generation
        making = self._making.get(name)
        if making is None:
            making = self._making[name] = asyncio.create_task(self._make(target), name="sparse-file")
        return making

    async def _make(self, target: StreamTarget) -> None:
        try:
            hot_file = await asyncio.to_thread(
                self._store.open_sparse,
                target.asset_id,
                target.generation,
                size_bytes=target.size_bytes or 0,
                block_hashes=target.block_hashes,
            )
            hot_file.close()
        finally:
            del self._making[target.asset_id, target.generation]
