"""Which embedded servers an instance needs, on which ports, with which passwords, and where that is noted."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from apps.core.embedded.mongod import mongod_uri
from apps.core.embedded.redis_server import redis_uri
from ytserver.env import Env, ServiceUrls, read_service_urls, service_urls_path
from ytserver.private_files import kept_secret, write_private


@dataclass(frozen=True, kw_only=True)
class EmbeddedServices:
    """The embedded servers of one instance. A port of None: the operator gave an address, nothing is started."""

    mongo_port: int | None
    mongo_password: str
    mongo_key_file: Path
    redis_port: int | None
    redis_password: str
    redis_password_file: Path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def choose_services(env: Env) -> EmbeddedServices:
    """Decide ports and passwords and note them in ``VAR_DIR/run/services.json`` (0600) for the other processes.

    The ports of the last start are kept while they are free. Call it with the instance locked and its servers stopped.
    """
    secret_dir = env.var_dir.absolute() / "secrets"
    noted = read_service_urls(env)
    mongo_password = kept_secret(secret_dir / "mongo_password", lambda: secrets.token_urlsafe(24))
    redis_password = kept_secret(secret_dir / "redis_password", lambda: secrets.token_urlsafe(24))
    key_file = secret_dir / "mongo_keyfile"
    kept_secret(key_file, lambda: secrets.token_hex(256))
    redis_password_file = secret_dir / "redis.conf"
    write_private(redis_password_file, f"requirepass {redis_password}\n")
    services = EmbeddedServices(
        mongo_port=None if env.mongo_uri.get_secret_value() else _usable_port(noted.mongo_uri),
        mongo_password=mongo_password,
        mongo_key_file=key_file,
        redis_port=None if env.redis_url.get_secret_value() else _usable_port(noted.redis_url),
        redis_password=redis_password,
        redis_password_file=redis_password_file,
    )
    urls = ServiceUrls(
        mongo_uri=mongod_uri(services.mongo_port, password=mongo_password) if services.mongo_port else "",
        redis_url=redis_uri(services.redis_port, password=redis_password) if services.redis_port else "",
    )
    write_private(service_urls_path(env), urls.model_dump_json())
    return services


def _usable_port(noted_url: str) -> int:
    try:
        port = urlsplit(noted_url).port
    except ValueError:
        port = None
    if port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the last run does not count
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return free_port()
            return port
    return free_port()
