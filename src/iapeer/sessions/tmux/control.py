"""tmux through a long-lived control-mode client: 0.03-0.4 ms a request against 3 ms for an exec."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from iapeer.core.errors import TmuxError
from iapeer.sessions.tmux.command import Command, check_length, line, refusal
from iapeer.sessions.tmux.exec import CLIENT_ENV, Program

REPLY_TIMEOUT_S = 3.0
"""Longest wait for one reply; a healthy server takes under 10 ms."""

REPLY_MAX_BYTES = 16 * 1024 * 1024
"""Longest reply; a full history of styled lines is about 3 MB."""

_CLOSE_TIMEOUT_S = 1.0
_BEGIN = re.compile(r"%begin (\d+ \d+) (\d+)")
_FROM_CLIENT = 1


class ControlLost(Exception):
    """The client broke; whether the server ran the request is not known."""


class ControlClient:
    """One `tmux -C attach` process. Not safe for concurrent requests: the owner serialises them.

    Every request is followed by a line that prints a random word. The reply ends at that word,
    not at the first `%end`: the text of a captured pane can look like any guard line, but can't
    know the word.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process = program.process

    @classmethod
    async def connect(cls, socket: Path, session: str, binary: str) -> ControlClient:
        """Attach to `session` and return when the server has answered.

        Raises:
            ControlLost: no such server or session, or no answer in time.
        """
        argv = [binary, "-N", "-u", "-C", "-S", str(socket), "attach-session"]
        argv += ["-t", f"={session}", "-f", "ignore-size,no-output"]
        try:
            program = await Program.start(argv, env=CLIENT_ENV, stdin=asyncio.subprocess.PIPE)
        except TmuxError as error:
            raise ControlLost(str(error)) from error
        client = cls(program)
        try:
            await client.request([])
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def pid(self) -> int:
        """Process id of the client."""
        return self._process.pid

    async def request(self, commands: Sequence[Command]) -> list[str]:
        """Run `commands` in order, stop at the first error, return the lines they printed.

        Raises:
            TmuxError: tmux refused (`SessionGone` when the thing asked is not there).
            ControlLost: the client is of no use any more; close it.
        """
        text = line(commands)
        check_length(text)
        word = secrets.token_hex(16)
        payload = f"{text}\n" if commands else ""
        payload += f"display-message -p {word}\n"
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                raw = await self._exchange(payload.encode("ascii"), word)
        except TimeoutError as error:
            raise ControlLost(f"no reply within {REPLY_TIMEOUT_S:g} s") from error
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            raise ControlLost(f"control client broke: {error}") from error
        return _read_blocks(raw)

    async def close(self) -> None:
        """End the client, not the session. Safe to call twice."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _CLOSE_TIMEOUT_S)
        await self._program.end()

    async def _exchange(self, payload: bytes, word: str) -> list[str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ControlLost("control client has no pipes")
        stdin.write(payload)
        await stdin.drain()
        lines: list[str] = []
        size = 0
        while True:
            data = await stdout.readline()
            if not data.endswith(b"\n"):
                raise ControlLost("control client ended")
            size += len(data)
            if size > REPLY_MAX_BYTES:
                raise ControlLost("reply too long")
            text = data[:-1].decode("utf-8", "surrogateescape")
            if lines and lines[-1] == word and text.startswith("%end "):
                return lines[:-2]
            lines.append(text)


def _read_blocks(lines: Sequence[str]) -> list[str]:
    """Return what the blocks of a reply hold, one after the other; notifications are dropped.

    A block ends at the LAST guard line with its own time and number. Raises what the error
    block says.
    """
    out: list[str] = []
    position = 0
    while position < len(lines):
        begin = _BEGIN.fullmatch(lines[position])
        if begin is None:
            position += 1
            continue
        tail = f"{begin[1]} {begin[2]}"
        guards = (f"%end {tail}", f"%error {tail}")
        end = next((n for n in range(len(lines) - 1, position, -1) if lines[n] in guards), None)
        if end is None:
            raise ControlLost("a reply has no end")
        if int(begin[2]) & _FROM_CLIENT:
            content = lines[position + 1 : end]
            if lines[end] == guards[1]:
                raise refusal(" ".join(content))
            out.extend(content)
        position = end + 1
    return out
