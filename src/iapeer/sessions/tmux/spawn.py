"""Birth of a tmux server: who holds the socket, clear a stale one, start with a program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from iapeer.core.errors import SessionGone, TmuxError
from iapeer.sessions import process, spool
from iapeer.sessions.tmux.command import (
    arguments,
    check_length,
    check_session,
    check_socket,
    refusal,
)
from iapeer.sessions.tmux.config import DEFAULT_SIZE
from iapeer.sessions.tmux.exec import ExecClient, run

START_TIMEOUT_S = 8.0
"""Bound of all tries together; one start takes 13-23 ms (measured: tmux 3.3a)."""

CONFIG_STEM = ".tmux-conf"
"""How configuration files begin; each is there only while its server starts."""

_RETRY_GAP_S = 0.05
_BIRTH_FORMAT = "#{pid}|#{pane_id}|#{pane_pid}"
_EXEC_ONE = (
    "import os,signal as s,sys;s.signal(s.SIGPIPE,s.SIG_DFL);s.signal(s.SIGXFSZ,s.SIG_DFL);"
    "os.execvp(sys.argv[1],sys.argv[1:])"
)


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """What was started.

    Pids come with start times (`process.start_time`): only both together name a process.
    `pane_start` is None when the program had ended before we looked. `created_at` is wall time
    in seconds.
    """

    server_pid: int
    server_start: int
    pane_id: str
    pane_pid: int
    pane_start: int | None
    created_at: float


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: `argv` without any shell, in `cwd`, with exactly `env`."""

    session: str
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    size: tuple[int, int] = DEFAULT_SIZE


class Holder(msgspec.Struct, frozen=True):
    """Who holds a socket path.

    `free`: no file; `stale`: a file nobody listens on; `held`: somebody listens, and `pid` is
    that process where the system tells it.
    """

    state: Literal["free", "stale", "held"]
    pid: int | None = None


def holder(socket: Path) -> Holder:
    """Ask the kernel who listens on `socket`; never blocks, starts nothing (0.09 ms).

    Raises:
        TmuxError: the question can't be answered (no permission, for instance).
    """
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(socket))
        except FileNotFoundError:
            return Holder("free")
        except ConnectionRefusedError:
            return Holder("stale")
        except BlockingIOError:
            return Holder("held")  # its queue of connections is full, so somebody listens
        except OSError as error:
            raise TmuxError(f"can't probe {socket}: {error.strerror or error}") from error
        return Holder("held", _peer_pid(probe))


def listener(socket: Path) -> tuple[int, int] | None:
    """Return (pid, start time) of whoever listens on `socket`, None where nobody can tell.

    Raises:
        TmuxError: the question can't be answered.
    """
    pid = holder(socket).pid
    start = None if pid is None else process.start_time(pid)
    return None if pid is None or start is None else (pid, start)


async def spawn(order: Order, socket: Path, binary: str, config: str) -> Birth:
    """Start a server on `socket` with one session that runs `order.argv`.

    Waits for a server which is just ending, unlinks a stale socket and tries again when the
    dying one took the new session along (measured: 8 of 40 starts right after `kill-server`).
    `config` is the text of the server's configuration file.

    Raises:
        TmuxError: a living server holds the socket, the folder is missing, tmux refused, or
            no start worked within `START_TIMEOUT_S`.
    """
    check_socket(socket)
    check_session(order.session)
    if not order.argv:
        raise TmuxError("nothing to start: argv is empty")
    if not order.cwd.is_dir():
        raise TmuxError(f"folder to start in does not exist: {order.cwd}")
    path = spool.write_private(socket.parent, CONFIG_STEM, config.encode())
    try:
        return await _spawn_until(order, socket, binary, path)
    finally:
        spool.remove(path)


async def _spawn_until(order: Order, socket: Path, binary: str, config: Path) -> Birth:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            await _clear(socket, binary, deadline)
            return await _spawn_once(order, socket, binary, config)
        except SessionGone:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_RETRY_GAP_S)


async def _clear(socket: Path, binary: str, deadline: float) -> None:
    """Leave no file at `socket`, unless a server that can answer holds it."""
    found = holder(socket)
    if found.state == "held":
        await _refuse_living(socket, binary)
        start = None if found.pid is None else process.start_time(found.pid)
        if found.pid is not None and start is not None:
            await process.wait_gone(found.pid, start, max(0.0, deadline - time.monotonic()))
        if holder(socket).state == "held":
            raise SessionGone(f"the server on {socket} is ending, but has not ended")
    if found.state != "free":
        spool.remove(socket)


async def _refuse_living(socket: Path, binary: str) -> None:
    try:
        sessions = await ExecClient(socket, binary).request([["list-sessions", "-F", "#{pid}"]])
    except SessionGone:
        return
    if sessions:
        raise TmuxError(
            f"a tmux server already runs on {socket}",
            hint=f"adopt it, or end it: tmux -S {socket} kill-server",
            code="server_running",
        )


async def _spawn_once(order: Order, socket: Path, binary: str, config: Path) -> Birth:
    columns, rows = order.size
    command = [
        "new-session", "-d", "-P", "-F", _BIRTH_FORMAT, "-s", order.session,
        "-x", str(columns), "-y", str(rows), "-c", str(order.cwd).replace("#", "##"),
        "--", *_without_shell(order.argv),
    ]  # fmt: skip
    args = arguments([command])
    check_length(" ".join(args))
    argv = [binary, "-u", "-S", str(socket), "-f", str(config), *args]
    created_at = time.time()
    status, out, err = await run(argv, env=order.env, cwd=Path("/"))
    if status != 0:
        raise refusal(err or out)
    server, pane_id, pane = out.strip().split("|")
    server_start = process.start_time(int(server))
    if server_start is None:
        raise SessionGone("the tmux server ended right after its start")
    return Birth(
        server_pid=int(server),
        server_start=server_start,
        pane_id=pane_id,
        pane_pid=int(pane),
        pane_start=process.start_time(int(pane)),
        created_at=created_at,
    )


def _without_shell(argv: Sequence[str]) -> list[str]:
    """Make several arguments of a single one: that tmux would give to a shell."""
    if len(argv) > 1:
        return list(argv)
    return [sys.executable, "-I", "-S", "-c", _EXEC_ONE, argv[0]]


def _peer_pid(connected: sockets.socket) -> int | None:
    option = getattr(sockets, "SO_PEERCRED", None)
    if option is None:
        return None
    with contextlib.suppress(OSError):
        pid, _, _ = struct.unpack("3i", connected.getsockopt(sockets.SOL_SOCKET, option, 12))
        return int(pid)
    return None
