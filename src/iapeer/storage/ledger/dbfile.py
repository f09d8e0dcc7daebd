"""The ledger's file: how it is born, checked and opened, and what SQLite's errors mean.

While a process has the ledger open, nothing in it may open and close that file by other means:
closing any descriptor drops the process' POSIX locks, SQLite's included
(https://www.sqlite.org/howtocorrupt.html, section 2.2). So everything here asks SQLite, or stat.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from pathlib import Path
from urllib.parse import quote

from iapeer.core.errors import LockBusy, StorageError
from iapeer.storage.atomic import ensure_private_dir, storage_error, sync, sync_dir

from .schema import SCHEMA_VERSION, check_owner, migrate

_FULL_HINT = "free space on that disk; messages are accepted again by themselves"
_MEANINGS = {
    sqlite3.SQLITE_FULL: ("disk full", _FULL_HINT, "disk_full"),
    sqlite3.SQLITE_IOERR: ("disk I/O error", "check the disk, its free space and quota", "disk_io"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "check owner, mode and mount", "read_only"),
    sqlite3.SQLITE_CANTOPEN: ("it can't be opened", "check owner and mode", "cant_open"),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "stop the daemon, keep a copy, then repair it with: sqlite3 ledger.db .recover",
        "damaged",
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is no ledger or damaged",
        "move it away; a new ledger is made at the next start",
        "damaged",
    ),
    sqlite3.SQLITE_CONSTRAINT: ("a rule of its tables was broken", "", "constraint"),
}
_FATAL = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
    }
)

WAL_LIMIT_BYTES = 16 << 20
"""A write-ahead log that grew larger (a long read held it) is cut back to this."""


def translate(error: sqlite3.Error, path: Path) -> StorageError:
    """Return the error callers get for one of SQLite's; its text never holds a value of a row."""
    code = primary_code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LockBusy(
            f"the ledger {path} is in use by another process",
            hint="try again; if it stays, find the process with: lsof " + str(path),
            retry_after_s=1.0,
        )
    what, hint, name = _MEANINGS.get(code, ("it refused the request", "", "storage"))
    return StorageError(f"the ledger {path}: {what} ({error})", hint=hint, code=name)


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 for an error the Python layer raised itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_fatal(error: sqlite3.Error) -> bool:
    """Tell whether an error casts doubt on the file or its disk, not on one statement."""
    return primary_code(error) in _FATAL


def ensure_ledger(path: Path, busy_timeout_s: float) -> None:
    """Make sure that a ledger of this version, ours to write, lies at `path`.

    A missing one is built under another name and then linked into place, so that a process that
    dies here, or two at once, never leave a half-made ledger. One that is there is checked without
    a write, and only then migrated; its mode is closed to 0600.

    Raises StorageError; a file that is refused is left as it was.
    """
    if _exists(path):
        # Before the folder is touched: a refused ledger leaves everything as it was.
        check_access(path)
    ensure_private_dir(path.parent)
    if not _exists(path):
        _create(path)
    try:
        if check_content(path, busy_timeout_s) < SCHEMA_VERSION:
            with contextlib.closing(connect(path, busy_timeout_s)) as conn:
                migrate(conn)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except OSError as error:
        raise storage_error(error, path, "open") from error


def check_access(path: Path) -> None:
    """Refuse a ledger this user may not use, by looking at owners and modes only.

    Raises StorageError: missing (`no_ledger`), empty, read-only, or owned by another uid, in
    which case nothing is opened, not even by root.
    """
    uid = os.geteuid()
    try:
        info, folder = path.stat(), path.parent.stat()
    except FileNotFoundError:
        raise StorageError(
            f"there is no ledger at {path}", hint="start the daemon once", code="no_ledger"
        ) from None
    except OSError as error:
        raise storage_error(error, path, "open") from error
    for owner, name in ((info.st_uid, path), (folder.st_uid, path.parent)):
        if owner != uid:
            raise StorageError(
                f"{name} belongs to uid {owner}, not to uid {uid}",
                hint="run this as the user who owns it",
                code="not_owner",
            )
    if info.st_size == 0:
        raise StorageError(
            f"the ledger {path} is empty: its content is lost",
            hint="restore a backup, or remove the file to begin anew",
            code="damaged",
        )
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StorageError(
            f"the ledger {path} is read-only",
            hint=f"chmod 600 {path}, or mount its disk writable",
            code="read_only",
        )


def check_content(path: Path, busy_timeout_s: float) -> int:
    """Return the schema version of a ledger, without changing or making any file.

    Raises StorageError for a newer one or another program's file, sqlite3.Error.
    """
    # Reading a WAL database makes its side files; `immutable` does without. It would not see what
    # a write-ahead log holds, so it is for a file that has none.
    mode = "ro" if Path(f"{path}-wal").exists() else "ro&immutable=1"
    with contextlib.closing(_raw(path, busy_timeout_s, mode)) as conn:
        return check_owner(conn, str(path))


def connect(
    path: Path, busy_timeout_s: float, *, readonly: bool = False, shared: bool = False
) -> sqlite3.Connection:
    """Open a ledger that `ensure_ledger` has seen: autocommit mode, WAL, FULL, foreign keys.

    `shared` allows use by another thread than the opener's, one at a time. Never makes a file.

    Raises sqlite3.Error.
    """
    conn = _raw(path, busy_timeout_s, "ro" if readonly else "rw", shared=shared)
    try:
        if readonly:
            conn.execute("PRAGMA query_only = ON")
        else:
            _configure(conn)
    except sqlite3.Error:
        conn.close()
        raise
    return conn


def connect_anew(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open a ledger that has failed, for use by one other thread; trust it only after a look.

    The file is read through for damage and must take a commit. Never makes a file.

    Raises StorageError.
    """
    check_access(path)
    try:
        conn = connect(path, busy_timeout_s, shared=True)
        try:
            check_owner(conn, str(path))
            _look_for_damage(conn, path)
            probe(conn)
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return conn


def probe(conn: sqlite3.Connection) -> None:
    """Prove by a commit that the file takes commits.

    Raises sqlite3.Error.
    """
    conn.execute("UPDATE counters SET value = value + 1 WHERE name = 'probe'")


def _look_for_damage(conn: sqlite3.Connection, path: Path) -> None:
    verdict = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict != "ok":
        what, hint, code = _MEANINGS[sqlite3.SQLITE_CORRUPT]
        raise StorageError(f"the ledger {path}: {what} ({verdict})", hint=hint, code=code)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path, "open") from error
    return True


def _raw(
    path: Path, busy_timeout_s: float, mode: str, *, shared: bool = False
) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=not shared,
        cached_statements=256,
    )


def _configure(conn: sqlite3.Connection) -> None:
    """Set what this package promises: durable at commit, also through a drive's cache on macOS."""
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("PRAGMA fullfsync = ON")
    conn.execute("PRAGMA checkpoint_fullfsync = ON")
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")


def _create(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_raw(temporary, 0.0, "rw")) as conn:
            migrate(conn)
            conn.execute("PRAGMA journal_mode = WAL")
        fd = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
        try:
            sync(fd)
        finally:
            os.close(fd)
        # Unlike a rename, a link never replaces what another process made meanwhile.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        sync_dir(path.parent)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except OSError as error:
        raise storage_error(error, path, "create") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)
