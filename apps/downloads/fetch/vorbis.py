"""A cover for Ogg files: they hold it as a comment (METADATA_BLOCK_PICTURE), in the form of FLAC's picture block.

https://wiki.xiph.org/VorbisComment (Cover art) and RFC 9639, section 8.8.
"""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path

FRONT_COVER = 3
BITS_A_PIXEL = 24
MIME = b"image/jpeg"
_SPECIAL = re.compile(r"[=;#\\]")


def ffmetadata_text(text: str) -> str:
    """A key's value as ffmpeg reads it from an ffmetadata file."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def picture_comment(picture: bytes) -> str:
    """The comment's value for a JPEG. Its size is left out (0): readers take it from the picture."""
    head = struct.pack(">II", FRONT_COVER, len(MIME)) + MIME
    facts = struct.pack(">IIIIII", 0, 0, 0, BITS_A_PIXEL, 0, len(picture))  # no description; no palette
    return base64.b64encode(head + facts + picture).decode()


def write_cover_tags(picture: Path, path: Path) -> None:
    """An ffmetadata file with the cover. (As an option it would be too long for a command line.)"""
    comment = ffmetadata_text(picture_comment(picture.read_bytes()))
    path.write_text(f";FFMETADATA1\nMETADATA_BLOCK_PICTURE={comment}\n", encoding="ascii")
