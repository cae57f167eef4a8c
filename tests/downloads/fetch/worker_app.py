"""The real Celery application, with one made-up source in place of the configured ones (SAMPLE_URL)."""

import os

import django

django.setup()

from apps.downloads import tasks  # noqa: E402 - Django first
from apps.downloads.providers.chain import ProviderChain  # noqa: E402
from tests.downloads.fetch.origin import SampleProvider, remote  # noqa: E402
from tests.downloads.samples import audio_plan  # noqa: E402
from ytserver.celery import app  # noqa: E402

__all__ = ["app"]

_url = os.environ["SAMPLE_URL"]
_provider = SampleProvider(make_plan=lambda key: audio_plan(key=key, files=(remote(_url),), duration_s=100.0))
tasks.provider_chain = lambda: ProviderChain([_provider])
