"""The demo is a program's promise to its first visitor, so it is run as one."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest

from apps.core.demo import Demo, DemoFailed, Instance
from ytserver.env import BASE_DIR


def run_demo(tmp_path, **options):
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, BASE_DIR / "manage.py", "demo"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def leftovers(tmp_path):
    return list(tmp_path.glob("ytserver-demo-*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_step_holds_and_nothing_is_left(tmp_path):
    demo = run_demo(tmp_path)
    out, err = demo.communicate(timeout=580)
    assert demo.returncode == 0, out + err
    assert [line[:2] for line in out.splitlines()] == [*(f"{step}." for step in range(1, 9)), "Ev"]
    assert not leftovers(tmp_path)


@pytest.mark.timeout(300)
def test_ctrl_c_in_the_middle_cleans_up(tmp_path):
    demo = run_demo(tmp_path, start_new_session=True)
    try:
        while not leftovers(tmp_path):
            assert demo.poll() is None, demo.communicate()
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 1
    assert "stopped; everything was cleaned up" in err
    assert not leftovers(tmp_path)
    assert not [p for p in psutil.process_iter() if p.pid != os.getpid() and in_folder(p, tmp_path)]


@pytest.mark.timeout(300)
def test_ctrl_c_is_heard_where_the_shell_that_started_it_has_it_ignored(tmp_path):
    """As for what a script starts with ``&``. The server has begun: it is no moment in which Ctrl-C is held back."""
    ignored = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731 - one use
    demo = run_demo(tmp_path, start_new_session=True, preexec_fn=ignored)
    try:
        while not list(tmp_path.glob("ytserver-demo-*/log")):
            assert demo.poll() is None, demo.communicate()
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=200)
    finally:
        demo.kill()
    assert (demo.returncode, leftovers(tmp_path)) == (1, [])
    assert "stopped; everything was cleaned up" in err


def in_folder(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get("VAR_DIR", "").startswith(str(folder))
    except psutil.Error:
        return False


class TestDemo:
    def test_a_server_that_does_not_start_is_a_failed_demo(self, monkeypatch, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        outside = type("Outside", (), {"environment": {"PORT": "0"}})()
        with pytest.raises(DemoFailed, match="PORT: Input should be greater than or equal to 1"):
            Demo(outside, lambda _line: None).run(keep=False)
        assert not list(tmp_path.iterdir())

    def test_a_second_ctrl_c_interrupts_no_cleaning_up(self, monkeypatch, tmp_path):
        def start(_self):
            raise KeyboardInterrupt

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(Instance, "start", start)
        monkeypatch.setattr(Instance, "stop", lambda _self: os.kill(os.getpid(), signal.SIGTERM))
        outside = type("Outside", (), {"environment": {}})()
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                Demo(outside, lambda _line: None).run(keep=False)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert not list(tmp_path.iterdir())

    def test_a_server_that_falls_silent_is_a_failed_demo(self, monkeypatch, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(
            Instance, "start", lambda _self: {"url": "http://127.0.0.1:1", "first_start": {"api_key": ""}}
        )
        outside = type("Outside", (), {"environment": {}})()
        with pytest.raises(DemoFailed, match="did not answer") as caught:
            Demo(outside, lambda _line: None).run(keep=False)
        assert isinstance(caught.value.__cause__, httpx.HTTPError)
