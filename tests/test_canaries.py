"""Nothing secret gets out: a running server is given secrets of every sort, used, made to fail, and then searched."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import mongoengine
import pyotp
import pytest
from django.conf import settings

from apps.core.backup import write_backup
from apps.core.redis import redis_client
from apps.core.secrets import decrypt_secret
from apps.downloads.documents import JobState, MediaJob
from apps.keys.documents import Role, Scope, User
from apps.keys.second_factor import finish_setup, new_pending
from apps.keys.services import create_key, create_user
from apps.keys.webhooks import set_webhook
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.savetube import SaveTubeStandIn
from tests.standins.telegram import TelegramStandIn
from tests.waiting import wait_until

CHANNEL_ID = -1001234567890
VIDEO_ID = "dQw4w9WgXcQ"
PASSWORD, WRONG_PASSWORD = "canary-password-of-ada-7f3", "canary-wrong-password-of-ada-9c1"
METRICS_TOKEN = "canary-metrics-token-41d8" * 2
COOKIE, PROXY_PASSWORD = "canaryCookieValue83hd72", "canaryProxyPassword5k2"
PO_TOKEN = "canaryPoTokenValue9k2d77"
WRONG_KEY = "yt_canaryAB_" + "canaryWrongSecret" * 2 + "x" * 9


class Used:
    """A server that has been used in every way, what it said, and what nobody may find."""

    def __init__(self, instance: Instance, canaries: dict[str, str], answers: dict[str, str]) -> None:
        self.instance, self.canaries, self.answers = instance, canaries, answers


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> Iterator[Used]:
    empty_everything()
    folder = tmp_path_factory.mktemp("canaries")
    with SaveTubeStandIn() as savetube, TelegramStandIn(folder=folder) as telegram:
        bot, channel = telegram.add_bot(111111), telegram.add_channel(CHANNEL_ID)
        telegram.make_admin(bot, channel)
        secrets = {
            "SECRET_KEY": settings.SECRET_KEY,
            "FIELD_KEYS": settings.ENV.field_keys[0],
            "METRICS_TOKEN": METRICS_TOKEN,
        }
        outside = {
            "PUBLIC_URL": "", "PROVIDERS": "savetube", **savetube.settings, "TELEGRAM_API_URL": telegram.url,
            "TELEGRAM_FILE_URL": f"{telegram.url}/file", "TELEGRAM_BOT_TOKENS": bot.token,
            "TELEGRAM_CHANNEL_ID": str(CHANNEL_ID),
        }  # fmt: skip
        instance = Instance(folder, outside | secrets)
        key = create_key(name="caller", limit_per_hour=100_000).key
        admin_key = create_key(name="admin", scopes=tuple(Scope), limit_per_hour=100_000).key
        user = create_user(username="ada", password=PASSWORD, role=Role.OWNER)
        webhook_secret = set_webhook(key[3:11], savetube.url, actor="test")
        canaries = {
            **secrets, "key": key[12:], "admin key": admin_key[12:], "wrong key": WRONG_KEY[12:], "password": PASSWORD,
            "wrong password": WRONG_PASSWORD, "bot token": bot.token.partition(":")[2], "cookie": COOKIE,
            "proxy": PROXY_PASSWORD, "po token": PO_TOKEN, "webhook secret": webhook_secret,
            "SaveTube key": savetube.settings["SAVETUBE_KEY"],
        }  # fmt: skip
        try:
            instance.start()
            answers = _use(instance, key, admin_key, canaries)
            other = create_user(username="second", password=PASSWORD, role=Role.VIEWER)
            pending = new_pending()
            canaries["second factor"] = decrypt_secret(pending)
            finish_setup(other, pending, pyotp.TOTP(canaries["second factor"]).now())
            assert User.objects(id=user.id).first() is not None
            yield Used(instance, canaries, answers)
        finally:
            instance.stop()


def _use(instance: Instance, key: str, admin_key: str, canaries: dict[str, str]) -> dict[str, str]:
    """Use everything, rightly and wrongly. Returns what was answered, but the answers that give a secret once."""
    said: dict[str, str] = {}
    with httpx.Client(base_url=instance.url, timeout=60) as api:

        def ask(name: str, method: str, path: str, **options) -> httpx.Response:
            answer = api.request(method, path, **options)
            said[name] = f"{answer.status_code} {answer.headers} {answer.text[:100_000]}"
            return answer

        good, admin = {"X-API-Key": key}, {"X-API-Key": admin_key}
        link = api.get("/api/v1/audio", params={"url": VIDEO_ID, "wait": 30}, headers=good).json()["stream_url"]
        canaries["signature"] = link.partition("sig=")[2]
        assert len(canaries["signature"]) == 43
        assert api.get(link).status_code == 200
        wait_until(lambda: MediaJob.objects(state=JobState.DONE.value).first(), timeout_s=60)
        ask("changed link", "GET", link.replace("expires=", "expires=1"))
        ask("key in the address", "GET", f"/api/v1/info?url={VIDEO_ID}&api_key={key}")
        ask("wrong key in the address", "GET", f"/api/v1/info?url={VIDEO_ID}&api_key={WRONG_KEY}")
        ask("wrong key of a stream", "GET", f"/stream/audio/{VIDEO_ID}?api_key={WRONG_KEY}")
        ask("bearer", "GET", "/api/v1/me", headers={"Authorization": f"Bearer {key}"})
        ask("secret as a path", "GET", f"/api/v1/{WRONG_KEY}", headers=good)
        ask(
            "bad json",
            "POST",
            "/api/v1/audio",
            content=f'{{"api_key": "{key}"',
            headers={**good, "Content-Type": "application/json"},
        )
        ask("cookies", "POST", "/api/v1/admin/cookies", headers=admin, json={"name": "jar", "cookies": _cookie_file()})
        ask("bad cookies", "POST", "/api/v1/admin/cookies", headers=admin, json={"name": "b", "cookies": COOKIE})
        proxy = f"socks5://user:{PROXY_PASSWORD}@192.0.2.1:1080"
        ask("proxy", "POST", "/api/v1/admin/proxies", headers=admin, json={"name": "p", "proxy": proxy, "use": "both"})
        ask("bad proxy", "POST", "/api/v1/admin/proxies", headers=admin, json={"name": "q", "proxy": "x" + proxy})
        tokens = f"web.gvs+{PO_TOKEN}"
        ask("po tokens", "POST", "/api/v1/admin/po-tokens", headers=admin, json={"name": "t", "tokens": tokens})
        ask("bad po tokens", "POST", "/api/v1/admin/po-tokens", headers=admin, json={"name": "u", "tokens": PO_TOKEN})
        assert said["po tokens"].startswith("200")
        assert said["cookies"].startswith("200")
        assert said["proxy"].startswith("200")
        for path in ("cookies", "proxies", "po-tokens", "bots", "channels", "keys", "users", "providers"):
            ask(f"list of {path}", "GET", f"/api/v1/admin/{path}", headers=admin)
        ask("bad bot", "POST", "/api/v1/admin/bots", headers=admin, json={"token": "1:" + canaries["bot token"]})
        token = api.get("/admin/login") and api.cookies["csrftoken"]
        for name, password in (("wrong login", WRONG_PASSWORD), ("login", PASSWORD)):
            form = {"username": "ada", "password": password, "csrfmiddlewaretoken": token}
            ask(name, "POST", "/admin/login", data=form)
        for path in (
            "",
            "keys",
            "telegram",
            "sources",
            "audit",
            "system",
            "settings",
            "account",
            "admins",
            "jobs",
            "cache",
        ):
            answer = ask(f"page {path}", "GET", f"/admin/{path}")
            assert answer.status_code == 200, path
        said["metrics"] = api.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text
        assert "ytserver_requests_total" in said["metrics"]
    return said


def _cookie_file() -> str:
    return f"# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t1999999999\tSID\t{COOKIE}\n"


def leaks(text: str, canaries: dict[str, str]) -> list[str]:
    return [name for name, secret in canaries.items() if secret in text]


def test_answers_errors_pages_and_metrics_hold_nothing_secret(used):
    found = {name: leaks(text, used.canaries) for name, text in used.answers.items()}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("name", ["web", "worker"])
def test_logs_hold_nothing_secret(used, name):
    log = used.instance.log(name)
    assert VIDEO_ID in log or "asset" in log
    assert leaks(log, used.canaries) == []


def test_redis_holds_nothing_secret(used):
    """Tasks and their arguments, events, limits, messages."""
    client = redis_client()
    for key in client.scan_iter(count=1000):
        kind = client.type(key).decode()
        read = {
            "string": client.get, "hash": client.hgetall, "set": client.smembers,
            "list": lambda name: client.lrange(name, 0, -1), "zset": lambda name: client.zrange(name, 0, -1),
            "stream": lambda name: client.xrange(name),
        }[kind]  # fmt: skip
        assert leaks(f"{key!r} {read(key)!r}", used.canaries) == [], key


def test_mongodb_and_a_backup_hold_nothing_secret(used, tmp_path):
    database = mongoengine.get_db()
    for name in database.list_collection_names():
        for document in database[name].find():
            assert leaks(str(document), used.canaries) == [], name
    path = tmp_path / "backup.gz"
    write_backup(path)
    assert leaks(gzip.decompress(path.read_bytes()).decode(), used.canaries) == []
