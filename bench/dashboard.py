"""The admin's live dashboard as somebody has it open: logs in, and takes what the websocket sends."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

LOGIN = "/admin/login"
TIMEOUT_S = 30
LOOK_S = 0.5
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MOMENTS_AWAITED_S = 20.0


@dataclass
class Watched:
    """What the dashboard was sent."""

    gaps_s: list[float] = field(default_factory=list)  # between one moment and the next
    most_streams: int = 0  # of those that it showed at once
    error: str = ""  # why it ended early; empty: it did not


def make_owner() -> tuple[str, str]:
    """Name and password of an owner, made now."""
    from apps.keys.documents import Role
    from apps.keys.services import create_user

    password = secrets.token_urlsafe(16)
    create_user(username="bench", password=password, role=Role.OWNER)
    return "bench", password


def log_in(port: int, name: str, password: str) -> str:
    """The Cookie header of somebody who has logged in."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=TIMEOUT_S) as client:
        client.get(LOGIN).raise_for_status()
        fields = {"username": name, "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        client.post(LOGIN, data=fields)
        client.get("/admin/keys").raise_for_status()
        return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


@contextmanager
def watching(port: int, cookies: str) -> Iterator[Watched]:
    """The dashboard is open and has shown a moment when the block begins; it is closed when the block ends."""
    watched = Watched()
    shown, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=_watch, args=(port, cookies, watched, shown, ended), name="dashboard")
    thread.start()
    try:
        shown.wait(MOMENTS_AWAITED_S)
        yield watched
    finally:
        ended.set()
        thread.join(TIMEOUT_S)


def _watch(port: int, cookies: str, watched: Watched, shown: threading.Event, ended: threading.Event) -> None:
    headers = {"Cookie": cookies, "Origin": f"http://127.0.0.1:{port}"}
    try:
        with connect(
            f"ws://127.0.0.1:{port}/ws/admin/live",
            additional_headers=headers,
            open_timeout=TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
        ) as socket:
            last = None
            while not ended.is_set():
                try:
                    message = json.loads(socket.recv(timeout=LOOK_S))
                except TimeoutError:
                    continue
                if message["type"] != "moment":
                    continue
                now = time.monotonic()
                if last is not None:
                    watched.gaps_s.append(now - last)
                last = now
                watched.most_streams = max(watched.most_streams, message["figures"]["streams"])
                shown.set()
            if last is not None:
                watched.gaps_s.append(time.monotonic() - last)  # nothing since then counts as a gap, too
    except (OSError, WebSocketException) as error:
        watched.error = f"{type(error).__name__}: {error}"
