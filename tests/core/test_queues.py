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
