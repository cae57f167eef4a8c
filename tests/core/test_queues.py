import os
import socket
import subprocess
import sys

import pytest
from kombu.transport.redis import PRIORITY_STEPS, Channel

from apps.core import queues
from apps.core.redis import redis_client
from ytserver.celery import app

pytestmark = pytest.mark.usefixtures("redis_server")


def test_messages_of_every_priority_count():
    assert set(queues.waiting_messages().values()) == {0}
    for priority in queues.PRIORITIES:
        redis_client().rpush(queues.list_name("resolve", priority), "a message")
    redis_client().rpush(queues.list_name("care", 9), "a message")
    assert queues.waiting_messages() == {"resolve": 4, "fetch": 0, "upload": 0, "care": 1}


def test_the_lists_are_those_that_celery_uses():
    assert tuple(PRIORITY_STEPS) == queues.PRIORITIES
    assert Channel.sep == queues.SEPARATOR
    assert app.conf.broker_transport_options["global_keyprefix"] == queues.PREFIX


MUTE = """
import django
django.setup()
from apps.core import redis
redis.ANSWER_TIMEOUT_S = 0.3
from apps.core.queues import NotSent, send_task
try:
    send_task("nobody.s")
except NotSent:
    print("not sent")
"""


def test_a_redis_that_says_nothing_is_not_waited_for_for_ever():
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel takes connections, and nobody answers
        nowhere = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{mute.getsockname()[1]}/0"}
        done = subprocess.run(
            [sys.executable, "-c", MUTE], env=nowhere, check=True, timeout=60, capture_output=True, text=True
        )
    assert done.stdout == "not sent\n"
