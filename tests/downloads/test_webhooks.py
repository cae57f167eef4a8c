import asyncio
import hashlib
import hmac
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from io import StringIO

import pytest
from aiohttp import web
from django.conf import settings
from django.core.management import CommandError, call_command

from apps.core.clock import utcnow
from apps.core.documents import AuditEntry
from apps.core.errors import InvalidParameter, UpstreamError
from apps.downloads import tasks
from apps.downloads.documents import MediaJob, WebhookDelivery, WebhookState
from apps.downloads.services import batch_turns, jobs, webhooks
from apps.downloads.services.jobs import cancel_job, finish_job
from apps.downloads.services.webhook_records import announce_end
from apps.keys.documents import ApiKey
from apps.keys.services import create_key
from apps.keys.webhooks import set_webhook
from tests.downloads.library import VIDEO_ID, known_info
from tests.standins.server import StandIn
from tests.waiting import wait_until


class Receiver(StandIn):
    """Somebody's webhook receiver. ``status`` is what it answers with; after ``answer`` is set, /slow answers 500 and
    all below /late 200."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.answer = threading.Event()
        self.got: list[tuple[dict[str, str], bytes]] = []

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self.counts[f"{request.method} {request.path}"] += 1
        self.got.append((dict(request.headers), await request.read()))
        if request.path == "/slow":
            await asyncio.to_thread(self.answer.wait, 4)
            return web.Response(status=500)
        if request.path.startswith("/late/"):
            await asyncio.to_thread(self.answer.wait, 30)
            return web.Response()
        return web.Response(status=self.status, headers={"Location": f"{self.url}/elsewhere"})


@pytest.fixture
def receiver():
    with Receiver() as server:
        yield server
        server.answer.set()


@pytest.fixture
def secret(api, receiver) -> str:
    return set_webhook(api.prefix, f"{receiver.url}/hook", actor="test")


@pytest.fixture
def job_id(api, secret) -> str:
    known_info()
    return api.get("audio", url=VIDEO_ID).json()["job"]["id"]


def due_again() -> None:
    WebhookDelivery.objects.update(set__next_at=utcnow() - timedelta(seconds=1))


def test_the_end_of_a_job_is_told_once_and_signed(receiver, secret, job_id):
    finish_job(job_id)
    webhooks.deliver_due()
    webhooks.deliver_due()
    [(headers, body)] = receiver.got
    content = json.loads(body)
    assert (content["event"], content["job"]["id"], content["job"]["state"]) == ("job.done", job_id, "done")
    at, signature = (part.split("=")[1] for part in headers["X-Webhook-Signature"].split(","))
    assert signature == hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert WebhookDelivery.objects.get().state == WebhookState.DELIVERED


@pytest.mark.parametrize("told_in_part", [False, True])
def test_an_end_whose_process_died_right_after_it_is_told_by_the_next_round(
    receiver, job_id, told_in_part, monkeypatch
):
    def die(job):
        if told_in_part:
            announce_end(job)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "announce_end", die)
        with pytest.raises(SystemExit):
            finish_job(job_id)
    assert jobs.announce_missed() == 0  # it may just be about to
    MediaJob.objects.update(set__finished_at=utcnow() - timedelta(seconds=jobs.ANNOUNCED_AFTER_S))
    tasks.deliver_webhooks()
    tasks.deliver_webhooks()
    [(_, body)] = receiver.got
    assert json.loads(body)["delivery"] == WebhookDelivery.objects.get().id
    assert MediaJob.objects.get().announced is True


def test_failures_and_cancelling_by_others_are_told_too(receiver, job_id):
    finish_job(job_id, error=UpstreamError("It broke."))
    webhooks.deliver_due()
    assert json.loads(receiver.got[0][1])["job"]["failure"]["code"] == "upstream_error"


def test_who_cancels_is_not_told(api, receiver, job_id):
    cancel_job(job_id, key_prefix=api.prefix)
    assert WebhookDelivery.objects.count() == 0


def test_every_key_that_waits_is_told_and_only_those_with_a_webhook(api, other_api, receiver, job_id):
    other_api.get("audio", url=VIDEO_ID)
    cancel_job(job_id)
    assert [delivery.key_prefix for delivery in WebhookDelivery.objects] == [api.prefix]
    webhooks.deliver_due()
    assert json.loads(receiver.got[0][1])["event"] == "job.cancelled"


def test_a_failing_receiver_is_tried_again_later_and_given_up_in_the_end(receiver, job_id):
    receiver.status = 500
    finish_job(job_id)
    for attempt in range(1, len(webhooks.RETRY_AFTER_S) + 1):
        before = utcnow() - timedelta(milliseconds=1)  # MongoDB keeps whole milliseconds
        webhooks.deliver_due()
        delivery = WebhookDelivery.objects.get()
        wait = timedelta(seconds=webhooks.RETRY_AFTER_S[attempt - 1])
        assert (delivery.attempts, delivery.last_error) == (attempt, "answered with HTTP 500")
        assert before + wait <= delivery.next_at <= utcnow() + wait
        due_again()
    webhooks.deliver_due()
    assert WebhookDelivery.objects.get().state == WebhookState.GIVEN_UP
    due_again()
    webhooks.deliver_due()
    assert len(receiver.got) == len(webhooks.RETRY_AFTER_S) + 1


def owe(prefix: str, job_id: str, count: int, *, first: int = 0) -> None:
    """So many deliveries to a key, all due, longer than those of a later call."""
    for number in range(first, first + count):
        WebhookDelivery(id=f"{job_id}-{number}:{prefix}", job_id=job_id, key_prefix=prefix).save(force_insert=True)


def test_a_slow_receiver_holds_up_no_other_key_and_is_told_by_one_round_at_a_time(api, other_api, receiver, job_id):
    set_webhook(api.prefix, f"{receiver.url}/slow", actor="test")
    set_webhook(other_api.prefix, f"{receiver.url}/fast", actor="test")
    owe(api.prefix, job_id, 201)
    owe(other_api.prefix, job_id, 2)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(webhooks.deliver_due)
        wait_until(lambda: receiver.counts["POST /fast"] == 2 and receiver.counts["POST /slow"])
        owe(other_api.prefix, job_id, 1, first=2)
        wait_until(lambda: webhooks.deliver_due() or receiver.counts["POST /fast"] == 3)
        assert not first.done()
        receiver.answer.set()
        first.result(20)
    assert receiver.counts == {"POST /fast": 3, "POST /slow": 1}


class TestSlowReceivers:
    """A round of theirs lasts long, and the worker that they run on has other things to do."""

    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch):
        monkeypatch.setattr(webhooks, "TOTAL_S", 60)

    @pytest.fixture
    def owe_slow(self, receiver, job_id):
        def owe_to_a_new_key(name: str) -> None:
            prefix = create_key(name=name).key[3:11]
            set_webhook(prefix, f"{receiver.url}/late/{name}", actor="test")
            owe(prefix, job_id, 1)

        return owe_to_a_new_key

    def test_hold_half_of_a_workers_threads_at_most(self, receiver, owe_slow, monkeypatch):
        monkeypatch.setattr(webhooks, "LOOK_S", 3600)  # each round keeps to its own
        places = settings.ENV.worker_threads // 2
        with ThreadPoolExecutor(places) as others:
            for number in range(places):
                owe_slow(f"of{number}")
                others.submit(webhooks.deliver_due)
                wait_until(lambda told=f"POST /late/of{number}": receiver.counts[told])
            owe_slow("another")
            webhooks.deliver_due()
            assert receiver.counts["POST /late/another"] == 0
            receiver.answer.set()
        webhooks.deliver_due()
        assert receiver.counts["POST /late/another"] == 1

    def test_leave_a_thread_also_when_batches_take_long(self, receiver, owe_slow, monkeypatch):
        monkeypatch.setattr(webhooks, "LOOK_S", 3600)  # each round keeps to its own
        free = threads = settings.ENV.worker_threads
        with ExitStack() as batches, ThreadPoolExecutor(threads) as others:
            while free > 1:
                if not batches.enter_context(batch_turns.lane()):
                    break
                free -= 1
            while free > 1:
                owe_slow(f"of{free}")
                others.submit(webhooks.deliver_due)
                wait_until(lambda told=f"POST /late/of{free}": receiver.counts[told])
                free -= 1
            owe_slow("another")
            last = others.submit(webhooks.deliver_due)
            wait_until(lambda: last.done() or receiver.counts["POST /late/another"])
            assert receiver.counts["POST /late/another"] == 0
            assert not batches.enter_context(batch_turns.lane())
            receiver.answer.set()

    def test_leave_their_round_to_tell_who_is_owed_something_meanwhile(self, other_api, receiver, job_id, owe_slow):
        set_webhook(other_api.prefix, f"{receiver.url}/fast", actor="test")
        owe_slow("alone")
        with ThreadPoolExecutor(1) as other:
            the_round = other.submit(webhooks.deliver_due)
            wait_until(lambda: receiver.counts["POST /late/alone"])
            for number in range(2):
                owe(other_api.prefix, job_id, 1, first=number)
                wait_until(lambda told=number + 1: receiver.counts["POST /fast"] == told, timeout_s=25)
            assert not the_round.done()
            receiver.answer.set()
            the_round.result(20)
        assert receiver.counts == {"POST /late/alone": 1, "POST /fast": 2}


def test_redirects_are_not_followed(receiver, job_id):
    receiver.status = 307
    finish_job(job_id)
    webhooks.deliver_due()
    assert receiver.counts == {"POST /hook": 1}
    assert WebhookDelivery.objects.get().last_error == "answered with HTTP 307"


def test_nobody_there_is_a_failure(receiver, job_id):
    receiver.stop()
    finish_job(job_id)
    webhooks.deliver_due()
    assert WebhookDelivery.objects.get().last_error == "nothing answers at this address"


def test_an_address_that_leads_into_a_private_network_is_not_asked(receiver, job_id, monkeypatch):
    finish_job(job_id)
    monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"outbound_allow": ()}))
    webhooks.deliver_due()
    assert receiver.got == []
    assert (
        WebhookDelivery.objects.get().last_error == "its name leads to an address that this server does not connect to"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it hung up without an answer"),
        (b"\0 something else \r\n\r\n", "what it answered is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000, "what it answered is no HTTP"),
    ],
)
def test_what_went_wrong_is_told_in_simple_words(api, answer, words):
    with raw_receiver(answer) as url:
        set_webhook(api.prefix, url, actor="test")
        assert webhooks.send_test(api.prefix) == words
        if answer:
            set_webhook(api.prefix, url.replace("http:", "https:"), actor="test")
            assert webhooks.send_test(api.prefix) == "it does not speak TLS"
    set_webhook(api.prefix, "https://nobody.invalid/", actor="test")
    assert webhooks.send_test(api.prefix) == "its name is not known"


@contextmanager
def raw_receiver(answer: bytes):
    """Sends ``answer``, whatever comes, and hangs up when the caller does or after a head without an end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as client, suppress(OSError):
                        client.recv(65536)
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=60)


