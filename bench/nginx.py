"""nginx as a reference, when it is installed: one worker, sendfile, one folder."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.core.embedded import free_port
from apps.core.supervisor import end_with_us

CONFIG = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000; keepalive_timeout 75;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""


def is_installed() -> bool:
    return shutil.which("nginx") is not None


@contextmanager
def nginx(root: Path, folder: Path) -> Iterator[int]:
    """The port of an nginx that serves the files in ``root``."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, root=root, port=port))
    command = [str(shutil.which("nginx")), "-c", str(config), "-p", str(folder)]
    process = subprocess.Popen(end_with_us(command), stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing", timeout=1)
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)
