"""What a stream sends: from the record of an asset to the bytes that can flow for one request."""

from __future__ import annotations

import re
from dataclasses import replace

from apps.downloads.services.key_limits import check_media
from apps.downloads.services.media import hot_store
from apps.downloads.stream_admission import Admission
from apps.downloads.stream_records import AssetRecord
from apps.streaming.hotstore import FileState
from apps.streaming.links import SignedLink
from apps.streaming.ports import StreamTarget
from apps.streaming.ranges import is_as_named
from apps.telegram_cache.documents import AssetState

FILE_NAME_CHARACTERS = 120
_NOT_IN_FILE_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]+')


def target_of(record: AssetRecord, admission: Admission) -> StreamTarget | None:
    """The target if bytes can flow: the file is here, is in Telegram, or is arriving in its final form."""
    can_flow, size_bytes, here = False, record.size_bytes, 0
    if record.is_finished:
        is_left = record.is_left_in_part and not admission.is_renewal
        can_flow = record.is_in_telegram or is_left or hot_store().is_complete(record.key.asset_id, record.generation)
    elif record.state is AssetState.FETCHING:
        can_flow, size_bytes, here = growing_size(record)
    if can_flow:
        check_media(admission.key_prefix, duration_s=record.duration_s, size_bytes=size_bytes or here)
        return _make_target(record, admission, size_bytes=size_bytes)
    return None if admission.is_renewal else _target_of_remains(record, admission)


def _target_of_remains(record: AssetRecord, admission: Admission) -> StreamTarget | None:
    """For a range that what is stored still has, though other parts are bad and are fetched anew, or will be."""
    remains = record.remains
    if remains is None or not is_as_named(admission.if_match, remains.etag):
        return None
    if not remains.have(admission.range_header, admission.if_range):
        return None
    check_media(admission.key_prefix, duration_s=record.duration_s, size_bytes=remains.size_bytes)
    return replace(
        _make_target(record, admission, size_bytes=remains.size_bytes),
        generation=remains.generation,
        mime=remains.mime,
        block_hashes=remains.block_hashes,
        etag=remains.etag,
    )


def follows(target: StreamTarget, record: AssetRecord) -> bool:
    """Whether the target is what is being fetched, not what was stored before."""
    return target.generation == record.generation


def for_this_request(target: StreamTarget, admission: Admission) -> StreamTarget:
    """A target that another request of the same key found, with what belongs to this one."""
    return replace(
        target,
        attachment=admission.attachment,
        opened_from=admission.opened_from,
        link_expires_at=admission.link_expires_at,
        headers=admission.headers,
        meter=admission.meter,
    )


def growing_size(record: AssetRecord) -> tuple[bool, int | None, int]:
    """Whether a fetch is writing the asset in its final form, its size, if known by now, and what is here of it."""
    hot_file = hot_store().open(record.key.asset_id, record.generation)
    if hot_file is None:
        return False, None, 0
    try:
        can_flow = hot_file.state in (FileState.GROWING, FileState.FINAL)
        return can_flow, hot_file.size_bytes, hot_file.available_from(0)
    finally:
        hot_file.close()


def target_of_link(record: AssetRecord, link: SignedLink) -> StreamTarget:
    """What a link that was checked leads to, when all bytes are here: without meter and hashes (links are kept)."""
    return StreamTarget(
        asset_id=link.asset_id,
        generation=record.generation,
        size_bytes=record.size_bytes,
        mime=record.mime,
        file_name=file_name(record),
        attachment=link.attachment,
        block_hashes=(),
        etag=record.etag,
        key_prefix=link.key_prefix,
        link_expires_at=link.expires_at,
    )


def _make_target(record: AssetRecord, admission: Admission, *, size_bytes: int | None) -> StreamTarget:
    return StreamTarget(
        asset_id=record.key.asset_id,
        generation=record.generation,
        size_bytes=size_bytes,
        mime=record.mime,
        file_name=file_name(record),
        attachment=admission.attachment,
        block_hashes=record.block_hashes,
        etag=record.etag,
        key_prefix=admission.key_prefix,
        opened_from=admission.opened_from,
        link_expires_at=admission.link_expires_at,
        headers=admission.headers,
        meter=admission.meter,
    )


def file_name(record: AssetRecord) -> str:
    """The title as a file name: without what file systems or terminals trip over, with the right extension."""
    title = _NOT_IN_FILE_NAMES.sub(" ", record.title)
    title = " ".join(title.split())[:FILE_NAME_CHARACTERS].strip(". ")
    return f"{title or record.key.video_id}.{record.container or 'bin'}"
