"""Addresses of the running databases for somebody whose password is wrong."""

from __future__ import annotations

from urllib.parse import quote, urlunsplit

from mongoengine.connection import get_connection

from apps.core.redis import redis_client

NAME, WRONG_WORD = "stranger", "not-the-word"


def mongo_uri_of_a_stranger() -> str:
    host, port = get_connection().address
    return _uri("mongodb", f"{host}:{port}", "/x", query="directConnection=true")


def redis_url_of_a_stranger() -> str:
    options = redis_client().connection_pool.connection_kwargs
    return _uri("redis", f"{options['host']}:{options['port']}", "/0")


def _uri(scheme: str, place: str, path: str, *, query: str = "") -> str:
    return urlunsplit((scheme, f"{quote(NAME)}:{quote(WRONG_WORD)}@{place}", path, query, ""))
