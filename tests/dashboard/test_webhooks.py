"""A key's webhook in the admin."""

from __future__ import annotations

import json

import pytest

from apps.core.documents import AuditEntry
from apps.downloads.documents import WebhookDelivery, WebhookState
from apps.keys.documents import ApiKey
from apps.keys.services import create_key
from apps.keys.webhooks import set_webhook
from tests.downloads.test_webhooks import Receiver


@pytest.fixture
def receiver():
    with Receiver() as server:
        yield server


@pytest.fixture
def prefix(server) -> str:
    return create_key(name="Music bot").document.prefix


class TestAddress:
    def test_is_set_its_secret_shown_once_and_noted_without_it(self, operator, prefix, receiver):
        answer = operator.post(f"/admin/webhooks/{prefix}/set", {"url": f"{receiver.url}/hook"})
        assert b"whsec_" in answer.content
        secret = answer.content.split(b"whsec_")[1][:20]
        page = operator.get(f"/admin/webhooks/{prefix}")
        assert f"{receiver.url}/hook".encode() in page.content
        assert secret not in page.content
        (entry,) = AuditEntry.objects(action="webhook set")
        assert (entry.actor, entry.target_id, entry.address) == ("the-operator", prefix, "127.0.0.1")
        assert secret.decode() not in str(entry.to_mongo())
        assert b"is told when jobs end" in operator.get(f"/admin/keys/{prefix}").content

    @pytest.mark.parametrize("url", ["http://example.com/x", "https://10.0.0.1/x", "ftp://x", "javascript:alert(1)"])
    def test_that_is_not_public_https_is_explained_and_not_kept(self, operator, prefix, url):
        answer = operator.post(f"/admin/webhooks/{prefix}/set", {"url": url})
        assert (answer.status_code, b"public https" in answer.content) == (422, True)
        assert ApiKey.objects.get(prefix=prefix).webhook_url == ""

    @pytest.mark.parametrize("host", ["256.256.256.256", "0x7f.1", "1.2.3", "017700000001"])
    def test_a_host_of_odd_numbers_is_explained_beside_the_field_and_not_kept(self, operator, prefix, host):
        answer = operator.post(f"/admin/webhooks/{prefix}/set", {"url": f"https://{host}/x"})
        text = answer.content.decode()
        assert answer.status_code == 422
        assert "four numbers up to 255" in text[text.index('id="id_url_error"') :]
        assert f"https://{host}/x" in text
        assert ApiKey.objects.get(prefix=prefix).webhook_url == ""

    def test_is_removed_after_a_question(self, operator, prefix, receiver):
        set_webhook(prefix, receiver.url, actor="test")
        assert b"nothing more?" in operator.get(f"/admin/webhooks/{prefix}/remove").content
        operator.post(f"/admin/webhooks/{prefix}/remove")
        assert ApiKey.objects.get(prefix=prefix).webhook_url == ""


class TestSending:
    def test_a_test_is_signed_and_its_outcome_said(self, operator, prefix, receiver):
        set_webhook(prefix, receiver.url, actor="test")
        answer = operator.post(f"/admin/webhooks/{prefix}/test", follow=True)
        assert b"The test was taken." in answer.content
        [(headers, body)] = receiver.got
        assert json.loads(body)["event"] == "test"
        assert headers["X-Webhook-Signature"].startswith("t=")
        receiver.status = 500
        answer = operator.post(f"/admin/webhooks/{prefix}/test", follow=True)
        assert b"answered with HTTP 500" in answer.content
        assert AuditEntry.objects(action="webhook.test").count() == 2

    def test_without_an_address_it_says_so(self, operator, prefix):
        answer = operator.post(f"/admin/webhooks/{prefix}/test", follow=True)
        assert b"the key has no webhook" in answer.content

    def test_what_was_given_up_is_sent_again(self, operator, viewer, prefix):
        WebhookDelivery(
            id=f"jobjob:{prefix}", job_id="jobjob", key_prefix=prefix, state=WebhookState.GIVEN_UP.value, attempts=6,
            last_error="answered with HTTP 500",
        ).save()  # fmt: skip
        address = f"/admin/webhooks/{prefix}/again/jobjob"
        assert b"answered with HTTP 500" in viewer.get(f"/admin/webhooks/{prefix}").content
        assert address.encode() in operator.get(f"/admin/webhooks/{prefix}").content
        operator.post(address)
        delivery = WebhookDelivery.objects.get()
        assert (delivery.state, delivery.attempts) == (WebhookState.PENDING, 0)
        assert b"still being tried" in operator.post(address, follow=True).content

    def test_an_unknown_key_is_a_plain_404(self, viewer):
        assert viewer.get("/admin/webhooks/zzzzzzzz").status_code == 404
