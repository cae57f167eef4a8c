"""What holds yt-dlp's process: it ends with its parent, has bounded memory, and connects only where it may."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from apps.core.addresses import IpNetwork, is_allowed_private, is_public

PR_SET_PDEATHSIG = 1
MAX_FILE_BYTES = 64 * 1024 * 1024  # of what yt-dlp keeps in its cache folder


def kill_own_group(*_: Any) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def die_with_parent(parent_pid: int) -> None:
    signal.signal(signal.SIGTERM, kill_own_group)  # takes Node along
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        kill_own_group()


def limit_resources(memory_bytes: int) -> None:
    """RLIMIT_DATA, not RLIMIT_AS: Node reserves far more address space than it uses."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Guard:
    """Every connection of this process is to a public address or one of ``allow``, whatever a page says.

    While proxies are used, only to those and to ``allow``: nothing goes past them. A proxy's own address may be
    private, because the operator chose it; which hosts a proxy then connects to is the proxy's matter.
    """

    def __init__(self, allow: Iterable[IpNetwork]) -> None:
        self._allow = tuple(allow)
        self._proxy_hosts: frozenset[str] = frozenset()
        self._proxy_addresses: set[str] = set()
        self._resolve = socket.getaddrinfo

    def install(self) -> None:
        """For the life of the process."""
        socket.getaddrinfo = self._getaddrinfo
        sys.addaudithook(self._check)

    def use_proxies(self, *urls: str | None) -> None:
        """From now on only through these; with none, directly."""
        hosts = frozenset(urlsplit(url).hostname or "" for url in urls if url)
        if hosts != self._proxy_hosts:
            self._proxy_hosts, self._proxy_addresses = hosts, set(hosts)

    def _getaddrinfo(self, host: Any, *arguments: Any, **options: Any) -> Any:
        found = self._resolve(host, *arguments, **options)
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        if name.lower() in self._proxy_hosts:
            self._proxy_addresses |= {str(entry[4][0]) for entry in found}
        return found

    def _check(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not isinstance(arguments[1], tuple):
            return
        host = str(arguments[1][0])
        if self._proxy_hosts and host.lower() in self._proxy_addresses:
            return
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise PermissionError("refused to connect to a name that was not resolved") from None
        if is_allowed_private(address, self._allow) or (is_public(address) and not self._proxy_hosts):
            return
        raise PermissionError("refused to connect past the proxy" if self._proxy_hosts else "refused: private address")
