"""A second MongoDB with less in it, so that both sizes can be measured at the same time."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mongoengine import get_db
from pymongo import MongoClient
from pymongo.collection import Collection

from apps.core.embedded import free_port, mongod_command, prepare_mongod
from apps.core.supervisor import end_with_us
from bench.instance import end_process


@contextmanager
def smaller_copy(left_out: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The address of a MongoDB with the same collections and indexes, without what ``left_out`` finds in each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ytserver-bench-")))
        port = free_port()
        command = mongod_command(folder, port=port, log=folder / "mongod.log")
        process = subprocess.Popen(end_with_us(command), stdout=subprocess.DEVNULL)
        stack.callback(end_process, process)
        prepare_mongod(port)
        address = f"mongodb://127.0.0.1:{port}/bench?directConnection=true"
        client: MongoClient[dict[str, Any]] = stack.enter_context(MongoClient(address))
        for collection in get_db().list_collections(filter={"type": "collection"}):
            if not collection["name"].startswith("system."):
                _copy(client, collection["name"], left_out.get(collection["name"]))
        client.admin.command("fsync")
        yield address


def _copy(client: MongoClient[dict[str, Any]], name: str, left_out: Mapping[str, Any] | None) -> None:
    source, target = get_db()[name], client.get_default_database()
    if rows := list(source.find({"$nor": [left_out]} if left_out else {})):
        target[name].insert_many(rows)
    target.command("createIndexes", name, indexes=indexes_of(source))


def indexes_of(collection: Collection[dict[str, Any]]) -> list[dict[str, Any]]:
    """As createIndexes takes them."""
    return [{field: value for field, value in index.items() if field != "v"} for index in collection.list_indexes()]
