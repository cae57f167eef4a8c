import pytest

from apps.core import instance
from apps.core.instance import Instance, bound_logs


class TestClaim:
    def test_nobody_else_can_read_what_an_instance_writes(self, tmp_path):
        """Redis makes its file readable for all, and everybody's sessions are in it."""
        Instance.claim(tmp_path / "var").release()
        for folder in (tmp_path / "var").iterdir():
            assert folder.stat().st_mode & 0o077 == 0, folder.name


class TestBoundLogs:
    @pytest.fixture
    def log(self, tmp_path, monkeypatch):
        monkeypatch.setattr(instance, "LOG_MAX_BYTES", 100)
        return tmp_path / "web.log"

    def test_puts_a_large_log_aside_while_a_program_writes_to_it(self, log):
        with log.open("ab", buffering=0) as writer:
            writer.write(b"old " * 50)
            bound_logs(log.parent)
            writer.write(b"new")
        assert log.read_bytes() == b"new"
        assert (log.parent / "web.log.1").read_bytes() == b"old " * 50

    def test_leaves_small_logs_alone_and_keeps_one_old_file(self, log):
        for number in range(3):
            log.write_bytes(b"%d" % number * 101)
            bound_logs(log.parent)
        log.write_bytes(b"small")
        bound_logs(log.parent)
        assert log.read_bytes() == b"small"
        assert sorted(path.name for path in log.parent.iterdir()) == ["web.log", "web.log.1"]
        assert (log.parent / "web.log.1").read_bytes() == b"2" * 101
