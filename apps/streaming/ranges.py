"""Which bytes a request asks for: Range and If-Range (RFC 9110, sections 13 and 14), If-Match and If-None-Match."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DIGITS = 19  # more cannot matter: no file has that many bytes
MAX_HEADER_CHARACTERS = 1000
_ONE_RANGE = re.compile(r"(?P<first>[0-9]*)-(?P<last>[0-9]*)", re.ASCII)
_ENTITY_TAG = re.compile(r'(?:W/)?(?P<opaque>"[^"]*")')


class Unsatisfiable(Exception):
    """The range lies wholly outside the file: 416 with ``Content-Range: bytes */size``."""


@dataclass(frozen=True)
class ByteRange:
    """The bytes [start, stop) of a file, never empty."""

    start: int
    stop: int

    def content_range(self, size_bytes: int) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{size_bytes}"


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The one range asked for, cut to the file. Raises Unsatisfiable.

    None stands for the whole file: without a header, for another unit, for nonsense, and for several ranges at once
    (RFC 9110, 14.2 lets a server ignore those).
    """
    if not header or len(header) > MAX_HEADER_CHARACTERS:
        return None
    unit, equals, ranges = header.partition("=")
    wanted = [text for each in ranges.split(",") if (text := each.strip(" \t"))]
    if unit.strip(" \t").lower() != "bytes" or not equals or len(wanted) != 1:
        return None
    match = _ONE_RANGE.fullmatch(wanted[0])
    if match is None or wanted[0] == "-":
        return None
    return _cut(match["first"], match["last"], size_bytes)


def _cut(first_digits: str, last_digits: str, size_bytes: int) -> ByteRange | None:
    if not first_digits:
        start, stop = max(0, size_bytes - _bounded(last_digits)), size_bytes
    else:
        start = _bounded(first_digits)
        if last_digits and _bounded(last_digits) < start:
            return None
        stop = min(size_bytes, _bounded(last_digits) + 1) if last_digits else size_bytes
    if start >= stop:
        raise Unsatisfiable
    return ByteRange(start, stop)


def _bounded(digits: str) -> int:
    """Huge numbers are all the same to us; turning millions of digits into an int would take time."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether Range is to be obeyed: no If-Range, or exactly our strong ETag.

    A date never matches, because no Last-Modified is sent; a weak tag never does by RFC 9110, 13.1.5.
    """
    return if_range is None or if_range.strip(" \t") == etag


def is_unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has these bytes already (304): ``*`` or our tag in the list, compared weakly."""
    if if_none_match is None:
        return False
    if if_none_match.strip(" \t") == "*":
        return True
    return any(match["opaque"] == etag for match in _ENTITY_TAG.finditer(if_none_match))


def is_as_named(if_match: str | None, etag: str) -> bool:
    """Whether these are bytes that the client takes (else 412): no If-Match, ``*``, or our tag in the list, compared
    strongly. If-Unmodified-Since never counts, because no Last-Modified is sent (RFC 9110, 13.1.4).
    """
    if if_match is None or if_match.strip(" \t") == "*":
        return True
    return any(match[0] == etag for match in _ENTITY_TAG.finditer(if_match))
