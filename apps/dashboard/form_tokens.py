"""Forms whose answer is shown once, such as a new key: sent again (a reload, a double click) it does nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from django import forms
from django.core.cache import cache

from apps.core.errors import ApiError

FORM_TOKEN_S = 3600


class FormTokenField(forms.RegexField):
    """A hidden name for one form that was shown."""

    def __init__(self) -> None:
        super().__init__(r"^[0-9a-f]{32}$", widget=forms.HiddenInput, initial=lambda: secrets.token_hex(16))


@contextmanager
def sent_once(token: str) -> Iterator[bool]:
    """Whether the form comes for the first time within an hour. After an ApiError it may be sent again."""
    key = f"form:{token}"
    is_first = cache.add(key, 1, FORM_TOKEN_S)
    try:
        yield is_first
    except ApiError:
        if is_first:
            cache.delete(key)  # to be put right and sent again
        raise
