"""A SOCKS5 proxy (RFC 1928, with the passwords of RFC 1929) that leads every connection to one place."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.standins.server import StandIn

NO_PASSWORD, PASSWORD, NONE_FITS = 0, 2, 0xFF
NAME, IPV4 = 3, 1


class SocksStandIn(StandIn):
    """``asked`` holds the hosts that clients named; ``users`` how they logged in."""

    def __init__(self, *, target_port: int, password: str = "") -> None:
        super().__init__()
        self.target_port = target_port
        self.password = password
        self.asked: list[str] = []
        self.users: list[str] = []
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        login = f"user:{self.password}@" if self.password else ""
        return f"socks5://{login}127.0.0.1:{self.port}"

    async def serve(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tunnels):
            task.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)
        await super().close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._tunnel(reader, writer))
        self._tunnels.add(task)
        task.add_done_callback(self._tunnels.discard)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near: asyncio.StreamWriter | None = None
        ways: list[asyncio.Task[None]] = []
        try:
            if await self._agree(reader, writer):
                near_reader, near = await asyncio.open_connection("127.0.0.1", self.target_port)
                writer.write(bytes((5, 0, 0, IPV4, 0, 0, 0, 0, 0, 0)))
                ways = [asyncio.create_task(_pump(reader, near)), asyncio.create_task(_pump(near_reader, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (near, writer):
                if end is not None:
                    end.close()

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        _version, count = await reader.readexactly(2)
        offered = await reader.readexactly(count)
        wanted = PASSWORD if self.password else NO_PASSWORD
        writer.write(bytes((5, wanted if wanted in offered else NONE_FITS)))
        if wanted not in offered:
            return False
        if self.password:
            user = await self._read_text(reader, skip=1)
            word = await self._read_text(reader)
            self.users.append(user)
            writer.write(bytes((1, 0 if word == self.password else 1)))
            if word != self.password:
                return False
        *_, kind = await reader.readexactly(4)
        self.asked.append(await self._read_text(reader) if kind == NAME else str(list(await reader.readexactly(4))))
        await reader.readexactly(2)
        return True

    async def _read_text(self, reader: asyncio.StreamReader, *, skip: int = 0) -> str:
        await reader.readexactly(skip)
        return (await reader.readexactly((await reader.readexactly(1))[0])).decode()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(64 * 1024):
            writer.write(piece)
            await writer.drain()
        writer.close()
