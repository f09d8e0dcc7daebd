"""A terminal that a test can look at and type on."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

import pytest


class Screen:
    """A terminal that the command runs on, and what has been drawn there."""

    def __init__(self, environ: dict[str, str], *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "iapeer", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environ, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(theirs)
        self.drawn = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._ours, 4096):
                with self._changed:
                    self.drawn += chunk.decode(errors="replace")
                    self._changed.notify()
        except OSError:
            pass  # Linux's way to say that the other end of a terminal is closed

    def wait_for(self, text: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: text in self.drawn, timeout=30):
                pytest.fail(f"{text!r} was never drawn: {self.drawn!r}")

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """Wait for the command's own end; one that stays is killed and fails the test."""
        try:
            status = self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
        os.close(self._ours)
        return status
