"""Download a video or song: fetch_sync.py <link> [audio|video]. Reads YTSERVER_URL and YTSERVER_KEY."""

import os
import re
import sys
from pathlib import Path

import httpx


def main(link: str, kind: str = "audio") -> None:
    base_url = os.environ.get("YTSERVER_URL", "http://127.0.0.1:8000")
    headers = {"X-API-Key": os.environ["YTSERVER_KEY"]}
    with httpx.Client(base_url=base_url, headers=headers, timeout=90) as api:
        answer = api.get(f"/api/v1/{kind}", params={"url": link}).json()
        if not answer["status"]:
            sys.exit(f"{answer['error']}: {answer['message']}")
        path = Path(re.sub(r"[^\w .-]", "_", answer["title"])[:100] + "." + answer["container"])
        with api.stream("GET", answer["download_url"]) as response, path.open("wb") as file:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                file.write(chunk)
    print(f"{path}: {path.stat().st_size:,} bytes, from {answer['source']}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
