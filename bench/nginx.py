"""nginx as a reference, when it is installed: one worker, sendfile, one folder."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from apps.core.embedded import free_port
from apps.core.supervisor import end_with_us

CONFIG = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000; keepalive_timeout 75;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; {tls} root {root}; }}
}}
"""


def is_installed() -> bool:
    return shutil.which("nginx") is not None


@contextmanager
def nginx(root: Path, folder: Path, *, tls_port: int = 0) -> Iterator[int]:
    """The port of an nginx that serves the files in ``root``; at ``tls_port`` over TLS too, with a certificate that
    nobody knows."""
    port, tls = free_port(), ""
    if tls_port:
        certificate = folder / "certificate.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        tls = f"listen 127.0.0.1:{tls_port} ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate};"
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, root=root, port=port, tls=tls))
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
