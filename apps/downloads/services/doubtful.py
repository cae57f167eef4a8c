"""Looks at what an earlier boot left on the disk, beside the requests that need to know: hashing takes seconds."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import structlog

from apps.core.wake import publish
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.services.hot_bytes import is_in_doubt, look_again

MAX_LOOKS = 200  # under way or waiting, in this process
COUNTS_FOR_S = 60.0

log = structlog.get_logger(__name__)
_lock = threading.Lock()
_looks: dict[str, Future[float]] = {}


def has_been_looked_at(store: HotStore, asset: Asset) -> bool:
    """Whether it is known what is here of the file. If not, one look of this process is begun, or under way: its end is
    published as the asset's topic. While MAX_LOOKS wait the answer is no, and nothing more is begun."""
    with _lock:
        look = _looks.get(asset.id)
        if look is not None:
            if not look.done():
                return False
            del _looks[asset.id]
            if look.exception() is not None or look.result() > time.monotonic() - COUNTS_FOR_S:
                return True  # what it could not settle is not looked at again for those who waited
        if not is_in_doubt(store, asset):
            return True
        if len(_looks) >= MAX_LOOKS:
            for asset_id in [name for name, look in _looks.items() if look.done()]:
                del _looks[asset_id]  # nobody came back for it
        if len(_looks) < MAX_LOOKS:
            _looks[asset.id] = _thread().submit(_look, store, asset)
        return False


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="look-again")  # one disk, one look at a time


def _look(store: HotStore, asset: Asset) -> float:
    """When it was over."""
    try:
        look_again(store, asset)
    except OSError as error:
        log.warning("a file of an earlier boot cannot be read", asset_id=asset.id, error=str(error))
    finally:
        publish(f"asset:{asset.id}")
    return time.monotonic()
