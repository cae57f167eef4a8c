"""Small files that only their owner may read: secrets, passwords, addresses with passwords."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write ``path`` whole or not at all, readable by its owner only."""
    temporary = _private_copy(path, text)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Read a secret of this instance, or make it once (mode 0600). Of two that make it at once both read the same."""
    if not path.exists():
        temporary = _private_copy(path, make())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another process made it in between; theirs counts
        finally:
            temporary.unlink()
    return path.read_text().strip()


def _private_copy(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return temporary
