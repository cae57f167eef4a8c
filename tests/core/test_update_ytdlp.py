import importlib.util
import subprocess
from pathlib import Path

import pytest

from ytserver.env import BASE_DIR

_spec = importlib.util.spec_from_file_location("update_ytdlp", BASE_DIR / "scripts" / "update_ytdlp.py")
update_ytdlp = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(update_ytdlp)

PINS = "httpx==1.0\n# yt-dlp with scripts\nyt-dlp==2026.1.1\n    # via x\nyt-dlp-ejs==0.1.0\n"


class Runs:
    """Notes what would be run; a yt-dlp of ``version`` is there after the first installation."""

    def __init__(self, version: str = "2026.2.2 0.2.0", *, tests_fail: bool = False) -> None:
        self.version = version
        self.tests_fail = tests_fail
        self.installed: list[list[str]] = []

    def __call__(self, arguments: list[str]) -> str:
        if "pip" in arguments:
            self.installed.append([part for part in arguments if part.startswith("yt-dlp")])
        if "pytest" in arguments and self.tests_fail:
            raise subprocess.CalledProcessError(1, arguments)
        return self.version if "-c" in arguments else ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in update_ytdlp.FILES:
        (tmp_path / name).write_text(PINS)
    return tmp_path


def texts(root: Path) -> set[str]:
    return {(root / name).read_text() for name in update_ytdlp.FILES}


def test_only_the_two_pins_change(root):
    runs = Runs()
    assert "2026.1.1 -> 2026.2.2" in update_ytdlp.update(root, runs)
    assert runs.installed == [["yt-dlp"], ["yt-dlp==2026.2.2", "yt-dlp-ejs==0.2.0"]]
    assert texts(root) == {PINS.replace("2026.1.1", "2026.2.2").replace("0.1.0", "0.2.0")}


def test_an_update_whose_tests_fail_is_taken_back(root):
    runs = Runs(tests_fail=True)
    with pytest.raises(subprocess.CalledProcessError):
        update_ytdlp.update(root, runs)
    assert runs.installed[-1] == ["yt-dlp==2026.1.1", "yt-dlp-ejs==0.1.0"]
    assert texts(root) == {PINS}


def test_the_newest_is_only_tested(root):
    runs = Runs("2026.1.1 0.1.0")
    assert "newest already" in update_ytdlp.update(root, runs)
    assert (runs.installed, texts(root)) == ([["yt-dlp"]], {PINS})


def test_the_contract_tests_are_there_and_our_own_files_are_understood():
    assert all((BASE_DIR / name).exists() for name in update_ytdlp.CONTRACT_TESTS)
    for name in update_ytdlp.FILES:
        assert set(update_ytdlp.pinned((BASE_DIR / name).read_text())) == set(update_ytdlp.NAMES)
    assert update_ytdlp.run_python(["-c", update_ytdlp._SHOW_VERSIONS]).split()[1].count(".") == 2
