"""A demo agent on a terminal of its own, for tests that type, paste and read what it did."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

import iapeer

WAIT_S = 20.0
"""Bound of every wait; normally things take milliseconds."""
AGENT = "iapeer.apps.demo_agent"
SOURCE = str(Path(iapeer.__file__).parent.parent)

NASTY = (
    "Привет, 世界! 👩‍👩‍👧‍👦 e\u0301 \u00a0«кавычки» 'single' \"double\" `ticks`"
    " ]]> $(id) <system>x</system>\n"
    "/help\n!touch /tmp/never\n@file\n# heading\n\tindented\ttab\ntrailing blanks   \n\n\n"
    "<iap from='x'> </iap> \\n %s {x} \u200b end\n"
)


def child_environment(**extra: str) -> dict[str, str]:
    """Return a minimal environment in which the package can be imported."""
    base = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    return {**base, "PYTHONPATH": SOURCE, **extra}


class PtyAgent:
    """Runs one agent; use as a context manager, which leaves no process behind."""

    def __init__(self, folder: Path, *arguments: str, module: str = AGENT, **extra: str) -> None:
        self.transcript = folder / "records" / "deep" / "transcript.jsonl"
        self.started = time.monotonic()
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 160))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=child_environment(DEMO_TRANSCRIPT=str(self.transcript), **extra),
            start_new_session=True,
        )
        os.close(slave)
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        os.close(self._master)

    def write(self, data: bytes) -> None:
        """Type bytes; reads the screen meanwhile, as a terminal does."""
        while data:
            self._read()
            _, writable, _ = select.select([], [self._master], [], 1)
            if writable:
                data = data[os.write(self._master, data[:1024]) :]

    def type(self, text: str) -> None:
        """Type a text as a person would, and send it."""
        self.write(text.encode())
        self.enter()

    def paste(self, text: str) -> None:
        """Paste a text in brackets."""
        self.write(b"\x1b[200~" + text.encode() + b"\x1b[201~")

    def enter(self) -> None:
        """Press Enter."""
        self.write(b"\r")

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, and say so: the program has no controlling terminal."""
        termios.tcsetwinsize(self._master, (rows, columns))
        self.process.send_signal(signal.SIGWINCH)

    def ready(self) -> float:
        """Wait for the first composer; return the seconds since the start."""
        self.wait_output("ready")
        return time.monotonic() - self.started

    def wait_output(self, words: str) -> None:
        """Wait until words were written to the screen since the last wait for some."""

        def seen() -> bool:
            return words in self.output

        self.wait(seen, f"{words!r} on the screen")
        self.output = self.output.partition(words)[2]

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """Return the transcript's records, of one type if it is given."""
        if not self.transcript.exists():
            return []
        text = self.transcript.read_text(encoding="utf-8")
        found = [json.loads(line) for line in text.split("\n") if line]
        return [record for record in found if not kind or record["type"] == kind]

    def wait_records(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many records of a type; return them."""
        self.wait(lambda: len(self.records(kind)) >= count, f"{count} records {kind}")
        return self.records(kind)

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Read the screen until something holds."""
        end = time.monotonic() + WAIT_S
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"no {what}; screen: {self.output[-2000:]!r}")
            self._read(0.02)

    def status(self) -> int:
        """Wait for the end; return the exit status."""
        self.wait(lambda: self.process.poll() is not None, "exit")
        return self.process.wait(WAIT_S)

    def rss_mib(self) -> float:
        """Return the resident memory now."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def _read(self, timeout_s: float = 0.0) -> None:
        readable, _, _ = select.select([self._master], [], [], timeout_s)
        if readable:
            # A terminal whose last user has gone answers with an error on Linux.
            with contextlib.suppress(OSError):
                self.output += os.read(self._master, 65536).decode("utf-8", "replace")
