"""The front-end files from npm: which of them are served, and what to say when they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import BaseFinder
from django.core.checks import CheckMessage, Warning, register
from django.core.files.storage import FileSystemStorage

VENDOR_FILES = {
    "vendor/bootstrap/bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
    "vendor/bootstrap/bootstrap.bundle.min.js": "bootstrap/dist/js/bootstrap.bundle.min.js",
    "vendor/chart/chart.umd.min.js": "chart.js/dist/chart.umd.min.js",
    "vendor/feather/feather-sprite.svg": "feather-icons/dist/feather-sprite.svg",
}
"""What is served under STATIC_URL, and where it lies in node_modules. Nothing else of node_modules is served."""


def node_modules() -> Path:
    """Where ``scripts/frontend.py`` puts the packages."""
    return Path(settings.BASE_DIR) / "node_modules"


def missing_files() -> list[str]:
    """The front-end files that are not installed, by the path they are served at."""
    return [path for path, source in VENDOR_FILES.items() if not (node_modules() / source).is_file()]


class VendorStorage(FileSystemStorage):
    """Names are the served paths; the files are those in node_modules. Read only."""

    prefix = ""

    def path(self, name: str) -> str:
        return str(node_modules() / VENDOR_FILES[name])


class VendorFinder(BaseFinder):
    """Lets staticfiles find the few files of npm packages that the pages use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.storage = VendorStorage()

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:  # signature of BaseFinder
        source = VENDOR_FILES.get(path)
        found = node_modules() / source if source else None
        if found is None or not found.is_file():
            return []
        return [str(found)] if find_all else str(found)

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, VendorStorage]]:
        absent = set(missing_files())
        yield from ((path, self.storage) for path in VENDOR_FILES if path not in absent)


@register("frontend")
def check_frontend(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Django's system check: the admin works without these files, but looks bare."""
    missing = missing_files()
    if not missing:
        return []
    return [
        Warning(
            f"The admin's front-end files are not installed ({len(missing)} of {len(VENDOR_FILES)} are missing).",
            hint="Run `make setup` (or `python scripts/frontend.py`). The API does not need them.",
            id="dashboard.W001",
        )
    ]
