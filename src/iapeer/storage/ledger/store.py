"""The daemon's ledger: one writer thread with group commit, one reader thread.

A group is what has queued up while the last one was being synced: no delay is added, so a lone
writer pays one sync and many share one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from iapeer.core.errors import LockBusy, StorageError
from iapeer.storage.faults import fault

from .dbfile import connect, connect_anew, ensure_ledger, is_fatal, probe, translate
from .mailbox import Job, Mailbox, deliver
from .offline import offline, offline_read

__all__ = ["Ledger", "LedgerStats", "offline", "offline_read"]

T = TypeVar("T")

QUEUE_LIMIT = 10_000
"""Requests that may wait for a thread; one more is refused with `retry_after_s`."""

GROUP_LIMIT = 256
"""Most writes in one transaction: bounds how long one caller can wait for others' work."""

RETRY_S = 1.0
"""Shortest time between two attempts to bring an unhealthy ledger back."""


class LedgerStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since opening: committed writes and the commits they needed, and what waits now."""

    writes: int
    commits: int
    recoveries: int
    queued: int
    healthy: bool


class _GroupLostError(Exception):
    """The transaction of a group is gone, or must not be committed; `fault` is why."""

    def __init__(self, fault: StorageError) -> None:
        self.fault = fault


class Ledger:
    """An open ledger; made by `open`, ended by `close`.

    `write` and `read` may be called from any running asyncio loop. What is handed to them runs on
    one thread each and must return values, never cursors.
    """

    def __init__(
        self, path: Path, busy_timeout_s: float, connections: tuple[sqlite3.Connection, ...]
    ) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._writer: sqlite3.Connection | None = connections[0]
        self._reader: sqlite3.Connection | None = connections[1]
        self._watcher: sqlite3.Connection | None = connections[2]
        self._watching = threading.Lock()
        self._version = 0
        self._file = _file_of(path)
        self._fault: StorageError | None = None
        self._retry_at = 0.0
        self._writes = self._commits = self._recoveries = 0
        self._write_box = Mailbox(QUEUE_LIMIT, gathers=True)
        self._read_box = Mailbox(QUEUE_LIMIT, gathers=False)
        self._threads = (
            threading.Thread(target=self._write_loop, name="ledger-writer", daemon=True),
            threading.Thread(target=self._read_loop, name="ledger-reader", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, path: Path, busy_timeout_s: float = 5.0) -> Ledger:
        """Open the ledger, making or migrating it where needed, and prove that it takes commits.

        Blocks for a few file operations: call it before the loop serves anybody.

        Raises StorageError: newer version, another program's file, damaged, read-only, another
        user's, folder open to others. A refused file is left as it was.
        """
        ensure_ledger(path, busy_timeout_s)
        connections: list[sqlite3.Connection] = []
        try:
            connections.append(connect(path, busy_timeout_s, shared=True))
            probe(connections[0])
            connections.append(connect(path, busy_timeout_s, readonly=True, shared=True))
            connections.append(connect(path, 0.0, readonly=True, shared=True))
        except sqlite3.Error as error:
            for connection in connections:
                connection.close()
            raise translate(error, path) from error
        return cls(path, busy_timeout_s, tuple(connections))

    async def write(
        self, fn: Callable[[sqlite3.Connection], T], *, refuses_first: bool = False
    ) -> T:
        """Run `fn` inside a transaction and return its result once that is on the disk.

        Writes are carried out in the order of the calls. An exception of `fn` undoes what `fn`
        did and nothing else. A caller that is cancelled stops waiting; its `fn` may be carried
        out all the same.

        With `refuses_first`, `fn` promises to raise before it changes anything, or not at all:
        then nothing is kept to undo it alone. (A savepoint copies each page that is changed after
        it, once for every write of a group: two thirds of what an accept wrote.) A broken promise
        costs the whole group.

        Raises what `fn` raises (SQLite's errors as StorageError), and StorageError when nothing
        can be claimed: queue full, ledger unhealthy, or a commit that failed. In the last case
        the write may turn out to be there.
        """
        job = Job(fn, refuses_first=refuses_first)
        self._write_box.put(job)
        result: T = await job.future
        return result

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on one snapshot and return its result; it sees every write that has returned.

        Raises what `fn` raises, SQLite's errors as StorageError.
        """
        job = Job(fn)
        self._read_box.put(job)
        result: T = await job.future
        return result

    def data_version(self) -> int:
        """Return a number that changes when another process has committed through `offline`.

        Takes about 3 microseconds and never waits for a lock: while the answer can't be read, it
        is the last one. (SQLite's own pragma of that name would also count our own commits.)
        """
        with self._watching:
            try:
                if self._watcher is None:
                    self._watcher = connect(self._path, 0.0, readonly=True, shared=True)
                found = self._watcher.execute(
                    "SELECT value FROM counters WHERE name = 'foreign_writes'"
                ).fetchone()
                self._version = int(found[0])
            except sqlite3.Error:
                self._drop_watcher()
            return self._version

    @property
    def stats(self) -> LedgerStats:
        """Return the counters."""
        return LedgerStats(
            writes=self._writes,
            commits=self._commits,
            recoveries=self._recoveries,
            queued=len(self._write_box),
            healthy=self._fault is None,
        )

    @property
    def unhealthy(self) -> StorageError | None:
        """Return why writes are refused at present, or None."""
        return self._fault

    def close(self, timeout_s: float = 10.0) -> None:
        """Carry out what is queued, stop both threads and close the file; idempotent.

        Raises StorageError when a thread is still at work after `timeout_s`.
        """
        self._write_box.close()
        self._read_box.close()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._watching:
            self._drop_watcher()
        if any(thread.is_alive() for thread in self._threads):
            raise StorageError(f"the ledger {self._path} did not close within {timeout_s:g} s")

    # --- the writer thread -------------------------------------------------------------------

    def _write_loop(self) -> None:
        try:
            while jobs := self._write_box.take(GROUP_LIMIT):
                try:
                    self._commit_group(jobs)
                except BaseException as error:  # noqa: BLE001 - root of this thread: callers wait
                    self._fail(jobs, StorageError(f"the ledger's writer failed: {error!r}"))
                    self._recover(StorageError(f"the ledger's writer failed: {error!r}"))
                deliver(jobs)
        finally:
            if self._writer is not None:
                self._writer.close()

    def _commit_group(self, jobs: list[Job]) -> None:
        try:
            conn = self._healthy_writer()
            conn.execute("BEGIN IMMEDIATE")
        except StorageError as error:
            self._fail(jobs, error)
            return
        except sqlite3.Error as error:
            reason = translate(error, self._path)
            self._fail(jobs, reason)
            if not isinstance(reason, LockBusy):
                self._recover(reason)
            return
        try:
            alone = len(jobs) == 1
            for job in jobs:
                self._run(conn, job, alone=alone)
            if alone and jobs[0].error is not None:
                conn.execute("ROLLBACK")
                return
            fault("ledger.commit")
            conn.execute("COMMIT")
        except (_GroupLostError, sqlite3.Error) as error:
            reason = (
                error.fault if isinstance(error, _GroupLostError) else translate(error, self._path)
            )
            self._fail(jobs, reason)
            self._recover(reason)
            return
        fault("ledger.acknowledge")
        self._commits += 1
        self._writes += sum(job.error is None for job in jobs)

    def _run(self, conn: sqlite3.Connection, job: Job, *, alone: bool) -> None:
        """Carry out one write of a group; one that raised has changed nothing.

        What is alone in its group is undone by the end of that. Raises _GroupLostError where one
        can't be undone, sqlite3.Error.
        """
        undoable = not (job.refuses_first or alone)
        if undoable:
            conn.execute("SAVEPOINT job")
        changes = conn.total_changes
        try:
            job.run(conn)
        except sqlite3.Error as error:
            reason = translate(error, self._path)
            job.fail(reason)
            if is_fatal(error) or not conn.in_transaction:
                raise _GroupLostError(reason) from error
        except BaseException as error:  # noqa: BLE001 - it is the caller's, and he gets it
            job.fail(error)
        if not conn.in_transaction:
            # SQLite has rolled back by itself and `fn` hid it, or `fn` has ended the transaction.
            raise _GroupLostError(StorageError(f"the ledger {self._path}: a transaction was lost"))
        if undoable:
            if job.error is not None:
                conn.execute("ROLLBACK TO job")
            conn.execute("RELEASE job")
        elif job.error is not None and not alone and conn.total_changes != changes:
            raise _GroupLostError(
                StorageError(f"the ledger {self._path}: a write failed when it had begun")
            ) from job.error

    def _healthy_writer(self) -> sqlite3.Connection:
        """Return the connection; bring it back first if it was lost and it is time to try.

        Raises StorageError.
        """
        if self._fault is None and _file_of(self._path) != self._file:
            # SQLite would go on writing into a file nobody finds again.
            self._recover(StorageError(f"the ledger {self._path} was replaced or removed"))
        wait_s = self._retry_at - time.monotonic()
        if self._fault is not None and wait_s <= 0:
            self._recover(self._fault)
        if self._fault is not None:
            raise _again(self._fault, retry_after_s=max(wait_s, RETRY_S))
        if self._writer is None:
            raise StorageError(f"the ledger {self._path} is not open")
        return self._writer

    def _recover(self, reason: StorageError) -> None:
        """Close and reopen, look for damage and prove a commit; else stay unhealthy.

        After a failed sync the kernel may have dropped what it could not write, and a second sync
        says ok (https://www.usenix.org/conference/atc20/presentation/rebello): only a file that
        was read again and took a new commit is trusted.
        """
        self._fault = reason
        self._retry_at = time.monotonic() + RETRY_S
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        try:
            file = _file_of(self._path)
            self._writer = connect_anew(self._path, self._busy_timeout_s)
        except StorageError as error:
            self._fault = error
            return
        self._file, self._fault = file, None
        self._recoveries += 1

    def _fail(self, jobs: list[Job], reason: StorageError) -> None:
        for job in jobs:
            job.fail(_again(reason))

    # --- the reader thread -------------------------------------------------------------------

    def _read_loop(self) -> None:
        recoveries = 0
        try:
            while jobs := self._read_box.take(1):
                try:
                    if recoveries != self._recoveries:
                        recoveries = self._recoveries
                        self._drop_reader()
                    self._run_read(jobs[0])
                except sqlite3.Error as error:
                    jobs[0].fail(translate(error, self._path))
                    self._drop_reader()
                except BaseException as error:  # noqa: BLE001 - it is the caller's, and he gets it
                    jobs[0].fail(error)
                deliver(jobs)
        finally:
            self._drop_reader()

    def _run_read(self, job: Job) -> None:
        if self._reader is None:
            self._reader = connect(self._path, self._busy_timeout_s, readonly=True, shared=True)
        self._reader.execute("BEGIN")
        try:
            job.run(self._reader)
        finally:
            if self._reader.in_transaction:
                self._reader.execute("ROLLBACK")

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _drop_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


def _file_of(path: Path) -> tuple[int, int] | None:
    """Return what identifies the file at `path`, None when it can't be found."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _again(error: StorageError, retry_after_s: float | None = None) -> StorageError:
    """Return an equal error of its own for one more caller."""
    return type(error)(
        error.message,
        hint=error.hint,
        code=error.code,
        retry_after_s=error.retry_after_s if retry_after_s is None else retry_after_s,
    )
