"""The headers of a stream. Nothing that came from outside gets into them unchecked."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from urllib.parse import quote

MAX_NAME_BYTES = 180  # UTF-8; file systems take 255, and the escaped form is three times as long
MAX_EXTENSION_BYTES = 16
FALLBACK_NAME = "file"
DEFAULT_MIME = "application/octet-stream"

RawHeaders = list[tuple[bytes, bytes]]

_DIRECTION_MARKS = "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # would let "exe.3pm" look like "mp3.exe"
_NOT_IN_NAMES = re.compile(rf'[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029{_DIRECTION_MARKS}/\\:*?"<>|]+')
_NOT_IN_FALLBACK = re.compile(r"[^A-Za-z0-9 ._()+,=@#&!~-]+")
_MIME = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}(?:; ?[a-z]+=[A-Za-z0-9.\"_-]{1,64})?", re.ASCII
)
_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,128}"', re.ASCII)
_ATTR_CHARS = "!#$&+-.^_`|~"  # RFC 8187: what filename* carries without escaping, beside letters and digits


def safe_file_name(title: str) -> str:
    """``title`` as a file name for people: any script, without what breaks headers, shells or file systems."""
    name = " ".join(_NOT_IN_NAMES.sub(" ", unicodedata.normalize("NFC", title)).split()).strip(". ")
    if not name:
        return FALLBACK_NAME
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > MAX_EXTENSION_BYTES:
        return _cut(name, MAX_NAME_BYTES) or FALLBACK_NAME
    ending = f"{dot}{extension}"
    return f"{_cut(stem, MAX_NAME_BYTES - len(ending.encode())) or FALLBACK_NAME}{ending}"


def _cut(text: str, max_bytes: int) -> str:
    """At most so many bytes of UTF-8, never in the middle of a character."""
    return text.encode()[:max_bytes].decode(errors="ignore").rstrip()


@lru_cache(maxsize=1024)
def content_disposition(title: str, *, attachment: bool) -> str:
    """RFC 6266: an ASCII name for old clients, and the real one as RFC 8187 has it where they differ."""
    name = safe_file_name(title)
    kind = "attachment" if attachment else "inline"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    fallback = " ".join(_NOT_IN_FALLBACK.sub("_", plain).split()).strip(" ")
    if not fallback.strip("._ ") or fallback.startswith("."):
        fallback = f"{FALLBACK_NAME}{fallback if fallback.startswith('.') else ''}"
    if fallback == name:
        return f'{kind}; filename="{fallback}"'
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"


def stream_headers(*, mime: str, etag: str, title: str, attachment: bool, request_id: str) -> RawHeaders:
    """What 200, 206 and 304 have in common. Says nothing about other origins: that is for who runs the server."""
    headers = [
        (b"content-type", (mime if _MIME.fullmatch(mime) else DEFAULT_MIME).encode()),
        (b"content-disposition", content_disposition(title, attachment=attachment).encode("ascii")),
        (b"cache-control", b"private, no-cache"),  # keep it, but ask each time: keys can be revoked
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode("latin-1")),
    ]
    if _ETAG.fullmatch(etag):
        headers.append((b"etag", etag.encode()))
    return headers
