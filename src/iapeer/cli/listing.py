"""`iapeer list`: who exists on this host and what they are doing."""

from __future__ import annotations

from typing import Any

import msgspec

from iapeer.core.errors import DaemonDown

from . import output, wire
from .context import is_sandbox, load_settings
from .grammar import Call

_GLYPHS = {
    "live": "●",
    "booting": "◐",
    "asleep": "○",
    "stopped": "✕",
    "broken": "!",
    "unknown": "?",
}
_CONTRACT_STATUS = {"booting": "asleep", "broken": "asleep"}
"""What older readers of `list --json` are told where our word is finer; `detail` has ours."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One peer as `list` shows it; unknown keys of the daemon's answer are left out."""

    personality: str
    default_runtime: str
    intelligence: str
    description: str
    cwd: str
    runtimes: tuple[str, ...]
    statuses: dict[str, str]
    undelivered: int = 0
    last_active_runtime: str | None = None

    def status(self, runtime: str) -> str:
        """Return what that runtime is doing."""
        return self.statuses.get(runtime, "unknown")

    def to_json(self) -> dict[str, Any]:
        """Return the peer in the contract's shape, plus our additive keys."""
        last = self.last_active_runtime
        return {
            "personality": self.personality,
            "default_runtime": self.default_runtime,
            **({"last_active_runtime": last} if last else {}),
            "intelligence": self.intelligence,
            "description": self.description,
            "cwd": self.cwd,
            "runtimes": [self._runtime(runtime) for runtime in self.runtimes],
            "undelivered": self.undelivered,
        }

    def _runtime(self, runtime: str) -> dict[str, str]:
        status = self.status(runtime)
        shown = {"runtime": runtime, "status": _CONTRACT_STATUS.get(status, status)}
        return shown if shown["status"] == status else {**shown, "detail": status}


CORE = Row(
    personality="iapeer",
    default_runtime="core",
    intelligence="absent",
    description="the core itself: sends notices, reads no messages",
    cwd="",
    runtimes=("core",),
    statuses={},
)
"""What `--all` adds: nobody can write to it, but its notices come from there."""


def list_peers(call: Call) -> int:
    """Print all peers; without a daemon the index is read and live state is unknown."""
    rows = peers()
    if call.has("all"):
        rows = sorted([*rows, CORE], key=lambda row: row.personality)
    if call.has("json"):
        output.emit([row.to_json() for row in rows])
    elif not rows:
        output.say("no peers registered")
    elif output.is_rich():
        headers = ("PEER", "RUNTIMES", "KIND", "WAITING", "DESCRIPTION")
        output.table(headers, [_cells(row) for row in rows])
    else:
        for row in rows:
            output.say(_line(row))
    return 0


def peers() -> list[Row]:
    """Return every registered peer, from the daemon or, when none answers, from the index."""
    try:
        return fetch()
    except DaemonDown as error:
        output.warn(f"iapeer list: {error.message}: live state is unknown")
        return _registered()


def fetch() -> list[Row]:
    """Return every registered peer as the daemon sees it. Raises DaemonDown."""
    return msgspec.convert(wire.ask("GET", "/api/v1/peers")["peers"], list[Row])


def _registered() -> list[Row]:
    from iapeer.registry.index import Registry
    from iapeer.storage.paths import Paths

    registry = Registry(Paths(load_settings().root), sandbox=is_sandbox())
    snapshot = registry.snapshot()
    for problem in snapshot.problems:
        output.warn(f"iapeer list: {problem.personality or 'a record'}: {problem.message}")
    return [
        Row(
            personality=record.personality,
            default_runtime=record.default_runtime,
            intelligence=record.intelligence.value,
            description=record.description,
            cwd=record.cwd,
            runtimes=record.runtimes,
            statuses={},
        )
        for record in snapshot
    ]


def _line(row: Row) -> str:
    states = "  ".join(f"{_glyph(row, runtime)} {runtime}" for runtime in row.runtimes)
    waiting = f"  waiting:{row.undelivered}" if row.undelivered else ""
    last = ""
    if row.last_active_runtime and len(row.runtimes) > 1:
        # Of a single one there is nothing to tell.
        last = f" last-active:{row.last_active_runtime}"
    return (
        f"{row.personality}  [{row.default_runtime}]  {row.intelligence}  {states}{last}{waiting}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    states = "  ".join(
        f"{_glyph(row, runtime)} {runtime} {row.status(runtime)}" for runtime in row.runtimes
    )
    waiting = str(row.undelivered) if row.undelivered else ""
    return (row.personality, states, row.intelligence, waiting, row.description)


def _glyph(row: Row, runtime: str) -> str:
    return _GLYPHS.get(row.status(runtime), "?")
