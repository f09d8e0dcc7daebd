"""One private tmux server per identity: start, look, paste, press keys, kill.

The modules beside this one are its parts; others import from here, and what `options` are called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from iapeer.core.errors import SessionGone, TmuxError
from iapeer.sessions import process, spool
from iapeer.sessions.tmux.acts import Act, act_commands, was_done
from iapeer.sessions.tmux.clients import Client, Hear, clients_commands, read_clients
from iapeer.sessions.tmux.command import (
    Command,
    attach_argv,
    check_key,
    check_marker,
    check_option,
    check_session,
    check_socket,
    pane,
)
from iapeer.sessions.tmux.config import DEFAULT_SIZE, config_text, shell_word
from iapeer.sessions.tmux.exec import require_tmux, tmux_version
from iapeer.sessions.tmux.facts import PaneFacts, facts_commands, read_facts
from iapeer.sessions.tmux.link import Link, Mode
from iapeer.sessions.tmux.options import ENTERED, PASTED
from iapeer.sessions.tmux.spawn import Birth, Order, holder, listener, spawn

__all__ = [
    "DEFAULT_SIZE",
    "Birth",
    "Client",
    "Mode",
    "PaneFacts",
    "TmuxServer",
    "attach_argv",
    "require_tmux",
    "tmux_version",
]

KEY_GAP_S = 0.15
"""Least time between two keys: a dialog that got both at once took its default (measured)."""

HISTORY_MAX_LINES = 5000
KILL_WAIT_S = 3.0
_LISTENER_LOOKS = 50
_LISTENER_GAP_S = 0.02
"""A child just forked holds the server's listener until it becomes another program."""
_POKES = 3
_POKE_GAP_S = 0.1


