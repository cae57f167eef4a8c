"""What the stream application needs from above, and what the hot store offers. No Telegram and no provider in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from apps.core.errors import Conflict, UpstreamError

if TYPE_CHECKING:
    from apps.streaming.hotstore import HotFile


class BytesGone(UpstreamError):
    """What the target stands for is damaged or gone for good. Before the first byte, a renewed target may have it."""


class FetchedAnew(Conflict):
    """The asset has another generation by now. Before the first byte, a renewed target has it."""

    default_message = "The file was fetched anew. Start again."


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """A request for bytes, before anybody has looked at it. Header names are lower case."""

    kind: str  # "video" or "audio"
    video_id: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client_address: str
    method: str


class StreamMeter(Protocol):
    """Counts one stream and its bytes against the limits of its key. ``open`` and ``close`` may be repeated."""

    async def open(self) -> None:
        """Count the stream. Raises TooManyStreams or QuotaExceeded."""
        ...

    def take(self, wanted: int) -> int:
        """How many of ``wanted`` bytes may leave now; 0: ``refill`` first. Never waits."""
        ...

    def put_back(self, unsent_bytes: int) -> None:
        """Of what ``take`` gave, so much did not leave and will not. Never waits."""
        ...

    async def refill(self) -> None:
        """Make ``take`` give at least one byte. Raises QuotaExceeded."""
        ...

    def check_size(self, size_bytes: int) -> None:
        """Raises FileTooLarge when the key may not have a file of (at least) this size. Never waits."""
        ...

    def close(self) -> None:
        """The stream is over. Never waits."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamTarget:
    """What to send. ``size_bytes`` is None while nobody knows it yet (then no Range can be answered: 200 only)."""

    asset_id: str
    generation: int
    size_bytes: int | None
    mime: str
    file_name: str  # the title with its extension, as people should see it
    attachment: bool  # Content-Disposition: attachment rather than inline
    block_hashes: tuple[bytes, ...]  # the record; empty while the asset is being fetched
    etag: str  # strong, with quotes
    key_prefix: str
    opened_from: str = ""  # the address that used the key itself; a link may be opened from anywhere
    link_expires_at: float | None = None  # UNIX seconds
    headers: tuple[tuple[str, str], ...] = ()  # sent along with every answer, such as where the key's limit stands
    meter: StreamMeter | None = None


class BlockFiller(Protocol):
    """Brings missing blocks of a finished asset into its hot file (from Telegram)."""

    async def fill(self, target: StreamTarget, hot_file: HotFile, block: int) -> None:
        """Return once ``block`` is present in ``hot_file`` (later blocks may go on arriving in the background).

        Single flight per part in this process and between processes. Cancelling the last waiter of a part stops
        its download. Raises an ApiError when the bytes cannot be had (BytesGone: for good); a wrong block is never set.
        """
        ...


class StreamBackend(Protocol):
    """Decides who may have what. Each method may raise any ApiError, which becomes the error JSON."""

    filler: BlockFiller

    async def open_target(self, request: StreamRequest) -> StreamTarget:
        """Check key or signed link, find the asset (starting its fetch if need be), wait until bytes can flow.

        "Can flow" means: finished (hot or in Telegram), or being fetched in a form that is streamed as it arrives.
        """
        ...

    async def refresh_target(self, target: StreamTarget) -> StreamTarget:
        """The target as the record has it now: after the fetch is done it has size and block hashes.

        Raises the fetch's error when it failed.
        """
        ...

    async def renew_target(self, target: StreamTarget) -> StreamTarget:
        """The target once its bytes can flow again, after BytesGone or FetchedAnew: most likely a new generation.

        Starts or joins the fetch of what is lost, and waits for it as ``open_target`` does. Nothing is charged.
        """
        ...

    async def still_allowed(self, target: StreamTarget) -> bool:
        """Whether the key of this stream is still good. Asked about once a second for each running stream's key."""
        ...

    def is_let_in(self, target: StreamTarget) -> bool:
        """Whether the key may still be used from where this stream was opened. Asked of each stream of the key right
        after ``still_allowed``, by what that learned. Never waits."""
        ...
