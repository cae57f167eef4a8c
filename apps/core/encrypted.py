"""Fields for secrets in documents, and what finds every one of them when FIELD_KEYS change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mongoengine import Document, EmbeddedDocument
from mongoengine.fields import BaseField, EmbeddedDocumentField, ListField, MapField, StringField

FERNET_TOKEN = re.compile(r"gAAAA[A-Za-z0-9_-]{60,}={0,2}")  # "gAAAA" is Fernet's version byte and a time before 2106
EACH = "[]"
"""In a path: every item of a list or map."""

Path = tuple[str, ...]


class EncryptedField(StringField):
    """The text that ``encrypt_secret`` gave, or nothing. Refuses plain text, so that no secret is stored readable.

    Every secret that must be read back lies in such a field: that is how ``rotate_field_keys`` finds it. The field
    never decrypts by itself, so that no page, log line or traceback shows what it holds.
    """

    def validate(self, value: Any) -> None:
        super().validate(value)
        if value and not FERNET_TOKEN.fullmatch(value):
            self.error("must be encrypted (apps.core.secrets.encrypt_secret)")

    def prepare_query_value(self, op: str | None, value: Any) -> Any:
        """Also guards updates, which do not validate by themselves."""
        if value is not None:
            self.validate(value)
        return super().prepare_query_value(op, value)


def encrypted_paths(document: type[Document | EmbeddedDocument]) -> list[Path]:
    """Where a document holds encrypted text, by names in the database; inside lists and maps too."""
    return sorted(_paths(document, ()))


def _paths(document: Any, before: Path) -> Iterator[Path]:
    for field in document._fields.values():
        yield from _paths_of_field(field, (*before, field.db_field))


def _paths_of_field(field: BaseField, path: Path) -> Iterator[Path]:
    if isinstance(field, EncryptedField):
        yield path
    elif isinstance(field, EmbeddedDocumentField):
        yield from _paths(field.document_type, path)
    elif isinstance(field, ListField | MapField) and field.field is not None:
        yield from _paths_of_field(field.field, (*path, EACH))


def find_values(stored: Any, path: Path, dotted: str = "") -> Iterator[tuple[str, str]]:
    """Each encrypted text in a stored document below ``path``: its address in MongoDB's dots, and the text."""
    if not path:
        if isinstance(stored, str) and stored:
            yield dotted.lstrip("."), stored
        return
    name, rest = path[0], path[1:]
    if name == EACH:
        items = stored.items() if isinstance(stored, dict) else enumerate(stored or ())
        for key, item in items:
            yield from find_values(item, rest, f"{dotted}.{key}")
    elif isinstance(stored, dict):
        yield from find_values(stored.get(name), rest, f"{dotted}.{name}")
