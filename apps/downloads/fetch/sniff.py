"""What the first bytes of a file say, before any of them is shown to anybody."""

from __future__ import annotations

from apps.downloads.fetch.outcomes import NotMedia

HEAD_BYTES = 4 * 1024  # enough to tell the container
INDEX_BYTES = 64 * 1024  # enough to find where an MP4 has its index
_BOX_HEADER = 8
_MAX_BOXES = 64
_MP4_FAMILY = frozenset({"mp4", "m4a", "mov", "m4v"})
_EBML_FAMILY = frozenset({"webm", "mkv", "opus", "weba"})


def sniff_family(head: bytes) -> str | None:
    """The kind of container: mp4, webm, ogg, mp3, or None when it is none of those."""
    if len(head) >= _BOX_HEADER and head[4:8] in {b"ftyp", b"styp", b"moov"}:
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(b"ID3") or _is_mpeg_audio_frame(head):
        return "mp3"
    return None


def check_head(head: bytes, *, container: str | None) -> None:
    """Raises NotMedia unless the bytes begin like media, of ``container`` if that is given."""
    family = sniff_family(head)
    if family is None:
        raise NotMedia
    if container is None:
        return
    expected = {"mp4"} if container in _MP4_FAMILY else {"webm", "ogg"} if container in _EBML_FAMILY else {container}
    if family not in expected:
        raise NotMedia(f"The outside source gave a {family} file where {container} was asked for.")


def is_streamable_mp4(head: bytes) -> bool:
    """Whether this is an MP4 that players can read from the start: its index (moov) comes before the data (mdat).

    A fragmented one (moov holds mvex) does not count: it has no index of the whole file.
    """
    at = 0
    for _ in range(_MAX_BOXES):
        if len(head) < at + _BOX_HEADER:
            return False
        size, name = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + 8]
        if name == b"moov":
            return b"mvex" not in head[at : at + size]
        if name in {b"mdat", b"moof"} or size < _BOX_HEADER:
            return False
        at += size
    return False


def _is_mpeg_audio_frame(head: bytes) -> bool:
    """A layer III frame header: sync, and no reserved version, bit rate or sample rate."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    return head[1] & 0x18 != 0x08 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C
