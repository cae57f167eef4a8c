"""Keeps mapped file pages from piling up in the process's resident memory.

Pages that were sent stay mapped until somebody says otherwise, so reading a 2 GB file would make the process look 2 GB
large. After every few megabytes handed out, the mappings in use are told to let go of their pages. Nothing is lost:
the pages stay in the kernel's cache, and a slice that still needs one gets it back by a minor fault.
"""

from __future__ import annotations

import mmap
import threading

BUDGET_BYTES = 16 * 1024 * 1024


class Residency:
    """Counts bytes handed out by all mappings of a store."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._lock = threading.RLock()  # garbage collection may call ``forget`` in the middle of ``note``
        self._handed_out = 0
        self._touched: set[mmap.mmap] = set()

    def note(self, mapping: mmap.mmap, size_bytes: int) -> None:
        """``size_bytes`` of ``mapping`` are about to be read by somebody."""
        with self._lock:
            self._touched.add(mapping)
            self._handed_out += size_bytes
            if self._handed_out < self._budget_bytes:
                return
            touched, self._touched, self._handed_out = self._touched, set(), 0
        for each in touched:
            each.madvise(mmap.MADV_DONTNEED)

    def forget(self, mapping: mmap.mmap) -> None:
        """Nobody will read through it any more."""
        with self._lock:
            self._touched.discard(mapping)
