import mmap
import threading

from apps.streaming.hotstore.residency import Residency


class TestResidency:
    def test_a_file_collected_in_the_middle_of_a_note_does_not_lock_it_for_ever(self) -> None:
        """The collector may run at any allocation, in the thread that holds the lock, and end a shared file there."""
        residency = Residency()
        mapping, other = mmap.mmap(-1, mmap.PAGESIZE), mmap.mmap(-1, mmap.PAGESIZE)

        class Collected(set[mmap.mmap]):
            def add(self, item: mmap.mmap) -> None:
                residency.forget(other)
                super().add(item)

        residency._touched = Collected()
        thread = threading.Thread(target=residency.note, args=(mapping, 1), daemon=True)
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive()
