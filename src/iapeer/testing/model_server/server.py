"""The model server: a loopback listener around the app, for `async with` and for the command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import uvicorn

from iapeer.core.errors import IapeerError

from .app import ModelApp
from .record import RecordedRequest, Recorder
from .rules import Rule, Script

_HOST = "127.0.0.1"
_START_S = 10.0
_GRACE_S = 2.0
_BACKLOG = 128
_MOST_AT_ONCE = 256
"""Connections; more are answered with 503."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, its ticks and its unbounded waits."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.finish = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.finish.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        running = list(self.server_state.tasks)
        if running:
            await asyncio.wait(running, timeout=_GRACE_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class ModelServer:
    """A scripted model on loopback.

        async with ModelServer([Rule("hello", (Say("hi"),))]) as model:
            ...  # point an agent at model.url (Anthropic) or model.url + "/v1" (OpenAI)
            asked = await model.wait_for(lambda request: request.has_tools)

    `requests` are the last 1,000 requests (256 MB of bodies at most), oldest first, also after
    the server has stopped. `port` 0 takes a free one. Raises OSError when the port is taken.
    """

    def __init__(self, rules: Iterable[Rule] | Script = (), *, port: int = 0) -> None:
        self._script = rules if isinstance(rules, Script) else Script(rules=tuple(rules))
        self._port = port
        self._recorder = Recorder()
        self._news = asyncio.Condition()
        self._app: ModelApp | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address without a path, e.g. `http://127.0.0.1:40123`."""
        return f"http://{_HOST}:{self._port}"

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests that have come, oldest first."""
        return tuple(self._recorder)

    async def wait_for(
        self, wanted: Callable[[RecordedRequest], bool], timeout_s: float = 30.0
    ) -> RecordedRequest:
        """Return the oldest kept request that is `wanted`, waiting for it to come.

        A request is seen before its answer begins. Raises TimeoutError after `timeout_s`.
        """
        looked = 0
        async with asyncio.timeout(timeout_s), self._news:
            while True:
                for request in self._recorder:
                    if request.number > looked and wanted(request):
                        return request
                looked = self._recorder.count
                await self._news.wait()

    async def start(self) -> None:
        """Listen and serve."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_HOST, self._port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._app = ModelApp(self._script, self._recorder, self._seen)
        self._server = _Server(_config(self._app))
        self._serving = asyncio.create_task(self._serve(self._server, listener))

    async def stop(self) -> None:
        """Cut running answers off, close the port and wait until all is closed."""
        if self._app is None or self._server is None or self._serving is None:
            return
        self._app.close()
        self._server.finish.set()
        done, _late = await asyncio.wait((self._serving,), timeout=_START_S)
        if not done:
            self._serving.cancel()
            raise IapeerError(f"the model server did not stop within {_START_S:g} s")
        self._app = self._server = None
        await self._serving

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _serve(self, server: _Server, listener: socket.socket) -> None:
        try:
            await server.serve([listener])
        finally:
            listener.close()

    async def _seen(self, _request: RecordedRequest) -> None:
        async with self._news:
            self._news.notify_all()


def _config(app: ModelApp) -> uvicorn.Config:
    return uvicorn.Config(
        app.asgi,
        http="httptools",
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=_MOST_AT_ONCE,
    )
