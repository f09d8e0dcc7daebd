"""What the terminal program of a router has noted, see `eye.py`."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.rivals.measure import Calls, burst_of
from benchmarks.rivals.readings import Burst, NotRun

_PATIENCE_S = 10.0
_POLL_S = 0.001


class Notes:
    """What `eye.py` has noted: which message came when, of `time.perf_counter`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The eye is another process and notes the time of day.
        self._offset = time.perf_counter() - time.time()

    def read(self) -> list[tuple[str, float]]:
        """Return all messages in the order they came."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="ascii").split("\n")[:-1]
        return [(mark, float(at) + self._offset) for mark, at in map(str.split, lines)]

    def wait(self, mark: str) -> float:
        """Return when a message came. Raises NotRun when it does not."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for found, at in self.read():
                if found == mark:
                    return at
            time.sleep(_POLL_S)
        raise NotRun(f"the program saw nothing for {_PATIENCE_S:g} s")

    def different(self, wanted: set[str]) -> int:
        """Return how many of those messages have come."""
        return len({mark for mark, _ in self.read()} & wanted)

    def burst(self, calls: Calls, senders: int, wanted: set[str], began: float) -> Burst:
        """Return what became of a burst that began then."""
        came = [at for mark, at in self.read() if mark in wanted]
        different = self.different(wanted)
        last = max(came, default=began) - began
        return burst_of(calls, senders, different, len(came) - different, last)
