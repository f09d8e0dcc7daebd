"""Log files of one line per event: private, bounded, safe with several writing processes."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from iapeer.core.errors import StorageError
from iapeer.core.logfmt import format_line
from iapeer.storage.atomic import ensure_private_dir

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class LogFile:
    """One log of at most `keep` + 1 files of about `max_bytes` each: `path`, `path.1` (newest) ...

    A line is one `write` on an O_APPEND descriptor, so lines of several processes never mix. The
    rotation is done by whoever gets its lock; nobody waits for it: a writer that comes second
    appends to the old file or the new one, and no line is lost.
    """

    def __init__(self, path: Path | None, max_bytes: int, keep: int) -> None:
        """`path=None` is a log that drops everything."""
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._reported = False
        self._torn = False

    def append(self, line: str) -> None:
        """Append one line (a newline inside is escaped); rotate first if it would not fit.

        Never raises: a log must not cost the work it tells of. The first failure of this object
        is said on stderr.
        """
        if self._path is None:
            return
        text = line.rstrip("\n").replace("\r", "\\r").replace("\n", "\\n") + "\n"
        try:
            self._append(self._path, text.encode("utf-8", "backslashreplace"))
        except (OSError, StorageError) as error:
            self._report(error)

    def tidy(self) -> None:
        """Rotate a log that others have appended to until it was too long. Never raises."""
        if self._path is None:
            return
        try:
            if _size(self._path) > self._max_bytes:
                self._rotate(self._path, 0)
        except OSError as error:
            self._report(error)

    def _append(self, path: Path, data: bytes) -> None:
        fd = _open(path)
        try:
            info = os.fstat(fd)
            if info.st_size > 0 and info.st_size + len(data) > self._max_bytes:
                self._rotate(path, len(data))
                os.close(fd)
                fd = -1
                fd = _open(path)
            if stat.S_IMODE(info.st_mode) & 0o077:
                os.fchmod(fd, 0o600)
            self._write(fd, data)
        finally:
            if fd >= 0:
                os.close(fd)

    def _write(self, fd: int, data: bytes) -> None:
        """Write in one call; after a line that a full disk cut, begin a new one."""
        if self._torn:
            data = b"\n" + data
        written = os.write(fd, data)
        self._torn = written < len(data)
        if self._torn:
            raise OSError(f"only {written} of {len(data)} bytes of a line were written")

    def _rotate(self, path: Path, coming: int) -> None:
        """Shift the files up, unless another process does it or has just done it."""
        with _try_lock(path.with_name(f".{path.name}.lock")) as mine:
            if not mine or _size(path) + coming <= self._max_bytes:
                return
            if self._keep < 1:
                path.unlink()
                return
            for number in range(self._keep, 0, -1):
                older = _numbered(path, number - 1)
                if older.exists():
                    older.replace(_numbered(path, number))

    def _report(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            sys.stderr.write(f"iapeer: log {self._path} can't be written: {error}\n")


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _size(path: Path) -> int:
    """Return the size of a file; one that was just shifted away counts as empty."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _open(path: Path) -> int:
    """Open for appending; the folder is made when it is missing."""
    try:
        return os.open(path, _FLAGS, 0o600)
    except FileNotFoundError:
        ensure_private_dir(path.parent)
        return os.open(path, _FLAGS, 0o600)


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Yield whether the lock was free; plain flock, because nobody waits here."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What delivery.log says of one attempt to send: never a body, only its length.

    `runtime` only when the sender asked for one; `via` is the address that accepted it;
    `queue_kind` says where it waits (`composer`, `ephemeral`, ...); `path` is `cli` for a send
    that did not go through the daemon.
    """

    caller: str
    to: str
    ok: bool
    elapsed_ms: int
    length: int
    attachments: int = 0
    runtime: str | None = None
    via: str | None = None
    woke: bool = False
    queued: bool = False
    queue_kind: str | None = None
    queue_depth: int | None = None
    topic: str | None = None
    error: str | None = None
    path: str | None = None
    message_id: str | None = None
    state: str | None = None


def delivery_record(now: float, delivery: Delivery) -> str:
    """Return the line of delivery.log, keys in the contract's order; `now` is epoch seconds.

    `via` and `woke` stand only where it is ok, the queue's keys only where it is queued, `err`
    only where it is not ok. `id` and `state` are ours and come last.
    """
    ok, queued = delivery.ok, delivery.queued
    return format_line(
        (
            ("ts", log_time(now)),
            ("ev", "delivery"),
            ("path", delivery.path),
            ("caller", delivery.caller),
            ("to", delivery.to),
            ("rt", delivery.runtime),
            ("ok", ok),
            ("via", delivery.via if ok else None),
            ("woke", delivery.woke if ok else None),
            ("queued", True if queued else None),
            ("qkind", delivery.queue_kind if queued else None),
            ("qd", delivery.queue_depth if queued else None),
            ("ms", delivery.elapsed_ms),
            ("len", delivery.length),
            ("att", delivery.attachments or None),
            ("topic", delivery.topic),
            ("err", None if ok else delivery.error),
            ("id", delivery.message_id),
            ("state", delivery.state),
        )
    )


def lifecycle_record(now: float, ev: str, **fields: object) -> str:
    """Return a line of lifecycle.log: `ts`, `ev`, then `fields` as given, None left out."""
    return format_line((("ts", log_time(now)), ("ev", ev), *fields.items()))


def log_time(now: float) -> str:
    """Return epoch seconds as ISO 8601 in UTC with milliseconds and `Z`."""
    text = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
