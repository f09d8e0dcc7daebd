"""A place between a terminal and its app-server where what they say can be held up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

Data = str | bytes
Connection = ServerConnection | ClientConnection


class Tap:
    """Listens at `path` for a terminal and passes everything on to the server at `endpoint`."""

    def __init__(self, path: Path, endpoint: Path) -> None:
        self.path, self.endpoint = path, endpoint
        self.asked: list[str] = []
        """The methods of the terminal's requests, also of those that are held up."""
        self._open = asyncio.Event()
        self._open.set()
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = await unix_serve(
            self._serve, str(self.path), compression=None, max_size=None, ping_interval=None
        )

    async def close(self) -> None:
        self._open.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def hold(self) -> None:
        """Let nothing through, in either direction, from now on."""
        self._open.clear()

    def let_go(self) -> None:
        """Let through what was held up, in order, and all that follows."""
        self._open.set()

    async def _serve(self, terminal: ServerConnection) -> None:
        async with unix_connect(
            str(self.endpoint),
            uri="ws://localhost/",
            compression=None,
            max_size=None,
            ping_interval=None,
        ) as server:
            asked: asyncio.Queue[Data] = asyncio.Queue()
            told: asyncio.Queue[Data] = asyncio.Queue()
            ways = [
                asyncio.create_task(way)
                for way in (
                    self._hear(terminal, asked, self._note),
                    self._hear(server, told, lambda _data: None),
                    self._tell(asked, server),
                    self._tell(told, terminal),
                )
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            for end in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(end, Exception) and not isinstance(end, ConnectionClosed):
                    raise end

    async def _hear(
        self, source: Connection, said: asyncio.Queue[Data], note: Callable[[Data], None]
    ) -> None:
        async for data in source:
            note(data)
            said.put_nowait(data)

    async def _tell(self, said: asyncio.Queue[Data], target: Connection) -> None:
        while True:
            data = await said.get()
            await self._open.wait()
            await target.send(data)

    def _note(self, data: Data) -> None:
        self.asked.append(json.loads(data).get("method", ""))
