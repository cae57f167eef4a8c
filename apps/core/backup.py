"""Everything durable in MongoDB as one file: gzipped lines of JSON, checked by a sum at the end.

Secrets stay as they are stored: encrypted fields encrypted (FIELD_KEYS is not in the file), keys and passwords as
hashes. Only the owner of the file may read it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import mongoengine
from bson import json_util
from pymongo.errors import OperationFailure

from apps.core.clock import utcnow
from apps.core.errors import Conflict, InvalidParameter
from apps.core.indexes import documents

FORMAT = "ytserver-backup"
VERSION = 1
CACHES = frozenset({"video_info", "lookups", "media_tickets"})
"""What is asked of the outside again when it is missing: not worth keeping."""
USAGE = frozenset({"usage_stats", "usage_rollups", "concurrent_users"})
MAX_LINE_BYTES = 64 * 1024 * 1024  # a document has at most 16 MiB, and JSON is longer
BATCH = 500
READ_TIMEOUT_MS = 30 * 60 * 1000


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a backup holds. ``counts``: documents by collection."""

    created_at: str
    counts: dict[str, int]


class BackupBroken(InvalidParameter):
    """The file is no whole backup. Nothing was changed."""


def write_backup(path: Path, *, with_usage: bool = True, overwrite: bool = False) -> Contents:
    """Write a backup of one moment (a snapshot, though the server goes on). The file appears whole or not at all.

    Raises Conflict when the file is there already, InvalidParameter when it cannot be written.
    """
    if path.exists() and not overwrite:
        raise Conflict(f"{path} is there already. Name another file, or say --overwrite.")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be written: {error.strerror}.") from None
    try:
        with os.fdopen(handle, "wb") as raw:
            contents = _write(raw, with_usage=with_usage)
            raw.flush()
            os.fsync(raw.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return contents


def backed_up_collections(*, with_usage: bool = True) -> list[str]:
    """The collections that a backup has: all but caches, so that a new one is in it by itself."""
    left_out = CACHES | (frozenset() if with_usage else USAGE)
    return [name for document in documents() if (name := str(document._get_collection_name())) not in left_out]


def _write(raw: IO[bytes], *, with_usage: bool) -> Contents:
    names = backed_up_collections(with_usage=with_usage)
    created_at, counts, digest = utcnow().isoformat(), dict.fromkeys(names, 0), hashlib.sha256()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:

        def put(value: Any) -> None:
            line = json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS).encode() + b"\n"
            digest.update(line)
            file.write(line)

        put({"format": FORMAT, "version": VERSION, "created_at": created_at, "collections": names})
        for name, document in _everything(names):
            put([name, document])
            counts[name] += 1
        file.write(json.dumps({"counts": counts, "sha256": digest.hexdigest()}).encode() + b"\n")
    return Contents(created_at=created_at, counts=counts)


def _everything(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    database = mongoengine.get_db()
    with database.client.start_session(snapshot=True) as session:
        try:
            for name in names:
                found = database[name].find({}, session=session, batch_size=BATCH).max_time_ms(READ_TIMEOUT_MS)
                for document in found.sort("_id"):
                    yield name, document
        except OperationFailure as error:
            if error.code not in {239, 246}:  # SnapshotTooOld, SnapshotUnavailable
                raise
            raise Conflict(
                "MongoDB did not keep the moment long enough. Leave the usage out: --without-usage."
            ) from None


def read_backup(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents, in order. Raises BackupBroken in the middle: call ``check_backup`` first."""
    for line in _lines(path):
        value = _parsed(line)
        if isinstance(value, list) and len(value) == 2:
            yield value[0], value[1]


def check_backup(path: Path) -> Contents:
    """Read the whole file once and compare it with its sums. Raises BackupBroken, and InvalidParameter without it."""
    digest, counts, header, end = hashlib.sha256(), {}, None, None
    known = {str(document._get_collection_name()) for document in documents()}
    for line in _lines(path):
        value = _parsed(line)
        if end is not None:
            raise BackupBroken(f"{path} goes on after its end.")
        if header is None:
            header = _header(path, value)
            counts = dict.fromkeys(header["collections"], 0)
        elif isinstance(value, dict) and "sha256" in value:
            end = value
            continue
        elif isinstance(value, list) and len(value) == 2 and value[0] in counts and isinstance(value[1], dict):
            counts[value[0]] += 1
        else:
            raise BackupBroken(f"{path} has a line that is no document.")
        digest.update(line)
    if header is None or end is None or end.get("sha256") != digest.hexdigest() or end.get("counts") != counts:
        raise BackupBroken(f"{path} is cut short or was changed.")
    if unknown := set(counts) - known:
        raise BackupBroken(f"{path} is of a newer version: it has {', '.join(sorted(unknown))}.")
    return Contents(created_at=str(header["created_at"]), counts=counts)


def _header(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("collections"), list):
        raise BackupBroken(f"{path} is no backup of ytserver.")
    if value.get("version") != VERSION:
        raise BackupBroken(f"{path} is of another version ({value.get('version')}); this one reads {VERSION}.")
    return value


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    raise BackupBroken(f"{path} is cut short.")
                yield line
    except (gzip.BadGzipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InvalidParameter(f"{path} cannot be read: {error.strerror}.") from None
        raise BackupBroken(f"{path} is damaged or no backup.") from None


def _parsed(line: bytes) -> Any:
    try:
        return json_util.loads(line.decode(), json_options=json_util.CANONICAL_JSON_OPTIONS)
    except (ValueError, TypeError, RecursionError):
        raise BackupBroken("The backup has a line that is no JSON.") from None