class TestSetWebhook:
    def test_prints_the_secret_once_stores_it_encrypted_and_is_on_the_audit_log(self, api):
        printed = StringIO()
        call_command("set_webhook", api.prefix, "--url", "https://bot.example/hook", "--json", stdout=printed)
        shown = json.loads(printed.getvalue())["secret"]
        key = ApiKey.objects.get(prefix=api.prefix)
        assert shown.startswith("whsec_")
        assert shown not in str(key.to_mongo())
        assert AuditEntry.objects.get().after == {"webhook_url": "https://bot.example/hook"}
        call_command("set_webhook", api.prefix, "--remove", stdout=printed)
        assert not ApiKey.objects.get(prefix=api.prefix).webhook_url

    @pytest.mark.parametrize(
        "url",
        [
            "http://bot.example/",
            "ftp://bot.example/",
            "https://10.0.0.1/",
            "https://[::1",
            "nonsense",
            "",
            "https://bot.example/\r\nX-Own: 1",
            "https://bot.example/a b",
            "https://bot.example/\u202e",
            "https://256.256.256.256/",
            "https://0x7f.1/",
            "https://1.2.3/",
            "https://017700000001/",
        ],
    )
    def test_other_than_public_https_is_refused(self, api, url):
        with pytest.raises(CommandError):
            call_command("set_webhook", api.prefix, "--url", url)
        with pytest.raises(InvalidParameter):
            set_webhook(api.prefix, url, actor="test")

    def test_an_unknown_key_is_said_so(self, api):
        with pytest.raises(CommandError, match="no key"):
            call_command("set_webhook", "nobody00", "--url", "https://bot.example/")
