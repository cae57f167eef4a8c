"""Every stored secret is in an EncryptedField, and all of them are encrypted anew when FIELD_KEYS change."""

from __future__ import annotations

import json
import re
from io import StringIO

import mongoengine
import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.management import CommandError, call_command
from mongoengine.errors import ValidationError
from mongoengine.fields import EmbeddedDocumentField, EmbeddedDocumentListField, ListField, MapField, StringField

from apps.core import field_keys
from apps.core.encrypted import EncryptedField, encrypted_paths, find_values
from apps.core.field_keys import rotate_field_keys
from apps.core.indexes import documents
from apps.core.secrets import decrypt_secret, encrypt_secret, forget_keys, is_current
from apps.core.stored import StoredDocument, StoredPart
from apps.keys.documents import ApiKey
from apps.keys.services import create_key
from apps.telegram_cache.documents import TelegramBot
from tests.dashboard.samples import make_bot

SOUNDS_SECRET = re.compile(r"secret|token|cookie|password|totp|proxy|recovery|encrypted")
HARMLESS = re.compile(r"_sha256$|_hash$|_hashes$|_step$|_at$|_count$|_for$")


class Inner(StoredPart):
    cookie_encrypted = EncryptedField()


class Vault(StoredDocument):
    """A document with secrets in every place where a field can be."""

    own = EncryptedField(db_field="o")
    one = EmbeddedDocumentField(Inner)
    many = EmbeddedDocumentListField(Inner)
    listed = ListField(EncryptedField())
    named = MapField(EncryptedField())

    meta = {"collection": "test_vault"}


@pytest.fixture
def use_keys(monkeypatch):
    """Run on as if the process had been started with these FIELD_KEYS."""

    def use(*keys: str) -> None:
        monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"field_keys": keys}))
        forget_keys()

    yield use
    monkeypatch.undo()
    forget_keys()


@pytest.fixture
def vault(mongo):
    yield Vault
    Vault.drop_collection()


def new_key() -> str:
    return Fernet.generate_key().decode()


class TestEncryptedField:
    def test_every_field_that_sounds_secret_is_one(self):
        for document in documents():
            for name, field in document._fields.items():
                inner = getattr(field, "field", None) or field
                if isinstance(inner, StringField) and SOUNDS_SECRET.search(name) and not HARMLESS.search(name):
                    assert isinstance(inner, EncryptedField), f"{document.__name__}.{name}"

    def test_refuses_plain_text_when_saved_and_when_updated(self, mongo):
        with pytest.raises(ValidationError):
            TelegramBot(bot_id="1", token_encrypted="1:plain").save()
        made = create_key(name="a").document
        with pytest.raises(ValidationError):
            ApiKey.objects(prefix=made.prefix).update_one(webhook_secret_encrypted="whsec_plain")
        ApiKey.objects(prefix=made.prefix).update_one(webhook_secret_encrypted="")
        assert ApiKey.objects(prefix=made.prefix).modify(set__webhook_secret_encrypted=encrypt_secret("a"))

    def test_is_found_in_every_place(self, vault):
        assert encrypted_paths(Vault) == [
            ("listed", "[]"), ("many", "[]", "cookie_encrypted"), ("named", "[]"), ("o",), ("one", "cookie_encrypted"),
        ]  # fmt: skip
        assert list(find_values({"a": [{}, {"b": "x"}], "c": None}, ("a", "[]", "b"))) == [("a.1.b", "x")]

    def test_the_ones_we_have_are_known(self):
        found = {document._get_collection_name() for document in documents() if encrypted_paths(document)}
        assert {"api_keys", "telegram_bots"} <= found


class TestRotation:
    def test_everything_is_readable_with_the_new_key_alone(self, vault, use_keys, monkeypatch):
        old, new = new_key(), new_key()
        use_keys(old)
        monkeypatch.setattr(field_keys, "documents", lambda: [TelegramBot, Vault, ApiKey])
        make_bot()
        texts = [encrypt_secret(f"secret {number}") for number in range(6)]
        Vault(
            own=texts[0], one=Inner(cookie_encrypted=texts[1]), listed=[texts[2], texts[3]], named={"a": texts[4]},
            many=[Inner(), Inner(cookie_encrypted=texts[5])],
        ).save()  # fmt: skip
        Vault().save()
        use_keys(new, old)
        rotation = rotate_field_keys()
        assert (rotation.changed, rotation.current, rotation.unreadable) == (7, 0, [])
        again = rotate_field_keys()
        assert (again.changed, again.current) == (0, 7)
        use_keys(new)
        stored = Vault.objects(own__ne=None).first()
        values = [
            stored.own,
            stored.one.cookie_encrypted,
            *stored.listed,
            stored.named["a"],
            stored.many[1].cookie_encrypted,
        ]
        assert [decrypt_secret(value) for value in values] == [f"secret {number}" for number in range(6)]
        assert decrypt_secret(TelegramBot.objects.first().token_encrypted).startswith("123456:")

    def test_goes_on_where_it_was_stopped(self, mongo, use_keys, monkeypatch):
        old, new = new_key(), new_key()
        use_keys(old)
        for number in range(5):
            make_bot(str(number + 1))
        use_keys(new, old)
        left = [2]

        def stops(text):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return encrypt_secret(decrypt_secret(text))

        monkeypatch.setattr(field_keys, "reencrypt_secret", stops)
        with pytest.raises(KeyboardInterrupt):
            rotate_field_keys()
        monkeypatch.undo()
        use_keys(new, old)
        rotation = rotate_field_keys()
        assert (rotation.changed, rotation.current) == (3, 2)

    def test_what_somebody_writes_meanwhile_stays(self, mongo, use_keys, monkeypatch):
        old, new = new_key(), new_key()
        use_keys(old)
        make_bot("7")
        use_keys(new, old)
        fresh = encrypt_secret("7:written meanwhile")

        def interfere(text):
            TelegramBot.objects(bot_id="7").update_one(token_encrypted=fresh)
            return encrypt_secret(decrypt_secret(text))

        monkeypatch.setattr(field_keys, "reencrypt_secret", interfere)
        assert rotate_field_keys().changed == 0
        assert TelegramBot.objects.first().token_encrypted == fresh

    def test_the_command_says_what_cannot_be_read_and_does_the_rest(self, mongo, use_keys):
        lost, old, new = new_key(), new_key(), new_key()
        use_keys(lost)
        make_bot("1")
        use_keys(old)
        make_bot("2")
        use_keys(new, old)
        out = StringIO()
        with pytest.raises(CommandError, match=r"telegram_bots/.*/token_encrypted"):
            call_command("rotate_field_keys", "--json", stdout=out)
        said = json.loads(out.getvalue())
        assert (said["changed"], len(said["unreadable"])) == (1, 1)
        assert is_current(TelegramBot.objects(bot_id="2").first().token_encrypted)
        assert mongoengine.get_db()["telegram_bots"].count_documents({}) == 2

    def test_the_command_makes_a_new_key_and_says_where_it_goes(self, mongo, use_keys):
        old = new_key()
        use_keys(old)
        make_bot("1")
        out = StringIO()
        call_command("rotate_field_keys", "--new", "--json", stdout=out)
        steps = json.loads(out.getvalue())
        new = steps["last"]
        assert (steps["first"], steps["then"]) == (f"{old},{new}", f"{new},{old}")
        assert is_current(TelegramBot.objects.get().token_encrypted)
        use_keys(*steps["then"].split(","))
        call_command("rotate_field_keys", stdout=StringIO())
        use_keys(new)
        assert decrypt_secret(TelegramBot.objects.get().token_encrypted)
