"""How long a stream waits for what, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """Upper bounds and intervals of the stream application, in seconds."""

    stall_s: float = 60.0  # no new byte for so long: the source is given up
    first_byte_s: float = 300.0  # a fetch that moves, but has not reached the asked-for range
    client_stall_s: float = 900.0  # a client that takes nothing; players that pause longer come back with a Range
    poll_s: float = 0.01  # looking at a growing file
    refresh_s: float = 1.0  # looking at the record while a growing file does not move
    key_check_s: float = 0.25  # looking at a key while its streams run
    key_answer_s: float = 5.0
