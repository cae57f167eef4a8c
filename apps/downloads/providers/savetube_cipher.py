"""The envelope of SaveTube's info answers: base64 of an IV and AES-128-CBC text, all of it hostile input."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from apps.core.errors import UpstreamError

BLOCK_BYTES = 16
MAX_DATA_CHARS = 4 * 1024 * 1024


def decrypt_info(data: object, key: bytes) -> dict[str, Any]:
    """The JSON object inside ``data``. Raises UpstreamError for whatever is wrong with it, and nothing else.

    ``key`` is 16 bytes. White space in the base64 is ignored; everything else must be exactly as it should be.
    """
    if not isinstance(data, str) or len(data) > MAX_DATA_CHARS:
        raise UpstreamError
    try:
        sealed = base64.b64decode("".join(data.split()).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise UpstreamError from None
    if len(sealed) < 2 * BLOCK_BYTES or len(sealed) % BLOCK_BYTES:
        raise UpstreamError
    decryptor = Cipher(algorithms.AES(key), modes.CBC(sealed[:BLOCK_BYTES])).decryptor()
    padded = decryptor.update(sealed[BLOCK_BYTES:]) + decryptor.finalize()
    unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
    try:
        opened = json.loads(unpadder.update(padded) + unpadder.finalize())
    except (ValueError, RecursionError):  # bad padding, bad UTF-8, bad or endlessly nested JSON
        raise UpstreamError from None
    if not isinstance(opened, dict):
        raise UpstreamError
    return opened
