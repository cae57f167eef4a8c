"""Fills MongoDB for ``bench.growth``: assets, keys, jobs and metadata, written in bulk, indexes last."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from mongoengine import Document
from pymongo import MongoClient, WriteConcern

from bench.copies import indexes_of
from bench.made_assets import make_assets

MANY_KEYS = 100_000
NAMED_KEYS = 25
"""So many keys, the first ones, have the word "named" in their name, however many there are."""
BATCH = 5000
AUDIO = "growthaudi1"
"""The one video with a file."""
MADE_UP = re.compile("^g[0-9]+$")
"""The names of all that is made up here. What a key or a video is called otherwise may begin with g and a digit too."""
_now = datetime.now(UTC)


def video_id(number: int) -> str:
    return f"g{number:010}"


def key_prefix(number: int) -> str:
    return f"g{number:07}"


def beyond(assets: int, keys: int) -> dict[str, dict[str, Any]]:
    """What finds, by collection, all that was made up beyond so many."""
    from apps.downloads.documents import MediaJob, VideoInfoRecord
    from apps.keys.documents import ApiKey
    from apps.telegram_cache.documents import Asset

    fields = {
        Asset: ("video_id", video_id(assets)),
        ApiKey: ("prefix", key_prefix(keys)),
        MediaJob: ("video_id", video_id(keys)),
        VideoInfoRecord: ("_id", video_id(keys)),
    }
    return {
        document._get_collection_name(): {field: {"$gte": first, "$regex": MADE_UP}}
        for document, (field, first) in fields.items()
    }


def fill(assets: int, keys: int, *, once: Callable[[str, Callable[[], Any]], Any]) -> float:
    """Store so many; return how many seconds it took. ``once`` runs what has not been done yet."""
    from apps.downloads.documents import MediaJob, VideoInfoRecord
    from apps.keys.documents import ApiKey
    from apps.telegram_cache.documents import Asset

    works: dict[str, Callable[[], float]] = {
        f"{assets} assets": lambda: _fill(Asset, "video_id", assets, make_assets),
        f"{keys} keys": lambda: _fill(ApiKey, "prefix", keys, _make(ApiKey, _keys())),
        f"{keys} jobs": lambda: _fill(MediaJob, "video_id", keys, _make(MediaJob, _job)),
        f"{keys} videos": lambda: _fill(VideoInfoRecord, "_id", keys, _make(VideoInfoRecord, _videos())),
    }
    return sum(once(name, work) for name, work in works.items())


def _fill(document: type[Document], field: str, count: int, make: Callable[[int], None]) -> float:
    """Written into an empty collection, and all indexes made at once when everything is there: a tenth of the time."""
    began_at = time.monotonic()
    collection = document._get_collection()
    others, indexes = list(collection.find({field: {"$not": MADE_UP}})), indexes_of(collection)
    collection.drop()
    if others:
        collection.insert_many(others)
    make(count)
    patient: MongoClient[dict[str, Any]]
    with MongoClient(os.environ["MONGO_URI"]) as patient:  # the program's own stops waiting
        patient.get_default_database().command("createIndexes", collection.name, indexes=indexes)
    document.ensure_indexes()  # those that a run which was stopped had not made again
    return time.monotonic() - began_at


def _make(document: type[Document], one: Callable[[int], dict[str, Any]]) -> Callable[[int], None]:
    def make(count: int) -> None:
        collection = document._get_collection().with_options(write_concern=WriteConcern(w=1))
        for start in range(0, count, BATCH):
            rows = [one(number) for number in range(start, min(start + BATCH, count))]
            collection.insert_many(rows, ordered=False)

    return make


def _keys() -> Callable[[int], dict[str, Any]]:
    from apps.keys.documents import ApiKey

    pattern = _one(ApiKey, {"name": "bench"})

    def key(number: int) -> dict[str, Any]:
        words = [f"key{number}", "named" if number < NAMED_KEYS else "other"]
        return {**pattern, "prefix": key_prefix(number), "name": " ".join(words), "words": words}

    return key


def _videos() -> Callable[[int], dict[str, Any]]:
    from apps.downloads.documents import VideoInfoRecord

    pattern = _one(VideoInfoRecord, {"_id": AUDIO})

    def video(number: int) -> dict[str, Any]:
        return {**pattern, "_id": video_id(number), "info": {**pattern["info"], "video_id": video_id(number)}}

    return video


def _one(document: type[Document], query: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] | None = document._get_collection().find_one(query)
    if found is None:
        raise RuntimeError("there is no pattern to copy")
    del found["_id"]
    return found


def _job(number: int) -> dict[str, Any]:
    at = _now - timedelta(seconds=number)
    return {
        "_id": f"growth{number:010}", "asset_id": f"growth{number:018}", "video_id": video_id(number), "kind": "audio",
        "variant": "m4a", "state": "done", "active": False, "stage": "done", "key_prefix": key_prefix(number),
        "asked_by": [key_prefix(number)], "created_at": at, "started_at": at, "finished_at": at, "updated_at": at,
        "announced": True,
    }  # fmt: skip
