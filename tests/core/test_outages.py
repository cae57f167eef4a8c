"""What is told of a MongoDB or a Redis that does not do what it was asked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pymongo
import pytest
import redis
from django_redis.exceptions import ConnectionInterrupted
from mongoengine.connection import get_connection
from pymongo.errors import ExecutionTimeout, OperationFailure

from apps.core.outages import outage_of
from apps.core.redis import redis_client
from tests.full_redis import full_redis


def raised_by(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - which class it is, is the question
        return error
    raise AssertionError("nothing was raised")


@contextmanager
def replica() -> Iterator[redis.Redis]:
    redis_client().replicaof("127.0.0.1", 1)  # nobody is there
    try:
        yield redis_client()
    finally:
        redis_client().replicaof("NO", "ONE")


def problem_of(error: Exception) -> str:
    outage = outage_of(error)
    return outage.what if outage is not None else ""


class TestOutageOf:
    def test_who_does_not_answer_is_named(self):
        with pymongo.MongoClient(port=1, serverSelectionTimeoutMS=50) as mongo:
            assert problem_of(raised_by(lambda: mongo.admin.command("ping"))) == "MongoDB does not answer"
        assert problem_of(ExecutionTimeout("operation exceeded time limit")) == "MongoDB does not answer"
        assert problem_of(raised_by(redis.Redis(port=1, retry=None).ping)) == "Redis does not answer"
        with socket.create_server(("127.0.0.1", 0)) as mute:
            silent = redis.Redis(host="127.0.0.1", port=mute.getsockname()[1], socket_timeout=0.1, retry=None)
            assert problem_of(raised_by(silent.ping)) == "Redis does not answer"
        assert problem_of(ConnectionInterrupted(connection=None)) == "Redis does not answer"

    def test_a_full_redis_answers(self):
        with full_redis() as full:
            errors = [
                raised_by(lambda: full.set("anything", 1)),
                raised_by(lambda: full.eval("return redis.call('set', 'anything', 1)", 0)),
            ]
        for error in errors:
            assert problem_of(error) == "Redis is full"
            assert "maxmemory" in outage_of(error).remedy

    def test_a_replica_takes_no_changes(self):
        with replica() as it:
            errors = [
                raised_by(lambda: it.set("anything", 1)),
                raised_by(lambda: it.eval("return redis.call('set', 'anything', 1)", 0)),
            ]
        assert {problem_of(error) for error in errors} == {"Redis takes no changes"}

    def test_a_redis_that_cannot_save_says_so(self):
        full_disk = redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it cannot.")
        assert problem_of(full_disk) == "Redis cannot write to its disk"

    def test_a_redis_that_begins_says_so(self):
        begins = redis.BusyLoadingError("Redis is loading the dataset in memory")
        assert problem_of(begins) == "Redis still reads its data"

    def test_a_redis_that_refuses_our_password_answers(self):
        options = redis_client().connection_pool.connection_kwargs
        stranger = redis.Redis(
            host=options["host"], port=options["port"], username="stranger", password="not the word", retry=None
        )
        assert problem_of(raised_by(stranger.ping)) == "Redis refuses our password"

    @pytest.mark.usefixtures("mongo")
    def test_a_mongodb_that_refuses_our_password_answers(self):
        host, port = get_connection().address
        with pymongo.MongoClient(host, port, username="stranger", password="not the word") as stranger:
            error = raised_by(lambda: stranger.get_database("any").get_collection("any").find_one())
        assert problem_of(error) == "MongoDB refuses our user name or password"
        assert "not the word" not in str(error)

    def test_what_the_cache_wraps_counts_as_what_it_is(self):
        wrapped = ConnectionInterrupted(connection=None)
        wrapped.__cause__ = redis.OutOfMemoryError("command not allowed")
        assert problem_of(wrapped) == "Redis is full"

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("x"),
            TimeoutError(),
            redis.ResponseError("WRONGTYPE Operation against a key"),
            OperationFailure("unknown operator", code=2),
        ],
    )
    def test_a_fault_of_ours_is_none(self, error):
        assert outage_of(error) is None
