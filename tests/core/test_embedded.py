import socket
import stat
import subprocess
from contextlib import contextmanager

import pymongo
import pymongo.errors
import pytest
import redis

from apps.core.embedded import (
    EmbeddedServerError,
    binary_path,
    choose_services,
    mongod_command,
    mongod_uri,
    prepare_mongod,
    redis_command,
    redis_uri,
    wait_for_redis,
)
from apps.core.embedded.binaries import wait_until
from apps.core.outages import outage_of
from apps.core.supervisor import end_with_us
from tests.ports import free_port
from ytserver.env import Env, find_service_urls, service_urls_path


@contextmanager
def running(command):
    process = subprocess.Popen(end_with_us(command), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def env(tmp_path, monkeypatch):
    for name in ("MONGO_URI", "REDIS_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    return Env(_env_file=None)


class TestMongod:
    def test_lets_in_only_who_has_the_password_and_keeps_its_data_on_another_port(self, env, tmp_path):
        services = choose_services(env)
        folder, log = tmp_path / "mongo", tmp_path / "mongod.log"
        folder.mkdir()
        for turn in range(2):
            port = services.mongo_port if turn == 0 else free_port()
            command = mongod_command(folder, port=port, log=log, key_file=services.mongo_key_file)
            with running(command) as process:
                prepare_mongod(port, password=services.mongo_password)
                prepare_mongod(port, password=services.mongo_password)  # can be repeated
                with pymongo.MongoClient(mongod_uri(port, password=services.mongo_password)) as client:
                    if turn == 0:
                        client.ytserver.things.insert_one({"_id": 1})
                    assert client.ytserver.things.find_one() == {"_id": 1}
                    with client.start_session() as session, session.start_transaction():
                        client.ytserver.things.update_one({"_id": 1}, {"$set": {"turn": turn}}, session=session)
                    client.ytserver.things.update_one({"_id": 1}, {"$unset": {"turn": 1}})
                with (
                    pymongo.MongoClient(mongod_uri(port)) as stranger,
                    pytest.raises(pymongo.errors.OperationFailure, match="requires authentication") as refused,
                ):
                    stranger.ytserver.things.find_one()
                assert outage_of(refused.value).what == "MongoDB does not let our user do that"
                if turn == 0:
                    process.kill()  # leaves mongod.lock behind

    def test_says_so_when_the_password_was_lost(self, env, tmp_path):
        services = choose_services(env)
        folder = tmp_path / "mongo"
        folder.mkdir()
        port = services.mongo_port
        command = mongod_command(folder, port=port, log=tmp_path / "log", key_file=services.mongo_key_file)
        with running(command):
            prepare_mongod(port, password=services.mongo_password)
            with pytest.raises(EmbeddedServerError, match="put that folder back"):
                prepare_mongod(port, password="another one")

    def test_stops_waiting_when_told(self):
        def give_up():
            raise KeyError("stop")

        with pytest.raises(KeyError):
            prepare_mongod(free_port(), check=give_up)


class TestRedis:
    def test_lets_in_only_who_has_the_password_and_keeps_its_data_when_killed(self, env, tmp_path):
        services = choose_services(env)
        folder = tmp_path / "with a space"
        folder.mkdir()
        port = services.redis_port
        command = redis_command(
            folder, port=port, log=tmp_path / "redis.log", password_file=services.redis_password_file
        )
        with running(command) as process:
            wait_for_redis(port, password=services.redis_password)
            with redis.Redis.from_url(redis_uri(port, password=services.redis_password)) as client:
                client.set("kept", "yes")
            with redis.Redis.from_url(redis_uri(port)) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.get("kept")
            process.kill()
        with running(command):
            wait_for_redis(port, password=services.redis_password)
            with redis.Redis.from_url(redis_uri(port, password=services.redis_password)) as client:
                assert client.get("kept") == b"yes"


class TestChooseServices:
    def test_keeps_ports_and_passwords_and_hides_them_from_others(self, env, tmp_path):
        first = choose_services(env)
        assert choose_services(env) == first
        urls = find_service_urls(env)
        assert urls.mongo_uri == mongod_uri(first.mongo_port, password=first.mongo_password)
        assert urls.redis_url == redis_uri(first.redis_port, password=first.redis_password)
        files = [service_urls_path(env), *(tmp_path / "secrets").iterdir()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    def test_takes_another_port_when_somebody_sits_on_the_old_one(self, env):
        first = choose_services(env)
        with socket.socket() as other:
            other.bind(("127.0.0.1", first.mongo_port))
            other.listen()
            second = choose_services(env)
        assert second.mongo_port != first.mongo_port
        assert second.redis_port == first.redis_port
        assert f":{second.mongo_port}/" in find_service_urls(env).mongo_uri

    @pytest.mark.parametrize("broken", ["", "{", '{"mongo_uri": 5}', '{"mongo_uri": "mongodb://h:port/"}', "\udcff"])
    def test_starts_over_when_its_notes_are_broken(self, env, broken):
        choose_services(env)
        service_urls_path(env).write_bytes(broken.encode(errors="surrogateescape"))
        assert choose_services(env).mongo_port

    def test_starts_nothing_where_an_address_is_given(self, env, monkeypatch):
        monkeypatch.setenv("MONGO_URI", "mongodb://db.example/ytserver")
        given = Env(_env_file=None)
        services = choose_services(given)
        assert services.mongo_port is None
        assert services.redis_port
        assert find_service_urls(given).mongo_uri == "mongodb://db.example/ytserver"


class TestBinaryPath:
    @pytest.mark.parametrize("module", ["no_such_wheel", "no_such_parent.db", "apps"])
    def test_a_missing_wheel_is_one_line_that_says_what_to_do(self, module):
        with pytest.raises(EmbeddedServerError, match="set MONGO_URI and REDIS_URL") as caught:
            binary_path(module, "bin", "mongod")
        assert "\n" not in str(caught.value)

    def test_makes_a_program_executable(self, tmp_path, monkeypatch):
        program = tmp_path / "madeup_wheel" / "bin" / "tool"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.parent.parent.joinpath("__init__.py").touch()
        program.chmod(0o644)
        monkeypatch.syspath_prepend(str(tmp_path))
        assert binary_path("madeup_wheel", "bin", "tool") == program
        assert program.stat().st_mode & stat.S_IXUSR


def test_waiting_has_an_end():
    with pytest.raises(EmbeddedServerError, match="the thing was not ready after 0 s"):
        wait_until(lambda: False, what="the thing", timeout_s=0.05)
