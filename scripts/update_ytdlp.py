"""Updates yt-dlp alone, in the venv and in the requirements, and keeps the update only if its contract tests pass.

``make update-ytdlp`` runs it. YouTube changes weekly; nothing else should have to change with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("requirements.in", "requirements.txt", "requirements-dev.txt")
NAMES = ("yt-dlp", "yt-dlp-ejs")
CONTRACT_TESTS = (
    "tests/downloads/providers/test_ytdlp.py",
    "tests/downloads/providers/test_ytdlp_errors.py",
    "tests/downloads/providers/test_ytdlp_formats.py",
    "tests/downloads/providers/test_ytdlp_lists.py",
    "tests/downloads/providers/test_ytdlp_ways.py",
    "tests/downloads/test_extras.py",
    "tests/downloads/fetch/test_with_providers.py",
)
PIP = ("-m", "pip", "--disable-pip-version-check", "-qq", "install", "--no-deps")
# What this yt-dlp asks for in its extra "default": the scripts that solve YouTube's challenges belong to one version.
_SHOW_VERSIONS = """
import re
from importlib.metadata import requires, version
wanted = [re.match(r"yt-dlp-ejs==([0-9.]+)", text) for text in requires("yt-dlp") or ()]
print(version("yt-dlp"), *[match[1] for match in wanted if match][:1])
"""

Run = Callable[[Sequence[str]], str]


def run_python(arguments: Sequence[str]) -> str:
    """Run this Python with ``arguments`` in the project's folder; its output. Raises CalledProcessError."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def pinned(text: str) -> dict[str, str]:
    """The versions that a requirements file names for our two packages."""
    found = {name: re.search(rf"^{re.escape(name)}==(\S+)", text, re.MULTILINE) for name in NAMES}
    return {name: match[1] for name, match in found.items() if match}


def with_pins(text: str, versions: dict[str, str]) -> str:
    """The file with these versions in place of its own; nothing else changes."""
    for name, version in versions.items():
        text = re.sub(rf"^{re.escape(name)}==\S+", f"{name}=={version}", text, flags=re.MULTILINE)
    return text


def update(root: Path, run: Run) -> str:
    """Install the newest yt-dlp, test it, and write it down. Returns one line for people.

    When a test fails, the earlier version is installed again, the files stay as they were, and CalledProcessError
    is raised.
    """
    texts = {name: (root / name).read_text(encoding="utf-8") for name in FILES}
    before = pinned(texts["requirements.in"])
    run([*PIP, "--upgrade", "yt-dlp"])
    try:
        version, *scripts = run(["-c", _SHOW_VERSIONS]).split()
        after = {**before, "yt-dlp": version, **({"yt-dlp-ejs": scripts[0]} if scripts else {})}
        if after != before:
            run([*PIP, *(f"{name}=={after[name]}" for name in NAMES if name in after)])
        run(["-m", "pytest", "-q", *CONTRACT_TESTS])
    except (subprocess.CalledProcessError, ValueError):
        run([*PIP, *(f"{name}=={before[name]}" for name in before)])
        raise
    for name, text in texts.items():
        (root / name).write_text(with_pins(text, after), encoding="utf-8")
    if after == before:
        return f"yt-dlp {version} is the newest already; its tests pass."
    return f"yt-dlp {before['yt-dlp']} -> {version}; its tests pass. Restart the server to use it."


def main() -> None:
    try:
        line = update(ROOT, run_python)
    except (subprocess.CalledProcessError, ValueError) as error:
        output = getattr(error, "stdout", "") or ""
        sys.stderr.write(
            f"{output}\nThe update was not kept: {type(error).__name__}. The earlier yt-dlp is in place.\n"
        )
        sys.exit(1)
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
