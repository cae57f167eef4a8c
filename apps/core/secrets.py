"""Secrets at rest: bot tokens and cookies are encrypted before they reach MongoDB."""

from __future__ import annotations

from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class SecretUnreadable(Exception):
    """A stored secret was encrypted with a key that is no longer in FIELD_KEYS."""


@cache
def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.ENV.field_keys])


def encrypt_secret(plain: str) -> str:
    """Encrypt with the first of FIELD_KEYS."""
    return _fernet().encrypt(plain.encode()).decode()


def decrypt_secret(encrypted: str) -> str:
    """Decrypt with whichever of FIELD_KEYS fits. Raises SecretUnreadable."""
    try:
        return _fernet().decrypt(encrypted.encode()).decode()
    except InvalidToken:
        raise SecretUnreadable("no key in FIELD_KEYS fits") from None
