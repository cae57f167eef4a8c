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


@cache
def _first_fernet() -> Fernet:
    return Fernet(settings.ENV.field_keys[0])


def encrypt_secret(plain: str) -> str:
    """Encrypt with the first of FIELD_KEYS."""
    return _fernet().encrypt(plain.encode()).decode()


def decrypt_secret(encrypted: str) -> str:
    """Decrypt with whichever of FIELD_KEYS fits. Raises SecretUnreadable."""
    try:
        return _fernet().decrypt(encrypted.encode()).decode()
    except InvalidToken:
        raise SecretUnreadable("no key in FIELD_KEYS fits") from None


def is_current(encrypted: str) -> bool:
    """Whether the first of FIELD_KEYS encrypted this."""
    try:
        _first_fernet().decrypt(encrypted.encode())
    except InvalidToken:
        return False
    return True


def reencrypt_secret(encrypted: str) -> str:
    """The same secret, encrypted with the first of FIELD_KEYS. Raises SecretUnreadable."""
    return encrypt_secret(decrypt_secret(encrypted))


def forget_keys() -> None:
    """Read FIELD_KEYS anew at the next use, in this process (tests change them)."""
    _fernet.cache_clear()
    _first_fernet.cache_clear()
