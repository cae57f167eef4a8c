"""A circuit breaker: a source that keeps failing is left alone for a while, then tried by one caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FAILURES_TO_OPEN = 5
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
TRIAL_LASTS_S = 60.0  # a trial whose caller never reported back stops counting after this


class CircuitBreaker:
    """State of one source in this process. Thread-safe.

    Closed: everybody may try. After five failures in a row it opens: nobody may for 5 s, then one trial at a time;
    each failed trial doubles the pause (up to 5 minutes), a success closes it again.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until: float | None = None
        self._trial_until = 0.0

    def may_try(self, *, even_during_pause: bool = False) -> bool:
        """Whether to try now; when it is open, True takes the one trial. Report the outcome in any case.

        ``even_during_pause``: there is nothing else to try, so a trial need not wait for the pause to end.
        """
        with self._lock:
            if self._open_until is None:
                return True
            now = self._clock()
            if now < self._trial_until or (now < self._open_until and not even_during_pause):
                return False
            self._trial_until = now + TRIAL_LASTS_S
            return True

    def record_success(self) -> None:
        with self._lock:
            self._failures_in_a_row = 0
            self._pause_s = FIRST_PAUSE_S
            self._open_until = None
            self._trial_until = 0.0

    def record_failure(self) -> None:
        """Of calls that were under way when it opened, the failures change nothing any more."""
        with self._lock:
            self._failures_in_a_row += 1
            is_trial, self._trial_until = self._trial_until > 0, 0.0
            if self._open_until is not None and not is_trial:
                return
            if is_trial:
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            if self._failures_in_a_row >= FAILURES_TO_OPEN:
                self._open_until = self._clock() + self._pause_s

    @property
    def is_open(self) -> bool:
        with self._lock:
            return self._open_until is not None

    @property
    def pause_left_s(self) -> float:
        """Seconds until the next trial; 0 when everybody may try."""
        with self._lock:
            return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())
