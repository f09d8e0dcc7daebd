"""The session's own record: one JSON object per line, only ever appended to."""

from __future__ import annotations

import json
import os
import time


class Transcript:
    """Appends records to a private file; without a path it drops them.

    Every record is one `write` to a descriptor in append mode, so a reader sees whole lines only
    and two programs can't mix theirs.
    """

    def __init__(self, path: str, session: str) -> None:
        self.path = path
        self.session = session
        self._fd = -1
        if path:
            _make_private(os.path.dirname(path))  # noqa: PTH120 - no pathlib before the first frame
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)

    def write(self, kind: str, **fields: object) -> None:
        """Append one record of `type` kind.

        Raises OSError when the disk refuses it; a program that can't remember must not go on.
        """
        if self._fd < 0:
            return
        record = {"type": kind, **fields, "session": self.session, "ts": _now()}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        data = line.encode("utf-8", "surrogatepass")
        written = os.write(self._fd, data)
        if written != len(data):
            raise OSError(f"{self.path}: {written} of {len(data)} bytes written")


def _make_private(folder: str) -> None:
    """Make a folder and what is missing above it, all 0700 (makedirs: only the last one)."""
    if not folder or os.path.isdir(folder):  # noqa: PTH112 - as above
        return
    _make_private(os.path.dirname(folder))  # noqa: PTH120 - as above
    os.mkdir(folder, 0o700)  # noqa: PTH102 - as above


def _now() -> str:
    seconds = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
