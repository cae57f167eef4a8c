"""Takes the record of what is in Telegram to another installation and back, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import BinaryIO, Protocol

from pydantic import ValidationError
from pymongo.errors import DuplicateKeyError

from apps.core.errors import InvalidParameter
from apps.telegram_cache.documents import Asset, AssetState, PartState
from apps.telegram_cache.manifests import FORMAT, MAX_LINE_BYTES, VERSION, AssetManifest, Header, manifest_of
from apps.telegram_cache.selectors import find_asset, iterate_assets
from apps.telegram_cache.services.upload_records import note_message_id

_REPLACEABLE = [AssetState.ABSENT.value, AssetState.FAILED.value]


class ImportOutcome(StrEnum):
    ADDED = "added"
    KNOWN = "known"  # the same bytes are on record; file_ids that were new have been added
    KEPT = "kept"  # this installation has, or is fetching, its own copy: that stays
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of one line."""

    line: int
    outcome: ImportOutcome
    text: str = ""


class Writable(Protocol):
    """Where an export goes."""

    def write(self, text: str, /) -> object: ...


def export_assets(out: Writable) -> Iterator[int]:
    """Write every asset that is in Telegram in full, with flat memory; yields how many there are so far."""
    out.write(json.dumps({"format": FORMAT, "version": VERSION}) + "\n")
    count = 0
    for asset in iterate_assets(state=AssetState.CACHED.value):
        if asset.is_in_telegram and asset.sha256:
            out.write(json.dumps(manifest_of(asset)) + "\n")
            count += 1
            yield count


def import_assets(source: BinaryIO) -> Iterator[Imported]:
    """Read an export line by line; a wrong line changes nothing and does not stop the others. Idempotent.

    Nothing is asked of Telegram: the blocks are verified as they are read, as always. Raises InvalidParameter for a
    file that is no export.
    """
    for number, line in enumerate(_lines(source), start=1):
        if number == 1:
            _check_header(line)
            continue
        if line is None:
            yield Imported(line=number, outcome=ImportOutcome.WRONG, text="the line is too long")
            continue
        try:
            manifest = AssetManifest.model_validate_json(line)
        except ValidationError as error:
            yield Imported(line=number, outcome=ImportOutcome.WRONG, text=_first_problem(error))
            continue
        yield Imported(line=number, outcome=_take(manifest))


def _lines(source: BinaryIO) -> Iterator[bytes | None]:
    """Lines without empty ones; None for one above MAX_LINE_BYTES, the rest of which is skipped."""
    while line := source.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := source.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                continue
            yield None
        elif line.strip():
            yield line


def _check_header(line: bytes | None) -> None:
    try:
        Header.model_validate_json(line or b"")
    except ValidationError:
        raise InvalidParameter("This is not an export of `cache export`, or one of another version.") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _take(manifest: AssetManifest) -> ImportOutcome:
    """One conditional write: an asset that somebody fetches or has here meanwhile stays as it is."""
    now = datetime.now(UTC)
    key = manifest.key
    fields = manifest.model_dump(exclude={"parts", "block_sha256"})
    fields |= {
        "block_sha256": manifest.packed_hashes,
        "parts": [
            {"index": index, "state": PartState.STORED.value, **part.model_dump()}
            for index, part in enumerate(manifest.parts)
        ],
        "parts_generation": manifest.generation,
        "words": Asset.words_of(fields),
        "state": AssetState.CACHED.value,
        "updated_at": now,
    }
    gone = dict.fromkeys(("error_code", "error_message", "retry_at", "lease_owner", "lease_until"), "")
    update = {
        "$set": {name: value for name, value in fields.items() if value is not None},
        "$unset": gone,
        "$setOnInsert": {"access_count": 0, "created_at": now, "attempt": 0},
    }
    replaceable = {
        "_id": key.asset_id, "state": {"$in": _REPLACEABLE}, "generation": {"$lte": manifest.generation},
    }  # fmt: skip
    try:
        Asset._get_collection().update_one(replaceable, update, upsert=True)
    except DuplicateKeyError:
        return _merge(manifest)
    for channel_id in {part.channel_id for part in manifest.parts}:
        newest = max(part.message_id for part in manifest.parts if part.channel_id == channel_id)
        note_message_id(channel_id, newest)
    return ImportOutcome.ADDED


def _merge(manifest: AssetManifest) -> ImportOutcome:
    """The asset is on record: take over file_ids of bots that it lacks, if it is the very same messages."""
    asset = find_asset(manifest.key.asset_id)
    if asset is None or asset.state != AssetState.CACHED or asset.sha256 != manifest.sha256:
        return ImportOutcome.KEPT
    ours = {(part.channel_id, part.message_id, part.file_unique_id): part for part in asset.parts}
    theirs = {(part.channel_id, part.message_id, part.file_unique_id): part for part in manifest.parts}
    if ours.keys() != theirs.keys():
        return ImportOutcome.KEPT
    for name, part in theirs.items():
        for bot_id in part.file_ids.keys() - ours[name].file_ids.keys():
            Asset._get_collection().update_one(
                {"_id": asset.id, "parts": {"$elemMatch": {"message_id": part.message_id, "channel_id": name[0]}}},
                {"$set": {f"parts.$.file_ids.{bot_id}": part.file_ids[bot_id]}},
            )
    return ImportOutcome.KNOWN
