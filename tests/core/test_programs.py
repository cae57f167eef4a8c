"""The background workers of ``up``, and the clock that one of them carries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from django.conf import settings

from apps.core.heartbeats import QUEUES
from apps.core.programs import worker_programs
from apps.core.queues import waiting_messages
from apps.core.supervisor import end_with_us
from tests.waiting import wait_until
from ytserver import clock
from ytserver.celery import app


def commands(tmp_path) -> dict[str, list[str]]:
    made = worker_programs(settings.ENV, log_dir=tmp_path, mark="")
    return {program.command[program.command.index("-Q") + 1]: program.command for program in made}


def test_each_queue_has_a_worker_of_its_own_so_that_uploads_hold_up_no_care(tmp_path):
    assert set(commands(tmp_path)) == set(QUEUES)


def test_one_worker_has_the_clock(tmp_path):
    assert [queue for queue, command in commands(tmp_path).items() if "--clock" in command] == ["care"]


def test_what_operators_may_ask_for_in_any_number_does_not_fill_the_threads_of_care():
    assert app.conf.task_routes["apps.telegram_cache.tasks.verify_asset"] == {"queue": "upload"}


@pytest.mark.usefixtures("redis_server")
def test_a_worker_with_the_clock_has_periodic_work_sent_and_ends_when_told(tmp_path):
    command = [word if word != "care" else "nothing" for word in commands(tmp_path)["care"]]
    command[command.index("-s") + 1] = str(tmp_path / "schedule")
    with subprocess.Popen(end_with_us(command), env=os.environ, stdout=sys.stderr, stderr=sys.stderr) as process:
        try:
            wait_until(lambda: waiting_messages()["care"], timeout_s=60)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_clock_that_fails_ends_its_worker(monkeypatch, tmp_path):
    ended = []
    monkeypatch.setattr(clock.os, "kill", lambda pid, number: ended.append((pid, number)))
    step = clock.Clock(SimpleNamespace(), clock=True)
    assert step.enabled
    assert not clock.Clock(SimpleNamespace()).enabled
    step.start(SimpleNamespace(app=app, schedule_filename=str(tmp_path / "no" / "such" / "folder" / "schedule")))
    wait_until(lambda: ended)
    assert ended == [(os.getpid(), signal.SIGTERM)]
