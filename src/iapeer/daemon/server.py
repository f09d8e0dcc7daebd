"""The daemon's listeners: one HTTP server on a unix socket and on loopback TCP, in our own loop.

Start: TCP, unix socket, `router.json`. Stop: no new connections, streams
ended, running requests given a moment, the rest cut, `router.json` and the socket's file removed
if they are still ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from iapeer.core.errors import IapeerError
from iapeer.core.settings import Settings
from iapeer.daemon import discovery
from iapeer.daemon.answers import log_crash
from iapeer.daemon.app import MCP_PATH, build_app
from iapeer.daemon.discovery import Discovery
from iapeer.daemon.inbox_stream import InboxStreams
from iapeer.daemon.listeners import LOOPBACK, UnixListener, bind_tcp
from iapeer.daemon.protocol import PeerProtocol
from iapeer.daemon.services import Services
from iapeer.storage.paths import Paths

KEEP_ALIVE_S = 30
GRACE_S = 2.0
"""How long running requests may take to end at stop."""
_ACCEPT_TURNS = 5
"""Turns of the loop until a connection that it has just accepted is known to the server: three."""
_START_S = 10.0
_STEP_S = 1.0

_QUIET = ("uvicorn.error", "sse_starlette")
"""Loggers that write bodies at DEBUG (sse-starlette) or a line per request."""


class DaemonServer:
    """The HTTP edge of the daemon; `start` and `stop` are called once each."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._discovery_path = Paths(settings.root).discovery
        self._streams = InboxStreams(services.inbox)
        self._app = build_app(settings, services, self._streams, lambda: self.port)
        self._port = settings.port
        self._tcp: socket.socket | None = None
        self._unix: UnixListener | None = None
        self._found: Discovery | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Return the TCP port; the real one after `start`, also for port 0."""
        return self._port

    @property
    def url(self) -> str:
        """Return the URL MCP clients are configured with."""
        return f"http://{LOOPBACK}:{self.port}{MCP_PATH}"

    async def start(self) -> None:
        """Bind, serve, announce; when this returns both listeners answer.

        Raises PortBusy, DaemonRunning, ConfigError or StorageError; then nothing of ours is left.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop accepting, end streams and requests, remove our files; bounded, never raises."""
        self._streams.close()
        if self._server is not None:
            self._server.finish()
        await _settle([self._serving] if self._serving else [], GRACE_S + 3 * _STEP_S)
        self._serving = None
        try:
            self._close_files()
        except IapeerError as error:
            log_crash("remove our files", error)

    async def _start(self) -> None:
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._tcp = bind_tcp(self._settings.port)
        self._unix = UnixListener(self._settings.daemon_socket)
        self._port = self._tcp.getsockname()[1]
        self._server = _Server(_config(self._app))
        sockets = [self._unix.sock, self._tcp]
        self._serving = asyncio.create_task(self._server.serve(sockets), name="http")
        await self._server.wait_ready(self._serving)
        self._found = Discovery(sock=str(self._unix.path), tcp=self.url)
        discovery.write(self._discovery_path, self._found)

    def _close_files(self) -> None:
        """Close the sockets and remove what is ours of their traces; raises StorageError."""
        found, self._found = self._found, None
        unix, self._unix = self._unix, None
        if self._tcp is not None:
            self._tcp.close()
        if found is not None:
            discovery.remove(self._discovery_path, found)
        if unix is not None:
            unix.sock.close()
            unix.unlink()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, its ten wake-ups a second and its unbounded waits."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ready = asyncio.Event()
        self._finish = asyncio.Event()

    def finish(self) -> None:
        """Let `serve` shut down and return."""
        self._finish.set()

    async def wait_ready(self, serving: asyncio.Task[None]) -> None:
        """Wait until the listeners are served; raises what `serving` raised instead."""
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait((ready, serving), timeout=_START_S, return_when="FIRST_COMPLETED")
        ready.cancel()
        if serving.done():
            await serving
        if not self._ready.is_set():
            raise IapeerError(f"the HTTP server did not start within {_START_S:g} s")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program this server runs in."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the sockets and say so."""
        await super().startup(sockets)
        self._ready.set()

    async def main_loop(self) -> None:
        """Wait to be told; the date header that uvicorn ticks for is off."""
        await self._finish.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, let running requests end for `GRACE_S`, cut what is left.

        First nobody is let in any more: a connection that asyncio has accepted and not handed over
        when its server closes stays open until the garbage collector finds it (Python 3.11).
        """
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        running = list(self.server_state.tasks)
        if running:
            await asyncio.wait(running, timeout=GRACE_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await _settle(running, 0)


async def _settle(tasks: list[asyncio.Task[None]], grace_s: float) -> None:
    """Wait for tasks, then cancel them and wait again; a failed one leaves a line in the log."""
    if not tasks:
        return
    _done, late = await asyncio.wait(tasks, timeout=grace_s)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=_STEP_S)
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            log_crash(task.get_name(), error)


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PeerProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
