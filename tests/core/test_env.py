import re
import secrets
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from ytserver import env as env_module
from ytserver.env import BASE_DIR, Env, SettingsError, find_service_urls, load_env, without_settings
from ytserver.private_files import kept_secret, write_private

DOC = BASE_DIR / "docs" / "settings.md"
SECRET = "hunter2-hunter2"


def default_text(name: str) -> str:
    default = Env.model_fields[name].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, Path):
        default = default.relative_to(BASE_DIR)
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    return f"`{default}`" if default not in ("", None, {}) else ""


def table() -> str:
    rows = [
        f"| `{name.upper()}` | {default_text(name)} | {field.description} |" for name, field in Env.model_fields.items()
    ]
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows])


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Read settings as a new process would, from nothing but what the test gives."""
    for name in Env.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))

    def read(**values: str) -> Env:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return load_env.__wrapped__()

    return read


class TestDocs:
    def test_the_table_in_the_docs_is_the_code_s(self):
        assert table() in DOC.read_text()

    def test_the_example_file_names_every_setting_and_changes_nothing(self):
        text = (BASE_DIR / ".env.example").read_text()
        assert re.findall(r"^#([A-Z_]+)=", text, re.MULTILINE) == [name.upper() for name in Env.model_fields]
        assert all(not line or line.startswith("#") for line in text.splitlines())


class TestRules:
    @pytest.mark.parametrize(
        ("name", "value", "rule"),
        [
            ("DEBUG", SECRET, "valid boolean"),
            ("PORT", "0", "greater than or equal to 1"),
            ("PORT", "65536", "less than or equal to 65535"),
            ("PORT", SECRET, "valid integer"),
            ("PUBLIC_URL", SECRET, "must be an http:// or https:// address"),
            ("PUBLIC_URL", f"https://user:{SECRET}@host", "without user"),
            ("PUBLIC_URL", f"https://:{SECRET}@host", "without user"),
            ("PUBLIC_URL", f"https://host:{SECRET}", "must be an http:// or https:// address"),
            ("PUBLIC_URL", "https://[::1", "must be an http:// or https:// address"),
            ("PUBLIC_URL", "https://host/?q=1", "query"),
            ("TELEGRAM_API_URL", "ftp://host", "must be an http:// or https:// address"),
            ("TELEGRAM_FILE_URL", "https://", "must be an http:// or https:// address"),
            ("SAVETUBE_URL", "savetube.me", "must be an http:// or https:// address"),
            ("SECRET_KEY", SECRET, "must be at least 32 characters"),
            ("FIELD_KEYS", SECRET, "must be comma-separated Fernet keys"),
            ("MONGO_URI", f"mysql://{SECRET}", "must start with mongodb://"),
            ("REDIS_URL", f"http://{SECRET}", "must start with redis://"),
            ("HOT_MAX_BYTES", "1000", "greater than or equal to 1048576"),
            ("LINK_TTL_S", "59", "greater than or equal to 60"),
            ("PROVIDERS", SECRET, "must list savetube, ytdlp, or both, each once"),
            ("PROVIDERS", "ytdlp,ytdlp", "each once"),
            ("SAVETUBE_KEY", SECRET, "must be 32 hex digits"),
            ("YTDLP_OPTIONS", SECRET, "must be a JSON object"),
            ("YTDLP_OPTIONS", "[1]", "must be a JSON object"),
            ("TELEGRAM_PART_BYTES", "10", "greater than or equal to 1048576"),
            ("TELEGRAM_PART_BYTES", str(21 * 2**20), "must be at most 20971520 unless TELEGRAM_LOCAL_ROOT is set"),
            ("TELEGRAM_BOT_TOKENS", SECRET, "must be comma-separated bot tokens"),
            ("TELEGRAM_CHANNEL_ID", f"channel {SECRET}", "must be a channel id"),
            ("OUTBOUND_ALLOW", SECRET, "must be a comma-separated list of networks"),
            ("WEB_WORKERS", "0", "greater than or equal to 1"),
            ("WORKER_THREADS", "257", "less than or equal to 256"),
        ],
    )
    def test_a_bad_value_names_the_setting_and_the_rule_but_not_the_value(self, settings, name, value, rule):
        with pytest.raises(SettingsError) as caught:
            settings(**{name: value})
        text = str(caught.value)
        assert text.startswith(name)
        assert rule in text
        assert SECRET not in text
        assert "\n" not in text

    def test_every_bad_value_has_its_line(self, settings):
        with pytest.raises(SettingsError) as caught:
            settings(PORT="x", DEBUG="x", PROVIDERS="x")
        assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["DEBUG", "PORT", "PROVIDERS"]

    def test_good_values_are_read(self, settings, tmp_path):
        env = settings(
            DEBUG="false",
            SECRET_KEY="s" * 32,
            FIELD_KEYS=f"{Fernet.generate_key().decode()}, {Fernet.generate_key().decode()}",
            PUBLIC_URL="https://media.example/base/",
            ALLOWED_HOSTS="media.example, www.media.example",
            PROVIDERS="ytdlp",
            SAVETUBE_KEY="0123456789abcdefABCDEF0123456789",
            YTDLP_OPTIONS='{"proxy": "http://127.0.0.1:1"}',
            TELEGRAM_BOT_TOKENS="1:abc,22:d-_E",
            TELEGRAM_CHANNEL_ID="-1001234567890",
            TELEGRAM_LOCAL_ROOT=str(tmp_path),
            TELEGRAM_PART_BYTES=str(100 * 2**20),
            OUTBOUND_ALLOW="127.0.0.0/8, ::1",
            HOT_DIR="hot files",
        )
        assert env.base_url == "https://media.example/base"
        assert env.own_hosts == ("media.example", "www.media.example")
        assert len(env.field_keys) == 2
        assert env.ytdlp_options == {"proxy": "http://127.0.0.1:1"}
        assert [str(network) for network in env.outbound_allow] == ["127.0.0.0/8", "::1/128"]
        assert env.hot_root == BASE_DIR / "hot files"

    def test_an_empty_value_is_the_default(self, settings):
        assert settings(PORT="", PROVIDERS="", DEBUG="").port == 8000

    def test_nothing_secret_is_shown(self, settings):
        env = settings(REDIS_URL=f"redis://:{SECRET}@host", MONGO_URI="mongodb://" + f"u:{SECRET}@host/db")
        assert SECRET not in repr(env)

    @pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")])  # noqa: S104 - not bound
    def test_the_address_for_clients_can_be_reached(self, settings, host, url):
        assert settings(HOST=host).base_url == url


class TestEnvFile:
    def test_is_read_and_the_environment_goes_first(self, settings, tmp_path):
        (tmp_path / ".env").write_text("PORT=9001\nWEB_WORKERS=5\n# a note\nSOMETHING_ELSE=1\n")
        env = settings(PORT="9002")
        assert (env.port, env.web_workers) == (9002, 5)

    def test_another_instance_gets_neither_our_environment_nor_our_file(self):
        environ = without_settings({"MONGO_URI": "mongodb://ours/", "hot_dir": "ours", "PATH": "/bin"})
        assert environ == {"PATH": "/bin", "ENV_FILE": ""}

    def test_must_be_text(self, settings, tmp_path):
        (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
        with pytest.raises(SettingsError, match="must be a text file in UTF-8"):
            settings()


class TestSecrets:
    def test_are_made_once_in_development_for_the_owner_only(self, settings, tmp_path):
        first, second = settings(), settings()
        assert first.secret_key.get_secret_value() == second.secret_key.get_secret_value()
        assert first.field_keys == second.field_keys
        assert Fernet(first.field_keys[0])
        for path in (tmp_path / "secrets").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("given", [{}, {"SECRET_KEY": "s" * 32}, {"FIELD_KEYS": Fernet.generate_key().decode()}])
    def test_must_be_given_when_debug_is_off(self, settings, given, tmp_path):
        with pytest.raises(SettingsError, match="must be set when DEBUG is off") as caught:
            settings(DEBUG="false", **given)
        assert not any(name in str(caught.value) for name in given)
        assert not (tmp_path / "secrets").exists()

    def test_a_folder_that_cannot_be_used_is_one_line(self, settings, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(SettingsError, match="VAR_DIR: secrets cannot be kept there"):
            settings(VAR_DIR=str(tmp_path / "file" / "var"))

    def test_many_that_make_one_at_once_read_the_same(self, tmp_path):
        start_together = threading.Barrier(16)

        def make(_: int) -> str:
            def slowly() -> str:
                start_together.wait(timeout=60)  # all have seen that it is not there
                return secrets.token_hex(8)

            return kept_secret(tmp_path / "secrets" / "one", slowly)

        with ThreadPoolExecutor(16) as pool:
            found = set(pool.map(make, range(16)))
        assert len(found) == 1
        assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["one"]

    def test_a_private_file_is_replaced_whole(self, tmp_path):
        path = tmp_path / "run" / "notes.json"
        write_private(path, "old")
        path.chmod(0o644)
        write_private(path, "new")
        assert path.read_text() == "new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(path.parent.iterdir()) == [path]


class TestServiceUrls:
    def test_nothing_is_known_before_the_first_start(self, settings):
        assert find_service_urls(settings()).mongo_uri == ""

    def test_a_given_address_goes_before_the_embedded_one(self, settings):
        env = settings(REDIS_URL="redis://host/1")
        write_private(env_module.service_urls_path(env), '{"mongo_uri": "mongodb://a/b", "redis_url": "redis://c"}')
        urls = find_service_urls(env)
        assert (urls.mongo_uri, urls.redis_url) == ("mongodb://a/b", "redis://host/1")
