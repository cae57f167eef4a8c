"""Starts a whole instance in the right order, keeps it running, and stops it. The command line is in ``up``."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

import httpx
import redis
from django.conf import settings

from apps.core import programs
from apps.core.embedded import (
    EmbeddedServerError,
    EmbeddedServices,
    choose_services,
    prepare_mongod,
    wait_for_redis,
)
from apps.core.forking import Nursery, can_fork_programs
from apps.core.heartbeats import forget_beats, idle_queues
from apps.core.instance import Instance, InstanceError, bound_logs, last_log_line, raise_file_limit, stop_leftovers
from apps.core.mongo import reconnect
from apps.core.outages import trouble_of
from apps.core.redis import redis_client
from apps.core.supervisor import ProgramEnded, Supervisor
from ytserver.env import Env, find_service_urls

READY_TIMEOUT_S = 120.0
POLL_S = 0.05
STILL_EVERY_S = 30.0

Prepared = TypeVar("Prepared")


class StartFailed(Exception):
    """The instance could not start. The text is one clear line for the operator."""


class Launcher:
    """One instance, from its lock to its last process. ``report`` gets one plain line for each notable thing."""

    def __init__(self, env: Env, report: Callable[[str], None]) -> None:
        self._env = env
        self._report = report
        self.supervisor = Supervisor(report)

    def launch(self, instance: Instance, listener: socket.socket, prepare_database: Callable[[], Prepared]) -> Prepared:
        """Start everything and return what ``prepare_database`` returned once requests are answered. That may take as
        long as it likes: it runs in a thread, which is left alone when the start ends before it.

        Raises StartFailed, or StopAsked when a signal came in between. Either way call ``stop``.
        """
        try:
            return self._launch(instance, listener, prepare_database)
        except ProgramEnded as error:
            log = error.program.log
            line = f": {last_log_line(log)}" if log and last_log_line(log) else ""
            raise StartFailed(f"{error}{line}. Its logs are in {instance.log_dir}") from error
        except (InstanceError, EmbeddedServerError) as error:
            raise StartFailed(str(error)) from error

    def _launch(
        self, instance: Instance, listener: socket.socket, prepare_database: Callable[[], Prepared]
    ) -> Prepared:
        if count := stop_leftovers(instance.mark):
            self._report(f"Stopped {count} processes that an earlier run left behind")
        bound_logs(instance.log_dir)
        if warning := raise_file_limit():
            self._report(f"Note: {warning}")
        services = choose_services(self._env)
        self._start_embedded(services, instance)
        self._start_nursery(instance)
        self._wait_for_databases(services)
        prepared = self._wait_for_result("the database", prepare_database)
        if can_fork_programs():
            self._wait_for("the nursery", self.supervisor.nursery_is_ready)
        log_dir, mark = instance.log_dir, instance.mark
        for program in (
            *programs.web_programs(self._env, listener_fd=listener.fileno(), mark=mark, log=log_dir / "web.log"),
            *programs.worker_programs(self._env, log_dir=log_dir, mark=mark),
        ):
            self.supervisor.start(program)
        self._wait_for("the web server", self._web_answers)
        self._wait_for("the background workers", lambda: not idle_queues())
        return prepared

    def _start_embedded(self, services: EmbeddedServices, instance: Instance) -> None:
        for port, program in (
            (services.mongo_port, programs.mongod_program),
            (services.redis_port, programs.redis_program),
        ):
            if port is not None:
                self.supervisor.start(program(services, var_dir=instance.var_dir, mark=instance.mark))

    def _start_nursery(self, instance: Instance) -> None:
        if can_fork_programs():
            nursery = Nursery()
            program = programs.nursery_program(nursery, log_dir=instance.log_dir, mark=instance.mark)
            self.supervisor.start_nursery(nursery, program)

    def _wait_for_databases(self, services: EmbeddedServices) -> None:
        check = self.supervisor.check
        if services.redis_port is not None:
            wait_for_redis(services.redis_port, password=services.redis_password, check=check)
        if services.mongo_port is not None:
            prepare_mongod(services.mongo_port, password=services.mongo_password, check=check)
        settings.SERVICES = find_service_urls(self._env)  # this process read its settings before they were decided
        reconnect()
        try:
            redis_client().ping()
        except redis.RedisError as error:
            raise StartFailed(f"Redis {trouble_of('Redis', error)}: check REDIS_URL") from error
        if services.redis_port is not None:
            forget_beats()

    def _web_answers(self) -> bool:
        try:
            answer = httpx.get(
                f"{local_url(self._env)}/healthz", headers={"Host": self._env.own_host}, timeout=2, trust_env=False
            )
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def _wait_for_result(self, what: str, work: Callable[[], Prepared]) -> Prepared:
        """Signals to stop, and programs that end, are noticed meanwhile, and people told that it goes on."""
        outcome: Future[Prepared] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                outcome.set_exception(error)

        threading.Thread(target=run, name=f"prepare {what}", daemon=True).start()
        began_at = told_at = time.monotonic()
        while not wait([outcome], timeout=POLL_S).done:
            self.supervisor.check()
            if time.monotonic() - told_at >= STILL_EVERY_S:
                told_at = time.monotonic()
                self._report(f"Still preparing {what}, since {told_at - began_at:.0f} s ...")
        return outcome.result()

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not condition():
            self.supervisor.check()
            if time.monotonic() > deadline:
                raise StartFailed(f"{what} did not answer within {READY_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def run(self) -> None:
        """Keep everything running, and the logs short, until a signal to stop arrives."""
        self.supervisor.run(care=self._bound_logs)

    def _bound_logs(self) -> None:
        with suppress(OSError):  # no room for the copy: the programs go on all the same
            bound_logs(self._env.var_dir.absolute() / "log")

    def stop(self, listener: socket.socket) -> None:
        listener.close()  # nobody new gets in while open requests finish
        self.supervisor.stop()


def local_url(env: Env) -> str:
    """Where this machine itself reaches the web server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(env.host, env.host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{env.port}" if ":" in host else f"http://{host}:{env.port}"
