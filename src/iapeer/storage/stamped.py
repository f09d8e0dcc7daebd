"""What was made of a small file, kept until the file changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

RACY_NS = 100_000_000
"""A file changed less than this before it was read may change again with the same time stamp
(Linux stamps by the tick, 1-10 ms), size and reused inode: it is read again."""

_Stamp = tuple[int, int, int]


class Stamped(Generic[T]):
    """Reads files and keeps what `make` made of each, at most `most` of them.

    Safe to share between threads. What is made is handed out many times: it must not be changed.
    """

    def __init__(self, make: Callable[[bytes, Path], T], most: int = 1) -> None:
        self._make = make
        self._most = most
        self._kept: dict[Path, tuple[_Stamp, T]] = {}

    def of(self, path: Path) -> T:
        """Return what the file is now; one stat where it has not changed.

        Raises OSError, and what `make` raises; then nothing is kept of that file.
        """
        kept = self._kept.get(path)
        if kept is not None and kept[0] == _stamp(path.stat()):
            return kept[1]
        now_ns = time.time_ns()
        self._kept.pop(path, None)
        with path.open("rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            data = file.read()
        made = self._make(data, path)
        if stamp[0] + RACY_NS < now_ns:
            self._keep(path, (stamp, made))
        return made

    def _keep(self, path: Path, entry: tuple[_Stamp, T]) -> None:
        if len(self._kept) >= self._most:
            # Another thread may be at it as well: whatever is left over goes with the next one.
            self._kept.clear()
        self._kept[path] = entry


def _stamp(info: os.stat_result) -> _Stamp:
    return (info.st_mtime_ns, info.st_size, info.st_ino)
