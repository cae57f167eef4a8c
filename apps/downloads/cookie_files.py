"""Cookies in Netscape's format (cookies.txt): checked, and cut down to what YouTube gets to see."""

from __future__ import annotations

import re

from apps.core.errors import InvalidParameter

HEADER = "# Netscape HTTP Cookie File\n"
MAX_COOKIES = 300
MAX_CHARS = 48 * 1024
DOMAINS = ("youtube.com", "google.com", "youtube-nocookie.com", "googlevideo.com")
_HTTP_ONLY = "#HttpOnly_"
_FIELDS = 7
_LOGIN = frozenset({"LOGIN_INFO", "SID", "__Secure-3PSID", "__Secure-1PSID"})
_EXPIRES = re.compile(r"\d{0,12}(\.\d{1,6})?", re.ASCII)


def read_cookies(text: str) -> str:
    """The cookies of YouTube and Google in ``text``, as a cookies.txt; those of other sites are left out.

    Raises InvalidParameter, without quoting anything of it.
    """
    if text.lstrip()[:1] in {"{", "["}:
        raise InvalidParameter("cookies: this is JSON. Export them as a cookies.txt (Netscape format).")
    lines = [line.removeprefix(_HTTP_ONLY) for line in text.splitlines()]
    found = [line for line in lines if line.strip() and not line.startswith("#") and _is_ours(line)]
    if not found:
        raise InvalidParameter("cookies: there are no cookies of youtube.com in this. It must be a cookies.txt.")
    kept = HEADER + "".join(f"{line}\n" for line in found)
    if len(found) > MAX_COOKIES or len(kept) > MAX_CHARS:
        raise InvalidParameter("cookies: these are more cookies than YouTube sets.")
    return kept


def describe_cookies(text: str) -> str:
    """In a few words, without any value."""
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    names = {row[5] for row in rows if len(row) == _FIELDS}
    count = "1 cookie" if len(names) == 1 else f"{len(names)} cookies"
    return f"{count}, {'with a login' if names & _LOGIN else 'no login'}"


def _is_ours(line: str) -> bool:
    fields = line.split("\t")
    if len(fields) != _FIELDS or not _EXPIRES.fullmatch(fields[4]) or not "".join(fields).isprintable():
        return False
    domain = fields[0].lstrip(".").lower()
    return any(domain == name or domain.endswith(f".{name}") for name in DOMAINS)
