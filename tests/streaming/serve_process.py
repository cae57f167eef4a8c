"""A server in its own process, so that its memory can be measured: ``python -m tests.streaming.serve_process ROOT``."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")
    import django

    django.setup()
    from dataclasses import replace

    from apps.core.listener import bind_listener
    from apps.streaming.app import StreamApp
    from apps.streaming.hotstore import HotStore
    from tests.streaming.media import ASSET
    from tests.streaming.serving import VIDEO_ID, TableBackend, make_server

    store, backend = HotStore(Path(sys.argv[1])), TableBackend()
    hot_file = store.open(ASSET, 1)
    if hot_file is not None:
        target = backend.add(None)
        backend.targets[VIDEO_ID] = replace(target, size_bytes=hot_file.size_bytes)
        hot_file.close()
    listener = bind_listener("127.0.0.1", 0)
    listener.listen(2048)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    make_server(StreamApp(backend, store)).run(sockets=[listener])


if __name__ == "__main__":
    main()
