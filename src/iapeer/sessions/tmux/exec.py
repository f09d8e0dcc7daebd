"""tmux through its program: one short-lived client per request, and the version check."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from pathlib import Path

from iapeer.core.errors import TmuxError
from iapeer.sessions.tmux.command import Command, arguments, check_length, refusal

NEEDED = (3, 2)
"""Oldest tmux with `-N`, `-f ignore-size,no-output` and user options in formats."""

EXEC_TIMEOUT_S = 5.0
"""A client call takes 3-14 ms (measured: tmux 3.3a); this long means a hung server."""

REAP_TIMEOUT_S = 2.0
"""Longest wait for a killed client to be reaped."""

LINE_MAX_BYTES = 4 * 1024 * 1024
"""Longest line read from a client."""

CLIENT_ENV: Mapping[str, str] = {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
"""Environment of clients, which need none of ours; a server's is given to `start`."""

_INSTALL = "install it: apt install tmux, dnf install tmux, brew install tmux"
_VERSION = re.compile(r"(\d+)\.(\d+)")


async def tmux_version(binary: str = "tmux") -> tuple[int, int]:
    """Return (major, minor) of `binary`; an unreleased "master" counts as newest.

    Raises:
        TmuxError: it can't be run or says something else.
    """
    status, out, err = await run([binary, "-V"], env=CLIENT_ENV)
    found = _VERSION.search(out)
    if status == 0 and found:
        return int(found[1]), int(found[2])
    if status == 0 and "master" in out:
        return 99, 0
    raise TmuxError(f"{binary} -V gave no version: {(out or err).strip()[:100]!r}", hint=_INSTALL)


async def require_tmux(binary: str = "tmux") -> str:
    """Return the absolute path of a usable tmux.

    Raises:
        TmuxError: none found, or older than 3.2; the hint says how to get one.
    """
    path = _find(binary)
    if path is None:
        raise TmuxError(f"tmux not found: {binary}", hint=_INSTALL, code="tmux_missing")
    found = await tmux_version(path)
    if found < NEEDED:
        raise TmuxError(
            f"tmux {found[0]}.{found[1]} is too old, {NEEDED[0]}.{NEEDED[1]} or newer is needed",
            hint=_INSTALL,
            code="tmux_old",
        )
    return path


class Program:
    """A child process whose pipes we can always let go of.

    A tmux client hands its stdin and stdout over to the server, so when the server hangs they
    stay open although the client is dead, and `Process.wait` would hang with it.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, transport: asyncio.SubprocessTransport
    ) -> None:
        self.process = process
        self._transport = transport

    @classmethod
    async def start(
        cls, argv: Sequence[str], *, env: Mapping[str, str], stdin: int, cwd: Path | None = None
    ) -> Program:
        """Start `argv` with piped output.

        Raises:
            TmuxError: it can't be started.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: SubprocessStreamProtocol(limit=LINE_MAX_BYTES, loop=loop),
                *argv,
                stdin=stdin,
                env=dict(env),
                cwd=cwd,
            )
        except (OSError, ValueError) as error:
            raise TmuxError(f"can't run {argv[0]}: {error}", hint=_INSTALL) from error
        return cls(asyncio.subprocess.Process(transport, protocol, loop), transport)

    async def end(self) -> None:
        """Close the pipes, kill the process if it still runs, reap it. Safe to call twice."""
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), REAP_TIMEOUT_S)


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout_s: float | None = None,
) -> tuple[int, str, str]:
    """Run a program to its end and return (status, stdout, stderr).

    `timeout_s` is `EXEC_TIMEOUT_S` when not given.

    Raises:
        TmuxError: it can't be started, or did not end in time (it is killed then).
    """
    limit_s = EXEC_TIMEOUT_S if timeout_s is None else timeout_s
    program = await Program.start(argv, env=env, stdin=asyncio.subprocess.DEVNULL, cwd=cwd)
    process = program.process
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
    except TimeoutError as error:
        raise TmuxError(
            f"tmux did not answer within {limit_s:g} s", code="tmux_timeout", retry_after_s=1.0
        ) from error
    finally:
        await program.end()
    return (
        process.returncode or 0,
        out.decode("utf-8", "surrogateescape"),
        err.decode("utf-8", "surrogateescape"),
    )


class ExecClient:
    """Requests to one server through the tmux program; never starts a server."""

    def __init__(self, socket: Path, binary: str) -> None:
        self._prefix = [binary, "-N", "-u", "-S", str(socket)]

    async def request(self, commands: Sequence[Command]) -> list[str]:
        """Run `commands` in order, stop at the first error, return the lines they printed.

        Raises:
            SessionGone: no server, session or pane there.
            TmuxError: tmux refused, or gave no answer in time.
        """
        args = arguments(commands)
        check_length(" ".join(args))
        status, out, err = await run([*self._prefix, *args], env=CLIENT_ENV)
        if status != 0 or err.strip():
            raise refusal(err or out)
        lines = out.split("\n")
        if lines[-1] == "":
            lines.pop()
        return lines


def _find(binary: str) -> str | None:
    path = shutil.which(binary)
    return None if path is None else str(Path(path).absolute())
