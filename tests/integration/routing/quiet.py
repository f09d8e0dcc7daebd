"""Hands for tests about presence: profiles, marks, and what lifecycle.log says of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
from collections.abc import Iterator
from typing import Any

from iapeer.core.identity import Identity
from iapeer.storage.ledger import marks
from iapeer.storage.paths import profile_path
from tests.integration.routing.house import House, until


def profile(house: House, name: str, **changes: Any) -> None:
    """Change keys of a peer's own profile."""
    path = profile_path(house.paths.peer_home(name))
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**known, **changes}), encoding="utf-8")


def events(house: House, ev: str, **wanted: str) -> list[dict[str, str]]:
    """Return the lines of lifecycle.log of one event with these values."""
    if not house.paths.lifecycle_log.exists():
        return []
    found = []
    for line in house.paths.lifecycle_log.read_text(encoding="utf-8").splitlines():
        pairs = dict(word.split("=", 1) for word in shlex.split(line))
        if pairs["ev"] == ev and wanted.items() <= pairs.items():
            found.append(pairs)
    return found


async def event(house: House, ev: str, count: int = 1, **wanted: str) -> dict[str, str]:
    """Wait for the `count`th such line."""

    def look() -> list[dict[str, str]]:
        found = events(house, ev, **wanted)
        return found if len(found) >= count else []

    found: list[dict[str, str]] = await until(look, f"{ev} {wanted}")
    return found[count - 1]


async def marks_of(house: House, name: str, runtime: str = "demo") -> dict[str, str]:
    uid = house.services.registry.snapshot(allow_stale=True).require(name).uid
    found = await house.services.ledger.read(lambda c: marks.marks_of(c, uid, runtime))
    return {mark.mark: mark.value for mark in found}


async def faults(house: House, name: str, runtime: str = "demo") -> int:
    return len(await house.lane(name, runtime).journal.faults())


async def gone(house: House, name: str) -> None:
    """Wait until no session of this peer is there."""
    await until(lambda: house.lane(name).session is None, f"{name} to be asleep")


def key(house: House, name: str, runtime: str = "demo") -> tuple[str, str]:
    uid = house.services.registry.snapshot(allow_stale=True).require(name).uid
    return uid, runtime


@contextlib.contextmanager
def attached(house: House, name: str) -> Iterator[None]:
    """Attach to a session as a person does, on a terminal of our own."""
    sock = next(house.settings.sock_dir.glob(f"*demo-{name}.sock"))
    address = Identity("demo", name).address
    pid, terminal = pty.fork()
    if pid == 0:
        argv = ["tmux", "-S", str(sock), "attach", "-t", f"={address}"]
        environ = {"PATH": house.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm"}
        try:
            os.execvpe("tmux", argv, environ)  # noqa: S606
        finally:
            os._exit(127)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
