"""Uploads assets in processes that die, like by kill -9, at the step that is asked for.

``python -m tests.telegram_cache.crash_server`` with the environment of the test reads JSON lines (``asset_id``,
``step``, ``settings``) and answers each with the exit code of a child forked for it: 9 when it died where it should.
Django starts once. Nothing is connected and no thread runs when it forks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import django

django.setup()

from django.conf import settings  # noqa: E402 - Django first

from apps.telegram_cache.services import upload, upload_records, uploader  # noqa: E402

CHILD_LIMIT_S = 60


def die(*_: object, **__: object) -> NoReturn:
    os._exit(9)


def die_after(module: object, name: str, *, calls: int = 1) -> None:
    real = getattr(module, name)
    left = [calls]

    def wrapped(*arguments: object, **named: object) -> object:
        result = real(*arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            die()
        return result

    setattr(module, name, wrapped)


def prepare(step: str) -> None:
    """Make this process die at ``step``."""
    if step == "after_claim":
        die_after(upload_records, "claim_upload")
    elif step == "after_plan":
        die_after(upload_records, "save_plan")
    elif step == "after_attempt_is_written":
        die_after(upload_records, "begin_attempt", calls=2)
    elif step == "while_sending":
        uploader.Uploader._request = die  # type: ignore[assignment,method-assign]
    elif step == "after_storing_before_commit":
        upload_records.commit_part = die  # type: ignore[assignment]
    elif step == "after_second_storing_before_commit":
        die_after(upload_records, "commit_part", calls=1)
    elif step == "before_finish":
        upload_records.finish_upload = die  # type: ignore[assignment]
    elif step == "after_finish":
        die_after(upload_records, "finish_upload")


def crash(asset_id: str, step: str, changes: dict[str, Any]) -> None:
    """In the child: upload and die. Coming to the end is exit code 0."""
    signal.alarm(CHILD_LIMIT_S)
    settings.ENV = settings.ENV.model_copy(update=changes)
    prepare(step)
    upload.upload_asset(asset_id)


for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            crash(asked["asset_id"], asked["step"], asked["settings"])
            code = 0
        except BaseException:  # noqa: BLE001 - the parent must not go on as two
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
    sys.stdout.flush()
