import json

import pytest
from django.contrib.staticfiles import finders

from apps.dashboard import frontend
from apps.dashboard.frontend import VENDOR_FILES, VendorFinder, check_frontend, missing_files
from ytserver.env import BASE_DIR


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A node_modules folder with every file that is served, and one that is not."""
    for source in (*VENDOR_FILES.values(), "bootstrap/package.json"):
        path = tmp_path / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setattr(frontend, "node_modules", lambda: tmp_path)
    return tmp_path


class TestVendorFinder:
    def test_serves_the_named_files_and_nothing_else_of_node_modules(self, installed):
        listed = [path for path, _ in VendorFinder().list(None)]
        assert listed == list(VENDOR_FILES)
        assert finders.find("vendor/chart/chart.umd.min.js") == str(installed / "chart.js/dist/chart.umd.min.js")
        assert not finders.find("vendor/bootstrap/package.json")
        assert not finders.find("vendor/bootstrap/../../bootstrap/package.json")

    def test_a_listed_file_can_be_opened_for_collectstatic(self, installed):
        path, storage = next(VendorFinder().list(None))
        with storage.open(path) as file:
            assert file.read().decode() == VENDOR_FILES[path]

    def test_finds_nothing_and_does_not_fail_before_set_up(self, tmp_path, monkeypatch):
        monkeypatch.setattr(frontend, "node_modules", lambda: tmp_path / "absent")
        assert list(VendorFinder().list(None)) == []
        assert not finders.find("vendor/chart/chart.umd.min.js")
        assert missing_files() == list(VENDOR_FILES)


class TestCheckFrontend:
    def test_is_silent_when_everything_is_installed(self, installed):
        assert check_frontend(None) == []

    def test_says_what_to_run_when_a_file_is_missing(self, installed):
        (installed / "chart.js/dist/chart.umd.min.js").unlink()
        (warning,) = check_frontend(None)
        assert "1 of 4" in warning.msg
        assert "make setup" in warning.hint


def test_the_lock_file_has_exact_versions_and_no_download_addresses():
    lock = json.loads((BASE_DIR / "package-lock.json").read_text())
    assert "resolved" not in json.dumps(lock)
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
    wanted = json.loads((BASE_DIR / "package.json").read_text())["dependencies"]
    assert wanted == {name: lock["packages"][f"node_modules/{name}"]["version"] for name in wanted}
