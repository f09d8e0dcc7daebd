"""tmux through a long-lived control-mode client: 0.03-0.4 ms a request against 3 ms for an exec."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iapeer.core.errors import TmuxError
from iapeer.sessions.tmux.clients import Hear, tell
from iapeer.sessions.tmux.command import Command, check_length, line, refusal
from iapeer.sessions.tmux.exec import CLIENT_ENV, LINE_MAX_BYTES, Program

REPLY_TIMEOUT_S = 3.0
"""Longest wait for one reply; a healthy server takes under 10 ms."""

REPLY_MAX_BYTES = 16 * 1024 * 1024
"""Longest reply; a full history of styled lines is about 3 MB."""

_CLOSE_TIMEOUT_S = 1.0
_READ_BYTES = 256 * 1024
_BEGIN = re.compile(r"%begin (\d+ \d+) (\d+)")
_FROM_CLIENT = 1


class ControlLost(Exception):
    """The client broke; whether the server ran the request is not known."""


def _deaf(_name: str) -> None:
    """Nobody wants to hear of clients."""


class _Reply(msgspec.Struct):
    """What has come of a reply that ends at `word`; `done` is set to all lines before that."""

    word: str
    done: asyncio.Future[list[str]]
    lines: list[str] = msgspec.field(default_factory=list)
    size: int = 0

    def take(self, data: bytes) -> bool:
        """Take the next line, without its newline; tell whether it is the last one.

        Raises ControlLost when the reply is too long.
        """
        self.size += len(data) + 1
        if self.size > REPLY_MAX_BYTES:
            raise ControlLost("reply too long")
        text = _text(data)
        if self.lines and self.lines[-1] == self.word and text.startswith("%end "):
            if not self.done.done():
                self.done.set_result(self.lines[:-2])
            return True
        self.lines.append(text)
        return False


class ControlClient:
    """One `tmux -C attach` process. Not safe for concurrent requests: the owner serialises them.

    Every request is followed by a line that prints a random word. The reply ends at that word,
    not at the first `%end`: the text of a captured pane can look like any guard line, but can't
    know the word. What the server says unasked is read at once, and `hear` is called with it.
    """

    def __init__(self, program: Program, hear: Hear) -> None:
        self._program = program
        self._process = program.process
        self._hear = hear
        self._reply: _Reply | None = None
        self._lost = ""
        self._reader = asyncio.create_task(self._read(), name="tmux control client")

    @classmethod
    async def connect(
        cls, socket: Path, session: str, binary: str, hear: Hear = _deaf
    ) -> ControlClient:
        """Attach to `session` and return when the server has answered.

        `hear` must not fail; it is also called, with an empty text, when the client breaks.

        Raises:
            ControlLost: no such server or session, or no answer in time.
        """
        argv = [binary, "-N", "-u", "-C", "-S", str(socket), "attach-session"]
        argv += ["-t", f"={session}", "-f", "ignore-size,no-output"]
        try:
            program = await Program.start(argv, env=CLIENT_ENV, stdin=asyncio.subprocess.PIPE)
        except TmuxError as error:
            raise ControlLost(str(error)) from error
        client = cls(program, hear)
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

    @property
    def is_lost(self) -> bool:
        """Whether it is known to be of no use any more."""
        return bool(self._lost)

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
        except OSError as error:
            raise ControlLost(f"control client broke: {error}") from error
        return _read_blocks(raw, self._hear)

    async def close(self) -> None:
        """End the client, not the session. Safe to call twice."""
        self._hear = _deaf
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _CLOSE_TIMEOUT_S)
            await self._program.end()
        finally:
            self._reader.cancel()

    async def _exchange(self, payload: bytes, word: str) -> list[str]:
        stdin = self._process.stdin
        if stdin is None:
            raise ControlLost("control client has no pipes")
        if self._lost:
            raise ControlLost(self._lost)
        reply = self._reply = _Reply(word, asyncio.get_running_loop().create_future())
        try:
            stdin.write(payload)
            await stdin.drain()
            return await reply.done
        finally:
            self._reply = None
            # One that nobody waits for any more must not complain that it failed.
            reply.done.cancel()

    async def _read(self) -> None:
        """Read what the server says, asked or not, until the client ends."""
        stdout = self._process.stdout
        why = "control client ended"
        try:
            # Line by line by `readline`, a captured screen takes 0.2 ms of the loop (measured).
            rest = b""
            while stdout is not None and (data := await stdout.read(_READ_BYTES)):
                *lines, rest = _lines(rest + data)
                for text in lines:
                    self._take(text)
        except (OSError, ValueError, ControlLost) as error:
            why = f"control client broke: {error}"
        self._lost = why
        if self._reply is not None and not self._reply.done.done():
            self._reply.done.set_exception(ControlLost(why))
        self._hear("")

    def _take(self, data: bytes) -> None:
        if self._reply is None:
            tell(_text(data), self._hear)
        elif self._reply.take(data):
            self._reply = None


def _lines(data: bytes) -> list[bytes]:
    """Return whole lines and at last the beginning of one; raises ControlLost."""
    lines = data.split(b"\n")
    if len(lines[-1]) > LINE_MAX_BYTES:
        raise ControlLost("line too long")
    return lines


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _read_blocks(lines: Sequence[str], hear: Hear = _deaf) -> list[str]:
    """Return what the blocks of a reply hold, one after the other; `hear` what stands between.

    A block ends at the LAST guard line with its own time and number. Raises what the error
    block says.
    """
    out: list[str] = []
    refused: TmuxError | None = None
    position = 0
    while position < len(lines):
        begin = _BEGIN.fullmatch(lines[position])
        if begin is None:
            tell(lines[position], hear)
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
                refused = refused or refusal(" ".join(content))
            out.extend(content)
        position = end + 1
    if refused is not None:
        raise refused
    return out
