"""The measuring that all systems share: bodies, processes, closed loops of senders, memory."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.rivals.readings import Burst, NotRun
from benchmarks.wire import Answers, Connection, RequestFailed

BODY_CHARS = 1024
MARK = re.compile(r"<m:([\w-]+)>")
"""What a message is known by; `eye.py` looks for the same."""
_END_S = 10.0
_POLL_S = 0.002
_SAID = 300
"""Characters of a failure that are kept."""


def body_of(mark: str) -> str:
    """Return a body of 1,024 ASCII characters that holds its own mark."""
    return f"<m:{mark}> ".ljust(BODY_CHARS, "x")


def marks_of(senders: int, each: int, prefix: str) -> list[list[str]]:
    """Return a mark for every message of every sender."""
    return [[f"{prefix}-{who}-{number}" for number in range(each)] for who in range(senders)]


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder that is gone afterwards; its path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="iapr", dir="/tmp"))
    try:
        (folder / "home").mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clean_environ(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment with a HOME of its own; ways out of the machine lead nowhere.

    The proxy is a closed port of this host: a program that honours it and would talk to the
    outside is refused at once.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder / "home"),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
        **variables,
    }


@dataclass
class Server:
    """A process under test, when it was started, and what it says."""

    process: subprocess.Popen[bytes]
    began: float
    log: Path

    def answer_time(self, answers: Callable[[], bool], timeout_s: float) -> float:
        """Return the seconds from the fork until `answers`. Raises NotRun when it does not."""
        while not answers():
            if self.process.poll() is not None:
                raise NotRun(f"it ended with {self.process.returncode}: {self.last_words()}")
            if time.perf_counter() - self.began > timeout_s:
                raise NotRun(f"no answer within {timeout_s:g} s: {self.last_words()}")
            time.sleep(_POLL_S)
        return time.perf_counter() - self.began

    def memory(self) -> tuple[float, float]:
        """Return USS and PSS of the process and its descendants, in MiB."""
        root = psutil.Process(self.process.pid)
        uss = pss = 0
        for one in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found = one.memory_full_info()
                uss, pss = uss + found.uss, pss + found.pss
        return uss / 2**20, pss / 2**20

    def last_words(self) -> str:
        """Return the end of what it said, on one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return " ".join(text.split())[-_SAID:] or "it said nothing"


@contextmanager
def running(argv: Sequence[str], environ: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """Start a server in a folder; it and what it started have ended afterwards, by their ids."""
    log = folder / "server.log"
    with log.open("ab") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield Server(process, began, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Before it ends: afterwards nobody knows whose children they were.
    children = _group(process.pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        children += psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_S)
    # psutil compares the start time, so a reused id is no match.
    _, left = psutil.wait_procs(children, 1)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(left, _END_S)


def _group(leader: int) -> list[psutil.Process]:
    """Return the other members of a process group of ours; its leader may be gone already."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if one.pid not in {0, leader} and os.getpgid(one.pid) == leader:
                found.append(one)
    return found


@dataclass
class Calls:
    """What the calls of a closed loop came to."""

    sent: int = 0
    refused: int = 0
    seconds: float = 0.0
    error: str = ""

    def failed(self, reason: str) -> None:
        """Count a call that did not do what was asked."""
        self.refused += 1
        self.error = self.error or " ".join(reason.split())[:_SAID]


def burst_of(calls: Calls, senders: int, arrived: int, doubled: int, arrived_s: float) -> Burst:
    """Return a burst from what its senders and its recipient know."""
    return Burst(
        senders=senders,
        sent=calls.sent,
        refused=calls.refused,
        calls_s=calls.seconds,
        arrived=arrived,
        doubled=doubled,
        arrived_s=arrived_s,
        error=calls.error,
    )


@dataclass
class _Sender:
    """One connection and what it has still to send."""

    sock: socket.socket
    waiting: list[bytes]
    answers: Answers = field(default_factory=Answers)

    def next(self) -> bool:
        """Send the next request; False when there is none or the other side has gone."""
        if not self.waiting:
            return False
        try:
            self.sock.sendall(self.waiting.pop(0))
        except OSError:
            return False
        return True


def closed_loop(
    where: str | int,
    requests: Sequence[Sequence[bytes]],
    fine: Callable[[bytes], bool],
    limit_s: float = 120.0,
) -> Calls:
    """Send each list over a connection of its own, the next request when the last is answered.

    `fine` tells whether the body of an answer means yes. After `limit_s` nothing new is sent, and
    what is on its way has a minute.
    """
    calls = Calls()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for waiting in requests:
            connection = stack.enter_context(Connection(where))
            sender = _Sender(connection.sock, list(waiting))
            selector.register(sender.sock, selectors.EVENT_READ, sender)
        began = time.perf_counter()
        for key in list(selector.get_map().values()):
            key.data.next()
        while selector.get_map():
            if time.perf_counter() - began > limit_s + 60:
                for key in list(selector.get_map().values()):
                    calls.failed("no answer within a minute")
                    selector.unregister(key.fileobj)
                break
            for key, _ in selector.select(5):
                in_time = time.perf_counter() - began < limit_s
                if _answered(key.data, calls, fine) and not (in_time and key.data.next()):
                    selector.unregister(key.fileobj)
        calls.seconds = time.perf_counter() - began
    return calls


def _answered(sender: _Sender, calls: Calls, fine: Callable[[bytes], bool]) -> bool:
    """Take what came; True when an answer is complete."""
    try:
        body = sender.answers.feed(sender.sock.recv(1 << 16))
    except (RequestFailed, OSError) as error:
        calls.failed(str(error))
        sender.answers = Answers()
        return True
    if body is None:
        return False
    if fine(body):
        calls.sent += 1
    else:
        calls.failed(body.decode(errors="replace"))
    return True


def until_quiet(
    arrived: Callable[[], int], wanted: int, quiet_s: float, limit_s: float = 120.0
) -> float:
    """Wait until `wanted` have arrived, or none came for `quiet_s`; return when the last one came.

    The time is of `time.perf_counter`, to a hundredth of a second.
    """
    began = last = time.perf_counter()
    count = arrived()
    while count < wanted:
        now = time.perf_counter()
        if now - last > quiet_s or now - began > limit_s:
            break
        time.sleep(0.01)
        fresh = arrived()
        if fresh != count:
            count, last = fresh, time.perf_counter()
    return last
