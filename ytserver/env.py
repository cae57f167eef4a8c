"""The one place that reads the environment: every setting, its type, its default and what is allowed."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ytserver.private_files import kept_secret

BASE_DIR = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
TELEGRAM_CLOUD_PART_MAX_BYTES = 20 * MIB  # Bot API: getFile is limited to 20 MiB
TELEGRAM_LOCAL_PART_MAX_BYTES = 2000 * MIB  # a self-hosted Bot API server with --local

ENV_FILE = "ENV_FILE"
"""Names another file than ``.env``; empty: none. Not a setting itself: it says where they are."""

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """A setting is missing or wrong. The text names the variable and what is allowed, never its value."""


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _to_networks(value: Any) -> Any:
    items = _split_commas(value)
    try:
        return tuple(ipaddress.ip_network(item, strict=False) for item in items)
    except ValueError:
        raise ValueError("must be a comma-separated list of networks such as 127.0.0.0/8") from None


def _to_json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value or "{}")
    except ValueError:
        raise ValueError("must be a JSON object") from None
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON object")
    return parsed


def _check_http_url(value: str) -> str:
    if not _is_plain_http_url(value):
        raise ValueError("must be an http:// or https:// address without user, query or fragment")
    return value.rstrip("/")


def _is_plain_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises for what is no port
    except ValueError:
        return False
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain


def _from_project_folder(value: Path) -> Path:
    return BASE_DIR / value.expanduser()


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
NetworkList = Annotated[tuple[IpNetwork, ...], NoDecode, BeforeValidator(_to_networks)]
Folder = Annotated[Path, AfterValidator(_from_project_folder)]
JsonObject = Annotated[dict[str, Any], NoDecode, BeforeValidator(_to_json_object)]


class Env(BaseSettings):
    """Every setting of the server. Frozen: change the environment (or ``.env``) and start again."""

    model_config = SettingsConfigDict(env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True)

    _mask_wrapped: ClassVar[bool] = True
    """Django's settings object asks for this at each access; without it pydantic would search for it, which is slow."""

    debug: bool = Field(True, description="Development mode: missing secrets are made and kept in VAR_DIR.")
    host: str = Field("127.0.0.1", description="Address the web server listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the web server listens on.")
    public_url: str = Field("", description="Address that clients use, for links. Empty: http://HOST:PORT.")
    allowed_hosts: CommaList = Field((), description="Host names that requests may name. Empty: this machine only.")
    secret_key: SecretStr = Field(SecretStr(""), description="Signs sessions and links. At least 32 characters.")
    field_keys: CommaList = Field(
        (), repr=False, description="Fernet keys for secrets in MongoDB; the first one encrypts."
    )
    var_dir: Folder = Field(
        BASE_DIR / "var",
        description="Everything this instance writes lies under here. Relative paths start at the project's folder.",
    )
    mongo_uri: SecretStr = Field(SecretStr(""), description="MongoDB. Empty: an embedded server is started.")
    redis_url: SecretStr = Field(SecretStr(""), description="Redis. Empty: an embedded server is started.")
    hot_dir: Folder | None = Field(None, description="The hot store. Empty: VAR_DIR/hot.")
    hot_max_bytes: int = Field(
        20 * 1024 * MIB,
        ge=MIB,
        description="How large the hot store may grow, in bytes. Files that are not in Telegram stay also above it.",
    )
    link_ttl_s: int = Field(6 * 3600, ge=60, le=7 * 86400, description="Life of a signed link, in seconds.")
    link_keys: CommaList = Field(
        (),
        repr=False,
        description="Secrets that sign links, 32 characters or more each, at most four; the first one signs, all are "
        "believed. Empty: SECRET_KEY signs. See `manage.py rotate_link_keys`.",
    )
    providers: CommaList = Field(("savetube", "ytdlp"), description="Outside sources, in the order they are tried.")
    savetube_url: str = Field("https://media.savetube.me/api", description="Base address of the SaveTube API.")
    savetube_key: SecretStr = Field(SecretStr(""), description="SaveTube AES key, 32 hex digits. Empty: off.")
    savetube_cdn_suffixes: CommaList = Field(
        ("savetube.me",), description="Host name endings that a SaveTube CDN may have."
    )
    ytdlp_options: JsonObject = Field({}, repr=False, description="Any yt-dlp options, as a JSON object.")
    telegram_api_url: str = Field("https://api.telegram.org", description="Methods: {this}/bot<token>/<method>.")
    telegram_file_url: str = Field("https://api.telegram.org/file", description="Files: {this}/bot<token>/<file_path>.")
    telegram_local_root: Folder | None = Field(
        None, description="Folder under which a self-hosted Bot API server (--local) puts its files."
    )
    telegram_part_bytes: int = Field(
        19 * MIB, ge=MIB, le=TELEGRAM_LOCAL_PART_MAX_BYTES, description="Largest part sent to Telegram, in bytes."
    )
    telegram_bot_tokens: CommaList = Field((), repr=False, description="Bot tokens that seed an empty database.")
    telegram_channel_id: str = Field("", description="Channel that seeds an empty database.")
    outbound_allow: NetworkList = Field((), description="Non-public networks that outbound requests may reach.")
    trusted_proxies: NetworkList = Field(
        (), description="Networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    limits_on_redis_loss: Literal["deny", "allow-local"] = Field(
        "allow-local",
        description="While Redis is away: `allow-local` lets each process count alone, with its share of the limits; "
        "`deny` answers 503 to every key.",
    )
    session_idle_s: int = Field(
        2 * 3600, ge=60, le=30 * 86400, description="Seconds without a click after which the admin logs somebody out."
    )
    session_max_s: int = Field(
        12 * 3600,
        ge=60,
        le=30 * 86400,
        description="Seconds after which the admin asks to log in again, whatever happens.",
    )
    fast_lane: bool = Field(True, description="Answer known files and metadata in front of Django. Off: all in Django.")
    web_workers: int = Field(2, ge=1, le=256, description="Web server processes.")
    worker_threads: int = Field(4, ge=1, le=256, description="Threads of each background worker.")
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token for /metrics, 16 characters or more. Empty: by address only."
    )
    metrics_addresses: NetworkList = Field(
        (), description="Networks that may read /metrics without it. Empty: this machine, unless METRICS_TOKEN is set."
    )
    usage_kept_days: int = Field(
        90, ge=1, le=3650, description="How long single events (usage_stats) are kept, in days. Sums live longer."
    )
    dialects: CommaList = Field(
        (), description="Music-bot dialects to answer in: song, track, v2, query (see docs/dialects.md). Empty: off."
    )

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_address(cls, value: str) -> str:
        return _check_http_url(value) if value else value

    @field_validator("savetube_url", "telegram_api_url", "telegram_file_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return _check_http_url(value)

    @field_validator("secret_key")
    @classmethod
    def _secret_key_is_long(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and len(value.get_secret_value()) < 32:
            raise ValueError("must be at least 32 characters")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _metrics_token_is_long(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not re.fullmatch(r"[\x21-\x7e]{16,}", value.get_secret_value()):
            raise ValueError("must be 16 or more visible ASCII characters")
        return value

    @field_validator("link_keys")
    @classmethod
    def _link_keys_are_long_and_few(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > 4 or any(len(key) < 32 for key in value):
            raise ValueError("must be at most four secrets of at least 32 characters")
        return value

    @field_validator("field_keys")
    @classmethod
    def _field_keys_are_fernet_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            try:
                Fernet(key)
            except ValueError:
                raise ValueError("must be comma-separated Fernet keys (32 url-safe base64 bytes each)") from None
        return value

    @field_validator("mongo_uri")
    @classmethod
    def _mongo_uri_names_mongodb(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must start with mongodb:// or mongodb+srv://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_names_redis(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("providers")
    @classmethod
    def _providers_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or set(value) - {"savetube", "ytdlp"} or len(set(value)) != len(value):
            raise ValueError("must list savetube, ytdlp, or both, each once")
        return value

    @field_validator("dialects")
    @classmethod
    def _dialects_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if set(value) - {"song", "track", "v2", "query"} or len(set(value)) != len(value):
            raise ValueError("must list some of song, track, v2 and query, each once, or be empty")
        return value

    @field_validator("savetube_key")
    @classmethod
    def _savetube_key_is_hex(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not re.fullmatch(r"[0-9a-fA-F]{32}", value.get_secret_value()):
            raise ValueError("must be 32 hex digits")
        return value

    @field_validator("telegram_bot_tokens")
    @classmethod
    def _tokens_look_like_tokens(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"\d{1,20}:[A-Za-z0-9_-]{3,128}", token) for token in value):
            raise ValueError("must be comma-separated bot tokens as BotFather gives them")
        return value

    @field_validator("telegram_channel_id")
    @classmethod
    def _channel_id_is_a_channel(cls, value: str) -> str:
        if value and not re.fullmatch(r"-?\d{1,20}|@[A-Za-z][A-Za-z0-9_]{3,}", value):
            raise ValueError("must be a channel id such as -1001234567890 or a name such as @mychannel")
        return value

    @model_validator(mode="after")
    def _parts_can_be_read_back(self) -> Self:
        if self.telegram_local_root is None and self.telegram_part_bytes > TELEGRAM_CLOUD_PART_MAX_BYTES:
            raise ValueError("TELEGRAM_PART_BYTES must be at most 20971520 unless TELEGRAM_LOCAL_ROOT is set")
        return self

    @property
    def hot_root(self) -> Path:
        return (self.hot_dir or self.var_dir / "hot").absolute()

    @property
    def base_url(self) -> str:
        """The address clients use, without a slash at the end."""
        if self.public_url:
            return self.public_url
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"

    @property
    def own_hosts(self) -> tuple[str, ...]:
        """Host names that requests may name (Django's ALLOWED_HOSTS)."""
        named = self.allowed_hosts or ("localhost", "127.0.0.1", "[::1]")
        public = urlsplit(self.public_url).hostname
        return tuple(dict.fromkeys((*named, *((public,) if public else ()))))

    @property
    def own_host(self) -> str:
        """A host name that own_hosts lets through."""
        first = self.own_hosts[0]
        return "localhost" if first == "*" else first.removeprefix(".")


def _with_secrets(env: Env) -> Env:
    missing = [name for name in ("secret_key", "field_keys") if not _has_value(env, name)]
    if not missing:
        return env
    if not env.debug:
        names = ", ".join(name.upper() for name in missing)
        raise SettingsError(f"{names}: must be set when DEBUG is off (see docs/settings.md)")
    folder = env.var_dir.absolute() / "secrets"
    update: dict[str, Any] = {}
    if "secret_key" in missing:
        update["secret_key"] = SecretStr(kept_secret(folder / "secret_key", lambda: secrets.token_urlsafe(48)))
    if "field_keys" in missing:
        make_key = lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()  # noqa: E731 - one use
        update["field_keys"] = (kept_secret(folder / "field_keys", make_key),)
    return env.model_copy(update=update)


def _has_value(env: Env, name: str) -> bool:
    value = getattr(env, name)
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


@cache
def load_env() -> Env:
    """The settings of this process. Raises SettingsError: one line a problem, names and rules, never values."""
    try:
        return _with_secrets(Env(_env_file=os.environ.get(ENV_FILE, BASE_DIR / ".env") or None))
    except UnicodeDecodeError:
        raise SettingsError(".env: must be a text file in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"VAR_DIR: secrets cannot be kept there ({error.strerror})") from None
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = ".".join(str(part) for part in problem["loc"]).upper()
            text = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {text}" if name else text)
        raise SettingsError("\n".join(lines)) from None


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for an instance that must not get our settings, nor those of ``.env`` (demo, tests)."""
    ours = {name.upper() for name in Env.model_fields}
    return {name: value for name, value in environ.items() if name.upper() not in ours} | {ENV_FILE: ""}


class ServiceUrls(BaseModel):
    """Where MongoDB and Redis answer. An empty text: not given, and no embedded server has been started."""

    model_config = ConfigDict(frozen=True)

    mongo_uri: str = ""
    redis_url: str = ""


def service_urls_path(env: Env) -> Path:
    """The file in which ``manage.py up`` notes the addresses of the embedded servers (mode 0600)."""
    return env.var_dir.absolute() / "run" / "services.json"


def read_service_urls(env: Env) -> ServiceUrls:
    """What that file says; nothing when it is not there or cannot be read as such."""
    try:
        return ServiceUrls.model_validate_json(service_urls_path(env).read_text())
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, ValidationError):
        return ServiceUrls()


def find_service_urls(env: Env) -> ServiceUrls:
    """The given addresses; for those not given, the ones of this VAR_DIR's embedded servers, if they were started."""
    embedded = read_service_urls(env)
    return ServiceUrls(
        mongo_uri=env.mongo_uri.get_secret_value() or embedded.mongo_uri,
        redis_url=env.redis_url.get_secret_value() or embedded.redis_url,
    )
