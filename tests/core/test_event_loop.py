import asyncio

import pytest
import uvloop

from apps.core.event_loop import run_fast


def test_what_the_work_gives_is_given_and_it_ran_on_uvloop():
    async def work():
        return asyncio.get_running_loop()

    assert isinstance(run_fast(work()), uvloop.Loop)


def test_what_the_work_raises_is_raised_after_its_tasks_have_ended():
    ended = []

    async def beside():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("beside")

    async def work():
        task = asyncio.create_task(beside())
        await asyncio.sleep(0)
        assert not task.done()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_fast(work())
    assert ended == ["beside"]
