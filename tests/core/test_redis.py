"""A Redis that takes everything and answers nothing, as behind a network that loses all."""

import socket
import threading

import pytest
import redis

from apps.core import queues
from apps.core import redis as redis_module
from apps.core.redis import redis_client
from tests.waiting import wait_until


class Silent:
    """Takes connections on a port, and what is sent there; says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        while True:
            try:
                self.taken.append(self._listener.accept()[0])
            except OSError:
                return

    def end(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self.taken:
            connection.close()


@pytest.fixture
def silent(settings, monkeypatch):
    server = Silent()
    settings.SERVICES = settings.SERVICES.model_copy(update={"redis_url": server.url})
    for name in ("ANSWER_TIMEOUT_S", "PROBE_TIMEOUT_S"):
        monkeypatch.setattr(redis_module, name, 0.1)
    forget_clients()
    yield server
    server.end()
    if redis_module._gate().is_silent:
        wait_until(lambda: not redis_module._gate().is_silent)
    forget_clients()


def forget_clients():
    redis_client.cache_clear()
    redis_module._gate.cache_clear()


def test_after_one_call_in_vain_nobody_else_waits_for_a_silent_redis(silent):
    with pytest.raises(redis.TimeoutError):
        redis_client().get("x")
    for _ in range(50):
        with pytest.raises(redis.ConnectionError, match="a moment ago"):
            redis_client().get("x")
    with pytest.raises(queues.NotSent, match="ConnectionError"):
        queues.send_task("apps.downloads.tasks.fetch_asset", "x")


def test_calls_go_through_again_once_redis_answers(silent):
    with pytest.raises(redis.TimeoutError):
        redis_client().get("x")
    silent.end()  # a refused connection is an answer too: nobody waits for it
    wait_until(lambda: not redis_module._gate().is_silent)
    with pytest.raises(redis.ConnectionError, match="refused"):
        redis_client().get("x")


def test_where_no_thread_can_be_started_nobody_is_kept_out_for_good(silent, monkeypatch):
    def no_thread(*_arguments, **_options):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(redis_module.threading, "Thread", no_thread)
    with pytest.raises(RuntimeError, match="new thread"):
        redis_client().get("x")
    assert not redis_module._gate().is_silent


def test_a_probe_that_breaks_lets_the_next_call_through(silent, monkeypatch):
    ended = threading.Event()

    def breaks(*_arguments, **_options):
        raise ValueError("not an address")

    monkeypatch.setattr(threading, "excepthook", lambda _broken: ended.set())
    monkeypatch.setattr(redis_module._Gate, "_gives_no_answer", breaks)
    with pytest.raises(redis.TimeoutError):
        redis_client().get("x")
    assert ended.wait(60)  # or the probe of a test before
    wait_until(lambda: not redis_module._gate().is_silent)
