"""Running a program that is not ours: no shell, no stdin, a limit of time and of output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

import msgspec

from iapeer.core import env
from iapeer.core.text import one_line

LIMIT_S = 120.0
"""How long a program may run; `memory-slot.md` section 2."""
DETAIL = 400
"""Characters of what it said that are kept, from the end."""

_GRACE_S = 2.0
"""From asking a program to end to making it."""
_LOOK_S = 0.05
_TAIL = 4 * DETAIL
_OUTPUT = 1 << 20
_PEER_PREFIX = "PEER_"

RunState = Literal["ok", "failed", "timeout", "not-executable"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A program to run in a folder; `environ` is all it gets, `limit_s` seconds are its time."""

    argv: Sequence[str]
    cwd: Path
    environ: Mapping[str, str]
    limit_s: float = LIMIT_S


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended; `exit` is None without an exit status.

    `detail` is the end of its stderr on one line, `output` its stdout (at most 1 MiB).
    """

    state: RunState
    exit: int | None = None
    ms: int = 0
    detail: str = ""
    output: bytes = b""


def handed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a program that is no peer: without who we are and our secrets."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_PEER_PREFIX) and name != env.BEARER_TOKEN
    }


def run_job(job: Job, stop: threading.Event | None = None) -> Ran:
    """Run a program to its end; it and its process group are ended at the limit or by `stop`.

    Blocks, at most `limit_s` and 4 seconds. Never raises for anything the program does.
    """
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            list(job.argv),
            cwd=job.cwd,
            env=dict(job.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Ran(state="not-executable", ms=_ms(began), detail=one_line(str(error), DETAIL))
    said = _Said()
    try:
        in_time = _follow(process, said, began + job.limit_s, stop)
    finally:
        if process.poll() is None:
            _end(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    detail = _last(bytes(said.errors))
    if not in_time:
        return Ran(state="timeout", ms=_ms(began), detail=detail)
    code = process.returncode
    state: RunState = "ok" if code == 0 else "failed"
    return Ran(state=state, exit=code, ms=_ms(began), detail=detail, output=bytes(said.output))


def explain(ran: Ran) -> str:
    """Return how a program ended, in words."""
    status = f" (exit {ran.exit})" if ran.exit is not None else ""
    return f"{ran.state}{status}" + (f": {ran.detail}" if ran.detail else "")


class _Said:
    """What a program has written so far, cut to what is kept."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.errors = bytearray()

    def take(self, data: bytes, *, is_error: bool) -> None:
        if is_error:
            self.errors += data
            del self.errors[:-_TAIL]
        else:
            self.output += data[: _OUTPUT - len(self.output)]


def _follow(
    process: subprocess.Popen[bytes], said: _Said, deadline: float, stop: threading.Event | None
) -> bool:
    """Read what it says until it ends; False when it has to be ended.

    Its end is what counts, not the end of its output: a child it leaves behind may hold that.
    """
    with selectors.DefaultSelector() as selector:
        for stream, is_error in ((process.stdout, False), (process.stderr, True)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, is_error)
        while True:
            ended = process.poll() is not None
            _read(selector, said, 0.0 if ended else _LOOK_S)
            if ended:
                return True
            if time.monotonic() >= deadline or (stop is not None and stop.is_set()):
                return False


def _read(selector: selectors.BaseSelector, said: _Said, wait_s: float) -> None:
    """Take what is there now, at most so much that the clock is looked at in between."""
    ready = selector.select(wait_s)
    for key, _ in ready:
        stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
        for _ in range(16):
            with contextlib.suppress(BlockingIOError):
                data = os.read(stream.fileno(), 1 << 16)
                if not data:
                    selector.unregister(stream)
                    break
                said.take(data, is_error=key.data)
                continue
            break


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process group: asked first, then made to, also what its leader left behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def _last(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return one_line(text.strip()[-DETAIL:], DETAIL)


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