class TmuxServer:
    """The tmux server of one identity on `socket`.

    Nothing of the user's own tmux is read or touched. One object serves one session; several
    tasks may use it, but paste and Enter as a pair need the caller's lock. Every call raises
    `SessionGone` when server, session or pane are not there, and `TmuxError` when tmux refuses
    or does not answer in time; then nothing is known about the server's life.
    """

    def __init__(
        self,
        socket: Path,
        *,
        binary: str = "tmux",
        runtime_dir: Path | None = None,
        mode: Mode = "auto",
        hooks: Mapping[str, str] | None = None,
    ) -> None:
        """Take the socket's path; nothing is started.

        `runtime_dir` (default: the socket's folder) takes the 0600 files that bodies go through.
        `hooks` maps names of tmux hooks to command lines, preset before the program starts.
        """
        check_socket(socket)
        self.socket = socket
        self._binary = binary
        self._runtime_dir = runtime_dir or socket.parent
        self._mode = mode
        self._config = config_text(hooks or {})
        self._session = ""
        self._link: Link | None = None
        self._hear: Hear | None = None
        self._server: tuple[int, int] | None = None
        self._poked: tuple[int, int] | None = None

    @property
    def session(self) -> str:
        """Name of the session, empty before `start` or `adopt`."""
        return self._session

    @property
    def fallbacks(self) -> int:
        """How many requests went by exec because the control client failed."""
        return self._link.fallbacks if self._link else 0

    @property
    def last_fallback(self) -> str:
        """Why the control client failed last, empty if it did not."""
        return self._link.last_fallback if self._link else ""

    @property
    def control_pid(self) -> int | None:
        """Process id of the control client, None while there is none."""
        return self._link.control_pid if self._link else None

    async def start(
        self,
        session: str,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        size: tuple[int, int] = DEFAULT_SIZE,
    ) -> Birth:
        """Start the server with one session that runs `argv` (no shell) in `cwd`.

        Server and program get exactly `env` (the program also tmux's own `TMUX`, `TMUX_PANE`,
        `TERM`, `PWD`). Put no secret and no body in `argv`: everybody can read it for the
        server's life. A stale socket file and a server that is just ending are cleared first.

        Raises:
            TmuxError: a living server holds the socket (`server_running`), the path is too long
                (`socket_path`), the folder of the socket is not private (`insecure_dir`), ...
        """
        await self.close()
        order = Order(session=session, argv=argv, cwd=cwd, env=env, size=size)
        birth = await spawn(order, self.socket, self._binary, self._config)
        self.adopt(session, (birth.server_pid, birth.server_start))
        return birth

    def adopt(self, session: str, server: tuple[int, int] | None = None) -> None:
        """Use the session of a server that runs already, as after a restart of the daemon.

        `server` is its (pid, start time) when known: only with it `facts` can tell a server
        whose socket file was removed from one that is gone.
        """
        self._session = check_session(session)
        self._link = Link(self.socket, session, self._binary, self._mode, self._heard)
        self._server = server
        self._poked = None

    async def add(self, session: str, argv: Sequence[str], *, cwd: Path) -> None:
        """Start a second session of this server that runs `argv` (no shell) in `cwd`.

        It ends with the server, and people who attach do not see it. Raises TmuxError.
        """
        columns, rows = DEFAULT_SIZE
        size = ["-x", str(columns), "-y", str(rows)]
        command = ["new-session", "-d", "-s", check_session(session), *size]
        await self._request([[*command, "-c", str(cwd).replace("#", "##"), "--", *argv]])

    async def program_of(self, session: str) -> tuple[int, int] | None:
        """Return (pid, start time) of what runs in a session of this server, None if it ended.

        Raises TmuxError when it can't be known.
        """
        command = ["list-panes", "-t", pane(session), "-F", "#{pane_dead}|#{pane_pid}"]
        try:
            dead, _, pid = (await self._request([command]))[0].partition("|")
        except (SessionGone, IndexError):
            return None
        start = None if dead == "1" else process.start_time(int(pid))
        return None if start is None else (int(pid), start)

    async def text_of(self, session: str) -> str:
        """Return the text of a session's screen and the row above. Raises TmuxError.

        tmux scrolls a dead pane up by one row for its own line: a lone last word is there.
        """
        command = ["capture-pane", "-p", "-S", "-1", "-t", pane(session)]
        return "\n".join(await self._request([command]))

    async def facts(self) -> PaneFacts | None:
        """Look at server and pane; None only when the server is provably gone.

        Raises:
            SessionGone: the server lives, the session does not.
            TmuxError: no answer; unknown is not dead.
        """
        try:
            found = await self._read_facts()
            for _ in range(_POKES):
                if not self._needs_poke(found):
                    break
                # tmux 3.3a misses the death signal of the program in most runs and looks again
                # only when another child of its own ends: give it one.
                await self._request([["run-shell", "true"]])
                await asyncio.sleep(_POKE_GAP_S)
                found = await self._read_facts()
        except TmuxError:
            if self._is_server_gone():
                return None
            raise
        if found.pane_dead and found.server_start is not None:
            self._poked = (found.server_pid, found.pane_pid)
        if found.server_start is not None:
            self._server = (found.server_pid, found.server_start)
        return found

    async def capture(
        self, *, styled: bool = False, join_wrapped: bool = False, history_lines: int = 0
    ) -> str:
        """Return the pane's text: rows without trailing blanks, joined by LF.

        `styled` keeps SGR sequences, `join_wrapped` makes one line of a wrapped one (its
        trailing blanks stay), `history_lines` (5000 at most) adds rows above the screen.
        """
        command = ["capture-pane", "-p", "-t", pane(self._session)]
        if styled:
            command.append("-e")
        if join_wrapped:
            command.append("-J")
        if history_lines > 0:
            command += ["-S", str(-min(history_lines, HISTORY_MAX_LINES))]
        return "\n".join(await self._request([command]))

    async def paste(self, body: bytes, *, buffer: str, marker: str) -> bool:
        """Paste `body` as it is (bracketed where the program asks for it, LF stays LF).

        In one step inside the server: leave copy mode, note `marker` in `@iap_pasted`, paste.
        False: the pane was dead, nothing was pasted or noted. True means that tmux has the
        bytes for the program, not that the program has read them. The caller has made `body`
        safe: what ends a bracketed paste is passed on. `buffer` names the tmux buffer, which
        is gone in every case; the body is an argument of no process.
        """
        if not body:
            raise TmuxError("nothing to paste: the body is empty")
        check_marker(buffer)
        path = spool.write_private(self._runtime_dir, spool.PASTE_STEM, body)
        is_pasted = False
        try:
            target = pane(self._session)
            try:
                is_pasted = await self._act(
                    ["set-option", "-t", target, PASTED, check_marker(marker)],
                    ["paste-buffer", "-p", "-r", "-d", "-b", buffer, "-t", target],
                    before=[["load-buffer", "-b", buffer, str(path)]],
                    instead=[["delete-buffer", "-b", buffer]],
                )
            finally:
                spool.remove(path)
        finally:
            if not is_pasted:
                # The error under way, or False, says what happened; a buffer that was never
                # loaded or died with its server is no news.
                with contextlib.suppress(TmuxError):
                    await self._request([["delete-buffer", "-b", buffer]])
        return is_pasted

    async def enter(self, marker: str | None, key: str = "Enter") -> bool:
        """Submit: leave copy mode, note `marker` in `@iap_entered` if given, press `key`.

        One step inside the server. False: the pane was dead, nothing was noted or pressed.
        """
        target = pane(self._session)
        commands: list[Command] = []
        if marker is not None:
            commands.append(["set-option", "-t", target, ENTERED, check_marker(marker)])
        commands.append(["send-keys", "-t", target, "--", check_key(key)])
        return await self._act(*commands)

    async def keys(self, *names: str) -> bool:
        """Press keys one by one, at least 0.15 s apart; False as soon as the pane is dead."""
        for name in names:
            check_key(name)
        for position, name in enumerate(names):
            if position:
                await asyncio.sleep(KEY_GAP_S)
            if not await self.enter(None, name):
                return False
        return True

    async def unread(self) -> int | None:
        """Return how many bytes the program has not read from its terminal; None: unknown."""
        command = ["display-message", "-p", "-t", pane(self._session), "#{pane_tty}"]
        lines = await self._request([command])
        return process.unread_input(lines[0]) if lines else None

    async def option(self, name: str) -> str | None:
        """Return the session's user option `name` (`@...`), None when it is not set."""
        lines = await self._request(
            [["show-options", "-qv", "-t", pane(self._session), check_option(name)]]
        )
        return "\n".join(lines) if lines else None

    async def set_option(self, name: str, value: str) -> None:
        """Set the session's user option `name`; no body, no secret: all clients can read it."""
        command = ["set-option", "-t", pane(self._session), check_option(name), value]
        await self._request([command])

    async def keep_output(self, path: Path) -> None:
        """Append what the pane prints from now on to a private file, escape sequences and all.

        Raises SessionGone, TmuxError.
        """
        command = f"umask 077; exec cat >>{shell_word(str(path))}"
        await self._request([["pipe-pane", "-t", pane(self._session), command]])

    async def detach_strangers(self) -> int:
        """Detach control clients that are not ours: a killed daemon can leave its own behind.

        Returns how many. People who are attached stay. Raises SessionGone, TmuxError.
        """
        strangers = 0
        for client in await self.clients():
            if client.is_control and client.pid != self.control_pid:
                await self._request([["detach-client", "-t", client.name]])
                strangers += 1
        return strangers

    async def people(self) -> int:
        """Return how many people are attached. Raises SessionGone, TmuxError."""
        return sum(not client.is_control for client in await self.clients())

    async def clients(self) -> list[Client]:
        """Return who is attached, control clients too. Raises SessionGone, TmuxError."""
        return read_clients(await self._request(clients_commands()))

    def listen(self, hear: Hear | None) -> None:
        """Call `hear` when clients come and go, until another call; see `Hear`."""
        self._hear = hear

    @property
    def hears(self) -> bool:
        """Whether tmux tells us of clients now; if not, a later request sees to it."""
        return self._link is not None and self._link.hears

    async def kill(self) -> None:
        """End the server and wait until its process is gone; unlink the socket. Idempotent.

        Raises:
            TmuxError: it survived even SIGKILL, or can't be found out.
        """
        await self.close()
        servers = {server for server in (self._server, listener(self.socket)) if server}
        # Refused, hung or gone already: the process itself is looked at below.
        with contextlib.suppress(TmuxError):
            if holder(self.socket).state == "held":
                await self._any_link().request_by_exec([["kill-server"]])
        for pid, start in servers:
            if await process.wait_gone(pid, start, KILL_WAIT_S):
                continue
            if not await process.terminate(pid, start, 1.0):
                raise TmuxError(f"the tmux server {pid} on {self.socket} can't be ended")
        for _ in range(_LISTENER_LOOKS):
            if holder(self.socket).state != "held" or listener(self.socket) is not None:
                break
            await asyncio.sleep(_LISTENER_GAP_S)
        if holder(self.socket).state == "stale":
            spool.remove(self.socket)

    async def close(self) -> None:
        """End the control client only; the server and its program go on."""
        if self._link is not None:
            await self._link.close()

    def attach_argv(self, *, read_only: bool = False) -> list[str]:
        """Return the command line a person attaches with."""
        return attach_argv(self.socket, self._session, binary=self._binary, read_only=read_only)

    async def _act(
        self,
        *commands: Command,
        before: Sequence[Command] = (),
        instead: Sequence[Command] = (),
    ) -> bool:
        """Carry out an act (`acts.py`); False when the pane is dead."""
        wanted = act_commands(self._session, Act(commands, before, instead))
        return was_done(await self._request(wanted))

    async def _read_facts(self) -> PaneFacts:
        lines = await self._request(facts_commands(self._session))
        return read_facts(lines, self._session)

    def _needs_poke(self, found: PaneFacts) -> bool:
        is_unknown = found.dead_status is None and found.dead_signal is None
        is_new = self._poked != (found.server_pid, found.pane_pid)
        return found.pane_dead and is_unknown and is_new

    def _is_server_gone(self) -> bool:
        if self._server is not None:
            return not process.is_alive(*self._server)
        return holder(self.socket).state != "held"

    def _any_link(self) -> Link:
        return self._link or Link(self.socket, self._session, self._binary, "exec")

    def _heard(self, name: str) -> None:
        if self._hear is not None:
            self._hear(name)

    async def _request(self, commands: Sequence[Command]) -> list[str]:
        if self._link is None:
            raise SessionGone(f"no session started or adopted on {self.socket}")
        return await self._link.request(commands)
