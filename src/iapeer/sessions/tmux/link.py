"""Requests to one tmux server: by the control client while it works, else by exec."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from iapeer.core.errors import TmuxError
from iapeer.sessions.tmux.clients import Hear
from iapeer.sessions.tmux.command import Command
from iapeer.sessions.tmux.control import ControlClient, ControlLost
from iapeer.sessions.tmux.exec import ExecClient

Mode = Literal["auto", "exec"]
"""`auto`: control client first, exec when it fails; `exec`: one client process a request."""

CONTROL_PAUSE_S = 1.0
"""After a failure of the control client exec is used for this long before the next try."""


class Link:
    """The way to one server's session. Serialises requests; starts its control client lazily.

    A request whose control client broke is run again by exec although it may have run already:
    callers make requests that can be repeated (see `TmuxServer`, which marks each of its acts).
    """

    def __init__(
        self, socket: Path, session: str, binary: str, mode: Mode, hear: Hear = lambda _name: None
    ) -> None:
        """Take how to get there. `hear` is told of clients while there is a control client."""
        self._socket = socket
        self._session = session
        self._binary = binary
        self._mode = mode
        self._hear = hear
        self._exec = ExecClient(socket, binary)
        self._control: ControlClient | None = None
        self._lock = asyncio.Lock()
        self._control_after = 0.0
        self.fallbacks = 0
        """How many requests were taken over by exec because the control client failed."""
        self.last_fallback = ""
        """Why the last of them was."""

    @property
    def control_pid(self) -> int | None:
        """Process id of the control client, None while there is none."""
        return self._control.pid if self._control else None

    @property
    def hears(self) -> bool:
        """Whether there is a control client that tells of clients."""
        return self._control is not None and not self._control.is_lost

    async def request(self, commands: Sequence[Command]) -> list[str]:
        """Run `commands` in order, stop at the first error, return the lines they printed.

        Raises:
            SessionGone: no server, session or pane there.
            TmuxError: tmux refused, or gave no answer in time.
        """
        if self._mode == "auto":
            async with self._lock:
                try:
                    return await self._by_control(commands)
                except ControlLost as error:
                    self.fallbacks += 1
                    self.last_fallback = str(error)
        return await self._exec.request(commands)

    async def request_by_exec(self, commands: Sequence[Command]) -> list[str]:
        """Run `commands` by exec whatever the mode is."""
        return await self._exec.request(commands)

    async def close(self) -> None:
        """End the control client; the server and later requests are not affected."""
        async with self._lock:
            await self._drop()

    async def _by_control(self, commands: Sequence[Command]) -> list[str]:
        now = asyncio.get_running_loop().time()
        if self._control is None and now < self._control_after:
            raise ControlLost("control client failed a moment ago")
        try:
            if self._control is None:
                # A control client that gives up on a hung server is dangerous: three of them
                # dead crash tmux 3.3a when it goes on. So only a server that answers gets one.
                await self._exec.request([["display-message", "-p", "ok"]])
                self._control = await ControlClient.connect(
                    self._socket, self._session, self._binary, self._hear
                )
                # Who came before is told by nobody.
                self._hear("")
            return await self._control.request(commands)
        except TmuxError:
            raise
        except ControlLost:
            self._control_after = asyncio.get_running_loop().time() + CONTROL_PAUSE_S
            await self._drop()
            raise
        except BaseException:
            # A cancelled request leaves its reply in the pipe: the next one would read it.
            await self._drop()
            raise

    async def _drop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            await control.close()
