"""iapeer itself, three times: to nobody who is there, to an inbox stream, to a terminal."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.house import (
    BOX,
    LINE,
    LINE_MANIFEST,
    OPERATOR,
    prepare,
    session_of,
    tui_manifest,
    wake,
)
from benchmarks.rivals.measure import (
    MARK,
    Calls,
    Server,
    body_of,
    burst_of,
    closed_loop,
    marks_of,
    running,
    until_quiet,
)
from benchmarks.rivals.notes import Notes
from benchmarks.rivals.readings import Burst, NotRun, Plan, Reading, Rival
from benchmarks.wire import Connection, RequestFailed, encode
from iapeer import __version__
from iapeer.testing.daemon import TestDaemon

_PEER = "p0"
_QUIET_S = 10.0
_START_S = 30.0
_PATIENCE_S = 10.0


class InboxReader(threading.Thread):
    """Holds the inbox stream open, acknowledges what comes and knows when each mark came first."""

    def __init__(self, socket: str) -> None:
        super().__init__(daemon=True)
        self.came: dict[str, float] = {}
        """First arrival by mark, of `time.perf_counter`."""
        self.doubled = 0
        self._stream = Connection(socket)
        self._acks = Connection(socket)
        self._changed = threading.Condition()

    def run(self) -> None:
        """Read until the connection is closed."""
        identity = f"api-{BOX}"
        data = bytearray()
        with contextlib.suppress(OSError, RequestFailed):
            self._stream.sock.sendall(
                encode("/api/v1/inbox", None, {"X-IAPeer-Identity": identity})
            )
            while chunk := self._stream.sock.recv(1 << 16):
                data += chunk
                while (found := take_event(data)) is not None:
                    now = time.perf_counter()
                    self._acks.ask(
                        encode("/api/v1/inbox/ack", {"id": found["id"], "from": identity})
                    )
                    self._note(str(found["body"]), now)

    def wait(self, mark: str) -> float:
        """Return when a message came. Raises NotRun when it does not."""
        with self._changed:
            if not self._changed.wait_for(lambda: mark in self.came, _PATIENCE_S):
                raise NotRun(f"the inbox got nothing for {_PATIENCE_S:g} s")
            return self.came[mark]

    def close(self) -> None:
        """End the stream and the thread."""
        with contextlib.suppress(OSError):
            self._stream.sock.shutdown(2)
        self.join(5)
        self._stream.sock.close()
        self._acks.sock.close()

    def _note(self, body: str, now: float) -> None:
        found = MARK.search(body)
        if found is None:
            return
        with self._changed:
            self.doubled += found[1] in self.came
            self.came.setdefault(found[1], now)
            self._changed.notify_all()


def take_event(data: bytearray) -> dict[str, object] | None:
    """Take the next `message` event out of a stream's bytes and return its data, if there is one.

    Events of other kinds are passed over. The bytes may have the lines of a chunked answer between
    events: each event comes as one chunk.
    """
    while True:
        event, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return None
        data[:] = rest
        if b"event: message\r\n" in event:
            found_data: dict[str, object] = json.loads(event.partition(b"\r\ndata: ")[2])
            return found_data


def away(_: Path, plan: Plan) -> Reading:
    """Send to a program that is not connected: stored and held."""
    with _daemon(plan) as (daemon, server, start_s):
        with Connection(daemon.socket) as connection:
            sent = [
                connection.time(_request(BOX, f"s-{number}")) for number in range(plan.samples + 3)
            ]
        calls = [
            _calls(daemon, BOX, marks_of(*size, f"b{size[0]}"))
            for size in ((1, plan.single), (plan.senders, plan.each))
        ]
        uss, pss = server.memory()
    one, many = (
        burst_of(found, senders, 0, 0, 0.0)
        for found, senders in zip(calls, (1, plan.senders), strict=True)
    )
    return Reading(
        start_s=start_s, sent_s=tuple(sent[3:]), one=one, many=many, uss_mib=uss, pss_mib=pss
    )


def inbox(_: Path, plan: Plan) -> Reading:
    """Send to a program that reads its inbox stream and acknowledges."""
    with _daemon(plan) as (daemon, server, start_s):
        reader = InboxReader(daemon.socket)
        reader.start()
        try:
            sent, seen = _samples(daemon, BOX, plan, reader.wait)
            one = _flood(daemon, reader, 1, plan.single)
            many = _flood(daemon, reader, plan.senders, plan.each)
            uss, pss = server.memory()
        finally:
            reader.close()
    return Reading(
        start_s=start_s, sent_s=sent, seen_s=seen, one=one, many=many, uss_mib=uss, pss_mib=pss
    )


def terminal(_: Path, plan: Plan) -> Reading:
    """Send to a program in raw mode in a tmux pane, see `eye.py`."""
    eye = Path(__file__).with_name("eye.py")
    manifest = tui_manifest(eye)
    with _daemon(plan, manifest) as (daemon, server, start_s):
        wake(daemon, [_PEER])
        notes = Notes(Path(session_of(daemon, _PEER).cwd) / "notes")
        sent, seen = _samples(daemon, _PEER, plan, notes.wait)
        one = _typed(daemon, notes, 1, plan.single)
        many = _typed(daemon, notes, plan.senders, plan.each) if plan.slow else None
        uss, pss = server.memory()
    return Reading(
        start_s=start_s, sent_s=sent, seen_s=seen, one=one, many=many, uss_mib=uss, pss_mib=pss
    )


@contextmanager
def _daemon(
    plan: Plan, manifest: str = LINE_MANIFEST
) -> Iterator[tuple[TestDaemon, Server, float]]:
    """Start a daemon with a peer for each sender, and tell how long it took to answer."""
    daemon = prepare(plan.senders + 1, manifest)
    argv = [sys.executable, "-P", "-m", "iapeer", "daemon"]
    try:
        with running(argv, daemon.environ, daemon.base) as server:
            start_s = server.answer_time(lambda: _answers(daemon.socket), _START_S)
            yield daemon, server, start_s
            daemon.run("stop", "--all", expect=None)
    finally:
        daemon.clean_up()


def _answers(socket: str) -> bool:
    try:
        with Connection(socket) as connection:
            return bool(connection.ask(encode("/api/v1/ping")))
    except (OSError, RequestFailed):
        return False


def _request(to: str, mark: str, sender: int | None = None) -> bytes:
    """Return one send; each of several senders is a peer of its own."""
    speaker = f"api-{OPERATOR}" if sender is None else f"{LINE}-p{sender + 1}"
    return encode("/api/v1/send", {"to": to, "message": body_of(mark), "from": speaker})


def _samples(
    daemon: TestDaemon, to: str, plan: Plan, wait: Callable[[str], float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return how long each call took and how long until the recipient had the message."""
    sent, seen = [], []
    with Connection(daemon.socket) as connection:
        for number in range(plan.samples + 3):
            request = _request(to, f"s-{number}")
            began = time.perf_counter()
            connection.ask(request)
            sent.append(time.perf_counter() - began)
            seen.append(wait(f"s-{number}") - began)
    return tuple(sent[3:]), tuple(seen[3:])


