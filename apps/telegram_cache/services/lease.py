"""Keeps an upload's lease (and the slots it is using) alive while threads work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import redis
import structlog
from pymongo.errors import PyMongoError

from apps.telegram_cache.services.pool import Slot
from apps.telegram_cache.services.upload_records import renew_upload

log = structlog.get_logger(__name__)
RENEW_EVERY_S = 15.0


class LeaseLost(Exception):
    """Somebody else uploads this asset now; what we still do must not count."""


class LeaseKeeper:
    """Renews in a thread of its own from ``with`` to its end. ``check`` raises LeaseLost once the lease is gone."""

    def __init__(self, asset_id: str, *, owner: str) -> None:
        self.asset_id = asset_id
        self.owner = owner
        self._slots: set[Slot] = set()
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"upload-lease-{asset_id}", daemon=True)

    @contextmanager
    def using(self, slot: Slot) -> Iterator[None]:
        """Keep this slot too while the block runs."""
        self._slots.add(slot)
        try:
            yield
        finally:
            self._slots.discard(slot)

    @property
    def is_sending(self) -> bool:
        """Whether any slot is in use."""
        return bool(self._slots)

    def check(self) -> None:
        if self._lost.is_set():
            raise LeaseLost

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the lease is ours. Raises LeaseLost."""
        self._lost.wait(seconds)
        self.check()

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_EVERY_S):
            try:
                if not renew_upload(self.asset_id, owner=self.owner):
                    self._lost.set()
                    return
                for slot in tuple(self._slots):
                    slot.renew()
            except (PyMongoError, redis.RedisError) as error:
                # the lease may run out; what we send after that is fenced by its attempt id
                log.warning("upload_lease_not_renewed", asset_id=self.asset_id, error=type(error).__name__)
