"""The ledger for processes other than the daemon: one short transaction, the same functions."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from .dbfile import check_access, check_content, connect, ensure_ledger, translate


@contextlib.contextmanager
def offline(path: Path, busy_timeout_s: float = 5.0) -> Iterator[sqlite3.Connection]:
    """Run the block in one write transaction (`BEGIN IMMEDIATE`); durable when the block is left.

    A missing ledger is made. An exception of the block rolls everything back. What was written is
    counted in the same transaction, which is how a running daemon notices (`data_version`).

    Raises StorageError (LockBusy after `busy_timeout_s`); when the file or its folder belongs to
    another uid, nothing is opened.
    """
    ensure_ledger(path, busy_timeout_s)
    try:
        with contextlib.closing(connect(path, busy_timeout_s)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            try:
                before = conn.total_changes
                yield conn
                if conn.total_changes != before:
                    conn.execute(
                        "UPDATE counters SET value = value + 1 WHERE name = 'foreign_writes'"
                    )
                conn.execute("COMMIT")
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise translate(error, path) from error


@contextlib.contextmanager
def offline_read(path: Path, busy_timeout_s: float = 5.0) -> Iterator[sqlite3.Connection]:
    """Run the block on one snapshot of the ledger; it can't write, and nothing is made.

    Raises StorageError; code `no_ledger` when there is none yet.
    """
    check_access(path)
    try:
        check_content(path, busy_timeout_s)
        with contextlib.closing(connect(path, busy_timeout_s, readonly=True)) as conn:
            conn.execute("BEGIN")
            yield conn
    except sqlite3.Error as error:
        raise translate(error, path) from error
