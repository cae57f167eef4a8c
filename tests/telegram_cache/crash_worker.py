"""Uploads one asset in a process of its own and dies, like by kill -9, at the step named in its arguments.

Run as ``python -m tests.telegram_cache.crash_worker <asset id> <step>`` with the environment of the test.
"""

from __future__ import annotations

import os
import sys

import django

django.setup()

from apps.telegram_cache.services import upload, upload_records  # noqa: E402 - Django first


def die(*_: object, **__: object) -> None:
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


asset_id, step = sys.argv[1:]
if step == "after_claim":
    die_after(upload_records, "claim_upload")
elif step == "after_plan":
    die_after(upload_records, "save_plan")
elif step == "after_attempt_is_written":
    die_after(upload_records, "begin_attempt", calls=2)
elif step == "while_sending":
    upload.Uploader._request = die  # type: ignore[assignment,method-assign]
elif step == "after_storing_before_commit":
    upload_records.commit_part = die  # type: ignore[assignment]
elif step == "after_second_storing_before_commit":
    die_after(upload_records, "commit_part", calls=1)
elif step == "before_finish":
    upload_records.finish_upload = die  # type: ignore[assignment]
elif step == "after_finish":
    die_after(upload_records, "finish_upload")
upload.upload_asset(asset_id)
