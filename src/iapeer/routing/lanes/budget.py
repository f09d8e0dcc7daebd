"""Boots of a runtime that fail on one peer after the other: then only one at a time tries again.

A CLI that a bad update has broken would otherwise be started by the whole fleet again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from .presence import RuntimeTrouble

if TYPE_CHECKING:
    from iapeer.storage.ledger.rows import DeathRow

    from .services import LifecycleLog

PEERS_OWN = frozenset({"cwd_gone", "unknown_peer"})
"""Failures that say nothing about the runtime."""


class _Record(msgspec.Struct):
    """What happened since the last good boot of one runtime."""

    peers: set[str] = msgspec.field(default_factory=set)
    failures: int = 0
    last_at: float = 0.0
    why: str = ""
    prober: str = ""


class RuntimeBudget:
    """Counts failed boots by runtime; what follows from the count is the lifecycle rules' to say.

    `limit` is the number of peers from which on the runtime itself counts as broken. `mended` is
    called with a runtime whose boots may go on at once.
    """

    def __init__(self, limit: int, log: LifecycleLog) -> None:
        self._limit = limit
        self._log = log
        self._records: dict[str, _Record] = {}
        self.mended: Callable[[str], None] = lambda _runtime: None

    def load(self, failed: Iterable[DeathRow], good: dict[str, float]) -> None:
        """Go on where an earlier daemon stopped: failed boots, and when each runtime last came up.

        Times are wall times; `failed` oldest first.
        """
        for death in failed:
            if death.at > good.get(death.runtime, 0.0):
                self._count(death.runtime, death.uid, death.at, death.detail)

    def trouble(self, runtime: str) -> RuntimeTrouble:
        """Return what the rules go by."""
        record = self._records.get(runtime)
        if record is None:
            return RuntimeTrouble()
        return RuntimeTrouble(
            len(record.peers), record.failures, record.last_at, probing=bool(record.prober)
        )

    def is_broken(self, runtime: str) -> bool:
        """Whether boots of this runtime fail on peer after peer."""
        return self.trouble(runtime).peers >= self._limit

    def begin(self, runtime: str, uid: str) -> None:
        """A boot was decided on; with a broken runtime it is the one that probes."""
        if self.is_broken(runtime):
            self._records[runtime].prober = uid

    def refuses(self, runtime: str, uid: str) -> bool:
        """Whether a boot that had to wait for its permit must not begin any more."""
        return self.is_broken(runtime) and self._records[runtime].prober != uid

    def taken_back(self, runtime: str, uid: str) -> None:
        """A boot was cancelled: it proves nothing."""
        record = self._records.get(runtime)
        if record is not None and record.prober == uid:
            record.prober = ""

    def failed(self, runtime: str, uid: str, now: float, why: str) -> None:
        """A boot failed; the operator hears once that the runtime itself is broken."""
        was = self.is_broken(runtime)
        self._count(runtime, uid, now, why)
        if self.is_broken(runtime) and not was:
            peers = len(self._records[runtime].peers)
            self._log("runtime-broken", runtime=runtime, peers=peers, reason=why)

    def came_up(self, runtime: str) -> None:
        """A boot succeeded: the runtime is fine, whatever its single peers are."""
        self._forget(runtime, "came-up")

    def forgive(self, runtime: str) -> None:
        """An operator says that it is mended."""
        self._forget(runtime, "start")

    def problems(self) -> list[str]:
        """Return one line per broken runtime, for people."""
        return [
            f"runtime {runtime} fails to start on {len(record.peers)} peers, tried on one at a "
            f"time: {record.why}; mend it, then: iapeer start --all"
            for runtime, record in self._records.items()
            if len(record.peers) >= self._limit
        ]

    def _count(self, runtime: str, uid: str, at: float, why: str) -> None:
        record = self._records.setdefault(runtime, _Record())
        record.peers.add(uid)
        record.failures += 1
        record.last_at, record.why, record.prober = at, why, ""

    def _forget(self, runtime: str, cause: str) -> None:
        was = self.is_broken(runtime)
        self._records.pop(runtime, None)
        if was:
            self._log("runtime-mended", runtime=runtime, cause=cause)
            self.mended(runtime)
