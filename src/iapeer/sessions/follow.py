"""Follow one session's transcript from a stored offset and report facts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from iapeer.runtimes.spec import Record

from .evidence import Fact, LineBuffer, read_line
from .notify import Notifier

CHUNK_BYTES = 1 << 20
"""Read at once; more than this is taken in further steps so that the loop breathes."""


class TranscriptFollower:
    """Reads what was appended and hands facts to `report(facts, offset)`.

    `offset` is the byte position up to which everything was read into facts: stored, it lets
    another follower go on without missing or repeating a record. A file that shrank (rotated or
    replaced) is read from its start.
    """

    def __init__(
        self,
        path: Path,
        records: Sequence[Record],
        offset: int,
        report: Callable[[list[Fact], int], None],
    ) -> None:
        self._path = path
        self._records = records
        self._offset = offset
        self._report = report
        self._buffer = LineBuffer()
        self._stop_watch: Callable[[], None] | None = None

    def start(self, notifier: Notifier) -> None:
        """Watch the transcript's folder, which must exist; read what is there. Raises OSError."""
        self._stop_watch = notifier.watch(self._path.parent, self.read_new)
        self.read_new()

    def read_new(self) -> None:
        """Report everything appended since the last call; silent when the file is not there."""
        facts, before = [], self._offset
        for chunk in self._chunks():
            for line in self._buffer.feed(chunk):
                fact = read_line(line, self._records, f"transcript@{self._offset}")
                if fact is not None:
                    facts.append(fact)
        if facts or self._offset != before:
            self._report(facts, self._offset - self._buffer.pending)

    def _chunks(self) -> list[bytes]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            if os.fstat(descriptor).st_size < self._offset:
                self._offset, self._buffer = 0, LineBuffer()
            chunks = []
            while chunk := os.pread(descriptor, CHUNK_BYTES, self._offset):
                self._offset += len(chunk)
                chunks.append(chunk)
            return chunks
        finally:
            os.close(descriptor)

    def stop(self) -> None:
        """Stop watching; nothing is reported afterwards."""
        if self._stop_watch is not None:
            self._stop_watch()
            self._stop_watch = None
