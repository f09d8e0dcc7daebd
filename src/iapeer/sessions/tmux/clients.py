"""Who is attached to a server, and what its control clients are told when that changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from iapeer.sessions.tmux.command import Command

Hear = Callable[[str], None]
"""Called with the name of a client that has just attached, as tmux tells it (a person's terminal,
`client-<pid>` for a control client). Called with an empty text when somebody has left, or when
something may have gone unheard: then only `clients` knows."""

_CAME = "%client-session-changed "
_LEFT = "%client-detached "
"""Told to every control client, without anybody asking (tmux 3.2; measured with 3.3a: within 15 ms,
also for a client that was killed and for a terminal that was closed)."""

_FORMAT = "#{client_control_mode} #{client_pid} #{client_created} #{client_name}"


class Client(msgspec.Struct, frozen=True):
    """One attached client; `created` is the wall time of its coming in whole seconds.

    The name of a client that is no control client is its terminal (`/dev/pts/3`).
    """

    is_control: bool
    pid: int
    created: int
    name: str


def clients_commands() -> list[Command]:
    """Return the commands whose output `read_clients` reads."""
    return [["list-clients", "-F", _FORMAT]]


def read_clients(lines: Sequence[str]) -> list[Client]:
    """Read the output of `clients_commands`."""
    found = []
    for line in lines:
        control, pid, created, name = line.split(" ", 3)
        found.append(Client(control == "1", int(pid), int(created), name))
    return found


def tell(line: str, hear: Hear) -> None:
    """Pass on what a line says that stands outside of every reply; most of them say nothing."""
    if line.startswith(_CAME):
        hear(line.split(" ", 2)[1])
    elif line.startswith(_LEFT):
        hear("")
