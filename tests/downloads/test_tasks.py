"""What workers do when they are ready."""

from types import SimpleNamespace

import pytest

from apps.downloads import tasks


@pytest.mark.parametrize(("queues", "warmed"), [(["resolve"], 1), (["fetch"], 1), (["upload", "care"], 0)])
def test_only_workers_that_ask_the_sources_start_ytdlp_beforehand(monkeypatch, queues, warmed):
    started = []
    monkeypatch.setattr(tasks, "provider_chain", lambda: SimpleNamespace(warm=lambda: started.append(1)))
    amqp = SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues)))
    tasks.warm_sources(sender=SimpleNamespace(app=SimpleNamespace(amqp=amqp)))
    assert len(started) == warmed