def _calls(daemon: TestDaemon, to: str, marks: list[list[str]]) -> Calls:
    requests = [[_request(to, mark, who) for mark in ones] for who, ones in enumerate(marks)]
    return closed_loop(daemon.socket, requests, lambda body: b'"ok":true' in body)


def _flood(daemon: TestDaemon, reader: InboxReader, senders: int, each: int) -> Burst:
    marks = marks_of(senders, each, f"b{senders}")
    wanted = {mark for ones in marks for mark in ones}
    doubled = reader.doubled
    began = time.perf_counter()
    calls = _calls(daemon, BOX, marks)
    until_quiet(lambda: len(wanted & reader.came.keys()), len(wanted), _QUIET_S)
    came = [at for mark, at in list(reader.came.items()) if mark in wanted]
    last = max(came, default=began) - began
    return burst_of(calls, senders, len(came), reader.doubled - doubled, last)


def _typed(daemon: TestDaemon, notes: Notes, senders: int, each: int) -> Burst:
    marks = marks_of(senders, each, f"b{senders}")
    wanted = {mark for ones in marks for mark in ones}
    began = time.perf_counter()
    calls = _calls(daemon, _PEER, marks)
    until_quiet(lambda: notes.different(wanted), len(wanted), _QUIET_S)
    return notes.burst(calls, senders, wanted, began)


def _here() -> Path:
    return Path(__file__)


_COMMANDS = ("iapeer daemon",)
_STORED = "the message is on the disk (fsync)"
RIVALS = (
    Rival(
        name="iapeer, recipient away",
        version=__version__,
        prepare=_here,
        measure=away,
        commands=_COMMANDS,
        entrance="`POST /api/v1/send`, unix socket",
        recipient="a program that is not connected; it gets the message when it comes",
        promise=_STORED,
        delivers=False,
    ),
    Rival(
        name="iapeer, inbox stream",
        version=__version__,
        prepare=_here,
        measure=inbox,
        commands=_COMMANDS,
        entrance="`POST /api/v1/send`, unix socket",
        recipient="a program that reads its inbox stream",
        promise=f"{_STORED}; the answer says whether the recipient has acknowledged it",
    ),
    Rival(
        name="iapeer, terminal",
        version=__version__,
        prepare=_here,
        measure=terminal,
        commands=_COMMANDS,
        entrance="`POST /api/v1/send`, unix socket",
        recipient="a program in raw mode in a tmux pane",
        promise=f"{_STORED}; the answer says whether it was typed in and left the composer",
    ),
)
