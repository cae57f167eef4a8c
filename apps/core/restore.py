"""Putting a backup back: into collections beside the real ones first, which then take their places."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import mongoengine
from mongoengine import Document
from mongoengine.context_managers import switch_collection
from mongoengine.errors import NotUniqueError
from pymongo.errors import BulkWriteError, DuplicateKeyError

from apps.core.backup import BATCH, BackupBroken, Contents, check_backup, read_backup
from apps.core.encrypted import encrypted_paths, find_values
from apps.core.errors import Conflict
from apps.core.indexes import documents, ensure_indexes
from apps.core.secrets import SecretUnreadable, decrypt_secret

ASIDE = "restore_"
"""What the names of the collections begin with until everything is in them."""


def restore_backup(path: Path, *, replace: bool = False) -> Contents:
    """Put a backup back, in place of what the same collections hold.

    The file is checked as a whole first, then everything is loaded beside the real collections, with their indexes;
    only then each takes its place, which is one atomic rename. Whatever fails before that changes nothing. Everybody
    has to log in again (``User.as_restored``). Raises
    InvalidParameter for a broken file, and Conflict for a database that holds something, unless ``replace``.
    """
    contents = check_backup(path)
    kinds: dict[str, Any] = {str(document._get_collection_name()): document for document in documents()}
    if not replace and (full := [name for name in contents.counts if _count(name)]):
        raise Conflict(f"The database is not empty ({', '.join(full)}). Say --replace to put the backup in its place.")
    database = mongoengine.get_db()
    try:
        for name in contents.counts:
            database[ASIDE + name].drop()
            _make_indexes(kinds[name], ASIDE + name)
        for name, found in groupby(read_backup(path), key=itemgetter(0)):
            for batch in _batches(kinds[name].as_restored(document) for _, document in found):
                database[ASIDE + name].insert_many(batch, ordered=True)
        for name, count in contents.counts.items():
            if database[ASIDE + name].count_documents({}) != count:
                raise BackupBroken(f"{path} changed while it was read.")
        for name in contents.counts:
            database[ASIDE + name].rename(name, dropTarget=True)
    except (DuplicateKeyError, BulkWriteError, NotUniqueError):
        raise BackupBroken(f"{path} has documents that cannot stand beside each other.") from None
    finally:
        for name in contents.counts:
            database[ASIDE + name].drop()
    ensure_indexes()
    return contents


def count_unreadable_secrets() -> int:
    """How many stored secrets no key in FIELD_KEYS opens: not 0 after a restore with other keys."""
    unreadable = 0
    for document in documents():
        if paths := encrypted_paths(document):
            for stored in document._get_collection().find({}, {path[0]: True for path in paths}):
                for path in paths:
                    unreadable += sum(not _is_readable(text) for _, text in find_values(stored, path))
    return unreadable


def _is_readable(text: str) -> bool:
    try:
        decrypt_secret(text)
    except SecretUnreadable:
        return False
    return True


def _count(name: str) -> int:
    return int(mongoengine.get_db()[name].count_documents({}, limit=1))


def _make_indexes(document: type[Document], name: str) -> None:
    mongoengine.get_db().create_collection(name)
    with switch_collection(document, name) as aside:
        aside.ensure_indexes()


def _batches(found: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(found, BATCH)):
        yield batch
