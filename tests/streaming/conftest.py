"""Fixtures of the streaming tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.streaming.hotstore import HotStore


@pytest.fixture
def store(tmp_path: Path) -> HotStore:
    return HotStore(tmp_path / "hot")
