"""Many real processes that do one thing at the same moment."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django

READY_TIMEOUT_S = 60


def _child(work: Callable[..., Any], threads: int, barrier: Any, results: Any, arguments: tuple[Any, ...]) -> None:
    django.setup()
    with ThreadPoolExecutor(threads) as pool:
        barrier.wait(READY_TIMEOUT_S)
        futures = [pool.submit(work, *arguments) for _ in range(threads)]
    results.put([str(future.exception()) if future.exception() else future.result() for future in futures])


def race(work: Callable[..., Any], *arguments: Any, processes: int, threads: int = 1) -> list[Any]:
    """Run ``work(*arguments)`` in every thread of every process at once; the results of all, errors as texts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.downloads.preload"])
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(target=_child, args=(work, threads, barrier, results, arguments)) for _ in range(processes)
    ]
    for child in children:
        child.start()
    found = [result for _ in children for result in results.get()]
    for child in children:
        child.join(READY_TIMEOUT_S)
    return found


def claim_once(video_id: str) -> tuple[bool, int]:
    from apps.core.owners import make_owner
    from apps.downloads.services.claims import claim_asset
    from tests.downloads.samples import audio_key

    claim = claim_asset(key=audio_key(video_id), owner=make_owner(), lease_s=30)
    return claim.won, claim.attempt


def ask_for_job(video_id: str, times: int) -> set[str]:
    from apps.downloads.services.jobs import ensure_job
    from tests.downloads.samples import audio_key, video_info

    key, info = audio_key(video_id), video_info(video_id)
    return {str(ensure_job(key=key, info=info, key_prefix="testkey1").id) for _ in range(times)}


def ask_for_new_jobs(prefix: str, times: int) -> int:
    """How many of ``times`` fetches of different videos the key may begin."""
    import secrets

    from apps.core.errors import TooManyJobs
    from apps.downloads.services.jobs import ensure_job
    from tests.downloads.samples import audio_key, video_info

    begun = 0
    for _ in range(times):
        video_id = secrets.token_urlsafe(9)[:11]
        try:
            ensure_job(key=audio_key(video_id), info=video_info(video_id), key_prefix=prefix)
        except TooManyJobs:
            continue
        begun += 1
    return begun


def claim_and_hold(video_id: str) -> None:
    """Claim and die without giving anything back."""
    import os

    from apps.core.owners import make_owner
    from apps.downloads.services.claims import claim_asset
    from tests.downloads.samples import audio_key

    claim_asset(key=audio_key(video_id), owner=make_owner(), lease_s=30)
    os._exit(0)
