"""Encrypting every stored secret anew after FIELD_KEYS changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from mongoengine import Document

from apps.core.encrypted import Path, encrypted_paths, find_values
from apps.core.indexes import documents
from apps.core.secrets import SecretUnreadable, is_current, reencrypt_secret

BATCH = 200


@dataclass(kw_only=True)
class Rotation:
    """What a run did. ``unreadable`` names fields that no key in FIELD_KEYS opens: ``collection/id/field``."""

    changed: int = 0
    current: int = 0
    unreadable: list[str] = field(default_factory=list)


def rotate_field_keys() -> Rotation:
    """Encrypt every EncryptedField of every collection with the first of FIELD_KEYS.

    Idempotent, and safe while the server runs: each value is one conditional update, so that a value somebody writes
    meanwhile is never overwritten (it is encrypted with the first key already). A run that was stopped is repeated;
    what it did is skipped.
    """
    rotation = Rotation()
    for document in documents():
        paths = encrypted_paths(document)
        if paths:
            _rotate_collection(document, paths, rotation)
    return rotation


def _rotate_collection(document: type[Document], paths: list[Path], rotation: Rotation) -> None:
    collection = document._get_collection()
    roots = {path[0]: True for path in paths}
    for stored in collection.find({}, roots).sort("_id").batch_size(BATCH):
        for path in paths:
            for dotted, text in find_values(stored, path):
                if is_current(text):
                    rotation.current += 1
                    continue
                try:
                    fresh = reencrypt_secret(text)
                except SecretUnreadable:
                    rotation.unreadable.append(f"{collection.name}/{stored['_id']}/{dotted}")
                    continue
                done = collection.update_one({"_id": stored["_id"], dotted: text}, {"$set": {dotted: fresh}})
                rotation.changed += done.modified_count
