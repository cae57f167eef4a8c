"""The hot store: media files on local disk that can be read while they are still arriving.

An asset of one generation is a data file and beside it a small map: a header (size, state, frontier, boot id) and one
byte per 1 MiB block. Whoever has bytes writes them in place and then sets the map. The map is shared memory between
processes. A block never changes once it is set, and a file is never truncated, only unlinked.
"""

from apps.streaming.hotstore.layout import (
    BLOCK_BYTES,
    FileState,
    HotEntry,
    HotFileRemoved,
    HotStoreFull,
    HotUsage,
    WriterBusy,
    WrongBlock,
    disk_full_reported,
)
from apps.streaming.hotstore.reading import HotFile
from apps.streaming.hotstore.store import HotStore
from apps.streaming.hotstore.writing import HotWriter

__all__ = [
    "BLOCK_BYTES",
    "FileState",
    "HotEntry",
    "HotFile",
    "HotFileRemoved",
    "HotStore",
    "HotStoreFull",
    "HotUsage",
    "HotWriter",
    "WriterBusy",
    "WrongBlock",
    "disk_full_reported",
]
