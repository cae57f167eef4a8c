"""Finding documents by the beginnings of words: normalized words in the document, one index over them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, ClassVar

from mongoengine.fields import ListField, StringField
from pymongo import UpdateOne

from apps.core.stored import StoredDocument

MAX_WORDS = 40
MAX_WORD_LENGTH = 40
MAX_ASKED_WORDS = 6
FILL_BATCH = 1000
_WORD = re.compile(r"[^\W_]+")


def search_words(*texts: str | None) -> list[str]:
    """The words of the texts as they are stored and asked for: without case and accents, each once, in order.

    At most MAX_WORDS, each cut at MAX_WORD_LENGTH characters.
    """
    joined = " ".join(text for text in texts if text)
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", joined) if not unicodedata.combining(letter))
    found = (word[:MAX_WORD_LENGTH] for word in _WORD.findall(plain.casefold()))
    return list(dict.fromkeys(found))[:MAX_WORDS]


def words_where(query: str) -> list[dict[str, Any]]:
    """The MongoDB conditions, one for each word of ``query``, for documents in which each begins some word. Each uses
    the index on words.

    A query without any letter or digit fits nothing.
    """
    asked = search_words(query)[:MAX_ASKED_WORDS]
    return [{"words": {"$regex": f"^{re.escape(word)}"}} for word in asked] or [{"words": {"$in": []}}]


class SearchedDocument(StoredDocument):
    """A document that lists of the admin find by the words of its ``searched_fields``.

    ``save`` keeps ``words`` right by itself. An update that changes a searched field without ``save`` sets ``words``
    too, to what ``words_of`` gives. Each such document has an index that begins with ``words``.
    """

    searched_fields: ClassVar[tuple[str, ...]] = ()
    words = ListField(StringField())

    meta = {"abstract": True}

    def clean(self) -> None:
        self.words = self.words_of({name: getattr(self, name) for name in self.searched_fields})

    @classmethod
    def words_of(cls, values: dict[str, Any]) -> list[str]:
        """The words of a document whose searched fields have these values."""
        return search_words(*(str(values.get(name) or "") for name in cls.searched_fields))


def fill_words(document: type[SearchedDocument]) -> int:
    """Give words to documents that an older version wrote; return how many. Idempotent, in batches."""
    collection = document._get_collection()
    filled = 0
    fields = dict.fromkeys(document.searched_fields, 1)
    while found := list(collection.find({"words": None}, fields).limit(FILL_BATCH)):
        collection.bulk_write(
            [UpdateOne({"_id": row["_id"]}, {"$set": {"words": document.words_of(row)}}) for row in found],
            ordered=False,
        )
        filled += len(found)
    return filled
