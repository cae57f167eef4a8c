"""Download many songs at once: python examples/fetch_async.py <link>... Reads YTSERVER_URL and YTSERVER_KEY."""

import asyncio
import os
import re
import sys
from pathlib import Path

import httpx

AT_ONCE = 8


async def fetch(api: httpx.AsyncClient, gate: asyncio.Semaphore, link: str) -> str:
    async with gate:
        answer = (await api.get("/api/v1/audio", params={"url": link})).json()
        if not answer["status"]:
            return f"{link}: {answer['error']}: {answer['message']}"
        path = Path(re.sub(r"[^\w .-]", "_", answer["title"])[:100] + "." + answer["container"])
        async with api.stream("GET", answer["download_url"]) as response:
            response.raise_for_status()
            with path.open("wb") as file:
                async for chunk in response.aiter_bytes():
                    file.write(chunk)
        return f"{path}: {path.stat().st_size:,} bytes, from {answer['source']}"


async def main(links: list[str]) -> None:
    base_url = os.environ.get("YTSERVER_URL", "http://127.0.0.1:8000")
    headers = {"X-API-Key": os.environ["YTSERVER_KEY"]}
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=90) as api:
        for line in await asyncio.gather(*(fetch(api, gate, link) for link in links)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
