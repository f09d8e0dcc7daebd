"""The quickstart is run as it is written: its commands in order, on a throw-away root.

Only commands that need the network (installing) are not. A `text` block after commands is what
they print, line by line in that order; `…` stands for anything.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from iapeer.core.settings import make_settings
from iapeer.testing.daemon import TestDaemon, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.real_tmux]

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PYTHON = '"$(uv tool dir)/iapeer/bin/python"'
INSTALL = "uv tool install ."
COMMAND_S = 40.0


@dataclass
class Reader:
    """A person at a terminal, who types what the page says."""

    house: TestDaemon
    output: str = ""
    ran: list[str] = field(default_factory=list)

    def read(self, page: str) -> None:
        """Do every block of the page in order."""
        for language, block in _FENCE.findall(page):
            if language == "sh":
                self.output = ""
                for command in filter(None, block.splitlines()):
                    self.type(command)
            elif language == "text":
                self.compare(block)
            elif language == "python":
                (self.house.base / "inbox.py").write_text(block, encoding="utf-8")

    def type(self, command: str) -> None:
        """Run one command line in a shell and remember what it prints."""
        self.ran.append(command)
        if command == "iapeer daemon":
            self.house.start()
            # The socket answers a moment before the line is printed.
            wait_until(lambda: "READY" in self.house.errors(), COMMAND_S)
            self.output += self.house.errors()
        elif command.startswith("iapeer attach"):
            self.output += attach(command.split()[1:], self.house)
        elif command != INSTALL:
            self.shell(self.filled(command))

    def filled(self, command: str) -> str:
        """Put in what a person would: the id just printed, and this Python."""
        if "<message-id>" in command:
            (number,) = re.findall(r'"message_id": "(\w+)"', self.output)
            wait_until(lambda: self.house.state(number) == "seen")
            command = command.replace("<message-id>", number)
        return command.replace(_PYTHON, sys.executable)

    def shell(self, command: str) -> None:
        """Run a command; it must succeed."""
        bin_dir = self.house.base / "bin"
        environ = self.house.environ
        done = subprocess.run(
            ["sh", "-c", command],
            env={**environ, "PATH": f"{bin_dir}:{environ['PATH']}"},
            cwd=self.house.base,
            capture_output=True,
            encoding="utf-8",
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        self.output += done.stdout

    def compare(self, block: str) -> None:
        """Find each line of the block in the output, in its order."""
        left = self.output.splitlines()
        for expected in block.splitlines():
            pattern = ".*".join(map(re.escape, expected.split("…")))
            while left and not re.fullmatch(pattern, left[0]):
                left.pop(0)
            assert left, f"{expected!r} was not printed:\n{self.output}"


def attach(words: list[str], house: TestDaemon) -> str:
    """Attach in a terminal of our own, look, and leave with Ctrl-] d; returns what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        argv = [sys.executable, "-P", "-m", "iapeer", *words]
        environ = {**house.environ, "TERM": "xterm-256color"}
        os.execve(sys.executable, argv, environ)  # noqa: S606 - the child becomes the command
    try:
        shown = read_until(terminal, "demo agent · ready")
        os.write(terminal, b"\x1d")
        # tmux takes keys that it reads within 1 ms for a paste, which is no command.
        wait_until(lambda: has_prefix(house), COMMAND_S, "the prefix to be taken")
        os.write(terminal, b"d")
        shown += read_until(terminal, "detached")
        _, status = wait_until(lambda: ended(pid), COMMAND_S, "attach to end")
        assert os.waitstatus_to_exitcode(status) == 0, shown
    except BaseException:
        if not ended(pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    finally:
        os.close(terminal)
    return shown


def has_prefix(house: TestDaemon) -> bool:
    """Whether a client of one of the house's tmux servers waits for the key after the prefix."""
    shown = [
        subprocess.run(
            ["tmux", "-N", "-S", str(path), "list-clients", "-F", "#{client_prefix}"],
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        ).stdout
        for path in make_settings(house.environ).sock_dir.glob("*.sock")
    ]
    return "1" in "".join(shown).split()


def ended(pid: int) -> tuple[int, int] | None:
    """Return (pid, status) of a child that has ended; it can be asked once."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return (found, status) if found else None


def read_until(terminal: int, words: str) -> str:
    """Read a terminal until the words come."""
    shown, deadline = "", time.monotonic() + COMMAND_S
    while words not in shown:
        assert time.monotonic() < deadline, f"{words!r} never came:\n{shown}"
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode("utf-8", "replace")
    return shown


@pytest.fixture
def reader(iapeer_daemons: Callable[..., TestDaemon]) -> Iterator[Reader]:
    house = iapeer_daemons()
    (house.base / "bin").mkdir()
    program = house.base / "bin" / "iapeer"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m iapeer "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    yield Reader(house)
    shutil.rmtree(house.base / "bin", ignore_errors=True)


@pytest.mark.timeout(180)
def test_the_quickstart_works_as_it_is_written(reader: Reader) -> None:
    page = PAGE.read_text(encoding="utf-8")
    reader.read(page)
    verbs = {command.split()[1] for command in reader.ran if command.startswith("iapeer ")}
    assert {"daemon", "create", "send", "trace", "attach", "stop", "remove"} <= verbs
    assert reader.house.run("list").stdout == "no peers registered\n"
    assert reader.house.stop() == 0


def test_output_that_differs_from_the_page_is_noticed() -> None:
    reader = Reader(TestDaemon(Path("/nowhere"), 0), output="one 1\ntwo\n")
    reader.compare("one …\ntwo\n")
    with pytest.raises(AssertionError, match="three"):
        reader.compare("three\n")
    with pytest.raises(AssertionError, match="one"):
        reader.compare("two\none …\n")
