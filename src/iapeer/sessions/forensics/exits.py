"""`exits.log` as a reader: which lines tell of the end of a session."""

from __future__ import annotations

import re
import signal as signals
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from iapeer.core.logfmt import format_line

TAIL_BYTES = 1 << 20
"""How far back one file is read; a line has about 200 bytes."""

_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)')
_ESCAPE = re.compile(r"\\(.)")


class ExitLine(msgspec.Struct, frozen=True, kw_only=True):
    """One record: `session-exit` of a program or `server-exit` of its tmux server.

    `cause`, `report` and `wait_rc` belong to `server-exit`. `own_server`: not the program ended
    but the server it talks to. `at` is seconds since the epoch, 0 when nobody knows.
    """

    ev: str
    identity: str
    session: str
    at: float = 0.0
    status: int | None = None
    signal: int | None = None
    own_server: bool = False
    cause: str = ""
    report: str = ""

    def text(self) -> str:
        """Return the line of a `session-exit` in the hook's form, as of now."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        name = ""
        if self.signal is not None and self.signal in signals.valid_signals():
            name = signals.Signals(self.signal).name.removeprefix("SIG")
        pairs = (
            ("ts", now),
            ("ev", self.ev),
            ("identity", self.identity),
            ("dead_status", "" if self.status is None else self.status),
            ("dead_signal", "" if self.signal is None else self.signal),
            ("signal_name", name),
            ("session", self.session),
        )
        return format_line(pairs).replace('=""', "=")


def lines_of(log: Path, session_id: str) -> list[ExitLine]:
    """Return the records of one session, oldest first."""
    return [line for line in read(log, session_id) if line.session == session_id]


def read(log: Path, having: str = "") -> Iterator[ExitLine]:
    """Yield the records of a log and of its newest rotated file, oldest first.

    Lines of other shapes, and those without the text `having`, are skipped; a file that is not
    there has none.
    """
    for path in (log.with_name(f"{log.name}.1"), log):
        for line in _tail(path, having.encode()):
            found = _parse(line)
            if found is not None:
                yield found


def _tail(path: Path, having: bytes) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except OSError:
        return []
    # Taking a line to pieces costs a hundred times what finding out that it is another's does.
    found = [line for line in data.split(b"\n") if having in line] if having in data else []
    return [line.decode("utf-8", "replace") for line in found]


def _parse(line: str) -> ExitLine | None:
    pairs = {key: _plain(value) for key, value in _PAIR.findall(line)}
    if pairs.get("ev") not in ("session-exit", "server-exit"):
        return None
    return ExitLine(
        ev=pairs["ev"],
        identity=pairs.get("identity", ""),
        session=pairs.get("session", ""),
        at=_time(pairs.get("ts", "")),
        status=_number(pairs.get("dead_status", "")),
        signal=signal_number(pairs.get("dead_signal", "")),
        own_server=pairs.get("part") == "own-server",
        cause=pairs.get("cause", ""),
        report=pairs.get("forensics", ""),
    )


def signal_number(text: str) -> int | None:
    """Read a signal as tmux tells it: a number (3.3a) or a name."""
    if text.isascii() and text.isdigit():
        return int(text)
    found = signals.Signals.__members__.get(f"SIG{text.upper().removeprefix('SIG')}")
    return None if found is None else int(found)


def _plain(value: str) -> str:
    return _ESCAPE.sub(r"\1", value[1:-1]) if value.startswith('"') else value


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except ValueError:
        return 0.0
