"""A short memory of asset records, so that a player's many Range requests do not each ask MongoDB."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Self

from apps.core.errors import ApiError, error_from_code
from apps.downloads.services.media import hot_store
from apps.downloads.stream_remains import Remains, etag_of
from apps.telegram_cache.documents import FINISHED_STATES, Asset, AssetKey, AssetState
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services.generations import is_left_in_part
from apps.telegram_cache.services.hot_bytes import can_be_read

MAX_RECORDS = 256
LOCKS = 32


@dataclass(frozen=True, kw_only=True)
class AssetRecord:
    """What a stream needs of an asset document."""

    key: AssetKey
    state: AssetState
    generation: int
    title: str
    container: str
    mime: str
    size_bytes: int | None
    duration_s: float | None
    block_hashes: tuple[bytes, ...]
    is_in_telegram: bool  # with what the hot file has, if a stored part is bad
    is_left_in_part: bool  # some parts are bad and cannot be had anew now; the others can be read
    remains: Remains | None  # ranges that can be read while the rest is fetched anew
    failure: ApiError | None

    @classmethod
    def of(cls, asset: Asset) -> Self:
        failed = asset.state == AssetState.FAILED
        return cls(
            key=asset.key,
            state=AssetState(asset.state),
            generation=asset.generation,
            title=asset.title,
            container=asset.container,
            mime=asset.mime,
            size_bytes=asset.size_bytes,
            duration_s=asset.duration_s,
            block_hashes=tuple(asset.block_hashes),
            is_in_telegram=can_be_read(hot_store(), asset),
            is_left_in_part=is_left_in_part(asset),
            remains=Remains.of(asset),
            failure=error_from_code(asset.error_code or "", asset.error_message or "") if failed else None,
        )

    @property
    def etag(self) -> str:
        return etag_of(self.key.asset_id, self.generation)

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED_STATES


class RecordCache:
    """The newest records by asset id. Thread-safe; simultaneous questions about one asset are one read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[str, tuple[float, AssetRecord | None]] = OrderedDict()
        self._reading = [threading.Lock() for _ in range(LOCKS)]

    def get(self, asset_id: str, *, not_before: float) -> AssetRecord | None:
        """The record as MongoDB had it at ``not_before`` (``time.monotonic()``) or later."""
        known = self._newest(asset_id)
        if known is None or known[0] < not_before:
            with self._reading[hash(asset_id) % LOCKS]:
                known = self._newest(asset_id)
                if known is None or known[0] < not_before:
                    known = self._read(asset_id)
        return known[1]

    def by_heart(self, asset_id: str, *, not_before: float) -> AssetRecord | None:
        """The same from memory alone. Needs no lock."""
        known = self._records.get(asset_id)
        return known[1] if known is not None and known[0] >= not_before else None

    def _newest(self, asset_id: str) -> tuple[float, AssetRecord | None] | None:
        with self._lock:
            return self._records.get(asset_id)

    def _read(self, asset_id: str) -> tuple[float, AssetRecord | None]:
        read_at = time.monotonic()
        asset = find_asset(asset_id)
        known = (read_at, AssetRecord.of(asset) if asset else None)
        with self._lock:
            self._records[asset_id] = known
            self._records.move_to_end(asset_id)
            if len(self._records) > MAX_RECORDS:
                self._records.popitem(last=False)
        return known
