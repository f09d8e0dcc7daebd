"""What tmux says about the session's pane."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import msgspec

from iapeer.core.errors import SessionGone
from iapeer.sessions import process
from iapeer.sessions.tmux.command import Command, pane

_FORMAT = (
    "#{pid}|#{session_id}|#{pane_id}|#{pane_pid}|"
    "#{pane_dead}|#{pane_dead_status}|#{pane_dead_signal}|#{pane_in_mode}"
)


class PaneFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One look at server and pane.

    `dead_status` (exit code) and `dead_signal` (number) can both be None for a dead pane: then
    nobody knows how it ended. `humans` counts attached clients but control-mode ones.
    `server_start` is None if the server ended since it answered.
    """

    server_pid: int
    server_start: int | None
    session_id: str
    pane_id: str
    pane_pid: int
    pane_dead: bool
    dead_status: int | None
    dead_signal: int | None
    in_mode: bool
    humans: int


def facts_commands(session: str) -> list[Command]:
    """Return the commands whose output `read_facts` reads."""
    target = pane(session)
    return [
        ["display-message", "-p", "-t", target, _FORMAT],
        ["list-clients", "-t", target, "-F", "#{client_control_mode}"],
    ]


def read_facts(lines: Sequence[str], session: str) -> PaneFacts:
    """Read the output of `facts_commands`.

    Raises:
        SessionGone: tmux answered, but knows no such pane.
    """
    fields = lines[0].split("|") if lines else []
    if len(fields) != _FORMAT.count("|") + 1 or not fields[0]:
        raise SessionGone(f"tmux knows no pane of {session}")
    server_pid = int(fields[0])
    return PaneFacts(
        server_pid=server_pid,
        server_start=process.start_time(server_pid),
        session_id=fields[1],
        pane_id=fields[2],
        pane_pid=int(fields[3]),
        pane_dead=fields[4] == "1",
        dead_status=int(fields[5]) if fields[5] else None,
        dead_signal=_signal_number(fields[6]),
        in_mode=fields[7] not in ("", "0"),
        humans=sum(1 for mode in lines[1:] if mode != "1"),
    )


def _signal_number(text: str) -> int | None:
    """Read `#{pane_dead_signal}`: a number (3.3a) or a name."""
    if text.isdigit():
        return int(text)
    name = text.upper().removeprefix("SIG")
    found = signal.Signals.__members__.get(f"SIG{name}")
    return None if found is None else int(found)
