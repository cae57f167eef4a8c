"""Made-up media bytes and their record, and hot store work done in another process."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import textwrap
from pathlib import Path

from apps.streaming.hotstore import BLOCK_BYTES

ASSET = "0123456789abcdef01234567"
PROJECT = Path(__file__).resolve().parents[2]


def make_bytes(size: int, *, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def block_hashes(data: bytes) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(data[at : at + BLOCK_BYTES]).digest() for at in range(0, len(data), BLOCK_BYTES))


def block_of(data: bytes, block: int) -> bytes:
    return data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]


def start_process(root: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run ``code`` in another Python, with ``store`` over the same folder, ``ASSET``, ``media`` and ``sys`` at hand."""
    prelude = f"""
        import sys, time
        from pathlib import Path
        from apps.streaming.hotstore import *
        from tests.streaming import media
        from tests.streaming.media import ASSET
        store = HotStore(Path({str(root)!r}))
        def say(text):
            print(text, flush=True)
    """
    program = textwrap.dedent(prelude) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )


def run_process(root: Path, code: str, *arguments: str) -> str:
    with start_process(root, code, *arguments) as process:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return output
