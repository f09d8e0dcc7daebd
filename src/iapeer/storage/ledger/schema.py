"""The tables of the ledger, their version, and how a file gets there.

A published schema text is never edited: a new version adds a step to `_STEPS`.
"""

# ruff: noqa: S608 - SQL text is put together from constants of this module only.
from __future__ import annotations

import sqlite3

from iapeer.core.errors import StorageError

SCHEMA_VERSION = 5
"""`user_version` of a ledger this program writes."""

APPLICATION_ID = 0x49415031
"""`application_id` of every ledger: "IAP1"; a file without it is not ours and is left alone."""

UNDELIVERED_SQL = "state IN ('accepted', 'held', 'in_flight')"
"""Condition of the partial indexes; SQLite uses one only where a query repeats its very text."""

OUTSTANDING_SQL = "state IN ('in_flight', 'landed') AND final = 0"
"""Handed over or about to be, and not yet proven to be seen."""

DEAD_SQL = "state IN ('failed', 'expired') AND settled = ''"
"""Ended undelivered, and no operator has redelivered or dropped it."""

IN_SESSION_SQL = "session_id <> ''"
"""A step of a message that was handed over in some session."""

# `body` stands last: a scan over the other columns then never reads the pages a long body needs.
_VERSION_1 = (
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        sender TEXT NOT NULL,
        sender_uid TEXT NOT NULL,
        to_uid TEXT NOT NULL,
        personality TEXT NOT NULL,
        runtime TEXT NOT NULL,
        pinned INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('accepted', 'held', 'in_flight', 'landed', 'seen', 'failed', 'expired')),
        reason TEXT NOT NULL DEFAULT '',
        dup INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 0,
        session_id TEXT NOT NULL DEFAULT '',
        door TEXT NOT NULL DEFAULT '',
        final INTEGER NOT NULL DEFAULT 0,
        woke INTEGER NOT NULL DEFAULT 0,
        purged INTEGER NOT NULL DEFAULT 0,
        answered_by TEXT NOT NULL DEFAULT '',
        told INTEGER NOT NULL DEFAULT 0,
        settled TEXT NOT NULL DEFAULT '',
        accepted_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        accepted_ts TEXT NOT NULL,
        expires_at REAL NOT NULL,
        path TEXT NOT NULL,
        intelligence TEXT NOT NULL,
        depth INTEGER NOT NULL,
        key TEXT,
        topic TEXT,
        attachments TEXT NOT NULL,
        body TEXT NOT NULL
    )
    """,
    f"CREATE INDEX messages_lane ON messages (to_uid, runtime, seq) WHERE {UNDELIVERED_SQL}",
    f"CREATE INDEX messages_pair ON messages (to_uid, sender, seq) WHERE {UNDELIVERED_SQL}",
    f"CREATE INDEX messages_ttl ON messages (expires_at) WHERE {UNDELIVERED_SQL}",
    f"CREATE INDEX messages_session ON messages (session_id, seq) WHERE {OUTSTANDING_SQL}",
    f"CREATE INDEX messages_out ON messages (to_uid, runtime, seq) WHERE {OUTSTANDING_SQL}",
    """
    CREATE INDEX messages_untold ON messages (seq)
        WHERE state IN ('failed', 'expired') AND told = 0
    """,
    f"CREATE INDEX messages_dead ON messages (seq) WHERE {DEAD_SQL}",
    "CREATE INDEX messages_answer ON messages (to_uid, sender_uid, seq)",
    """
    CREATE TABLE turns (
        message_id TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
        attempt INTEGER NOT NULL,
        session_id TEXT NOT NULL,
        seen_at REAL NOT NULL,
        turn_end TEXT NOT NULL DEFAULT '',
        ended_at REAL,
        PRIMARY KEY (message_id, attempt)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX turns_open ON turns (session_id) WHERE turn_end = ''",
    """
    CREATE TABLE history (
        n INTEGER PRIMARY KEY,
        message_id TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
        at REAL NOT NULL,
        state TEXT NOT NULL,
        event TEXT NOT NULL,
        reason TEXT NOT NULL,
        door TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        session_id TEXT NOT NULL,
        evidence TEXT NOT NULL
    )
    """,
    "CREATE INDEX history_message ON history (message_id, n)",
    """
    CREATE TABLE keys (
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        recipient TEXT NOT NULL,
        body_sha256 TEXT NOT NULL,
        message_id TEXT NOT NULL,
        created_at REAL NOT NULL,
        PRIMARY KEY (caller, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY NOT NULL,
        uid TEXT NOT NULL,
        runtime TEXT NOT NULL,
        personality TEXT NOT NULL,
        token_sha256 TEXT NOT NULL,
        cwd TEXT NOT NULL,
        socket TEXT NOT NULL,
        mode TEXT NOT NULL,
        started_at REAL NOT NULL,
        server_pid INTEGER,
        server_start REAL,
        pane_id TEXT NOT NULL DEFAULT '',
        pane_pid INTEGER,
        pane_start REAL,
        native_id TEXT NOT NULL DEFAULT '',
        transcript TEXT NOT NULL DEFAULT '',
        read_offset INTEGER NOT NULL DEFAULT 0,
        ready_at REAL,
        ended_at REAL,
        end_cause TEXT NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX sessions_live ON sessions (uid, runtime) WHERE ended_at IS NULL",
    """
    CREATE UNIQUE INDEX sessions_token ON sessions (token_sha256)
        WHERE ended_at IS NULL AND token_sha256 <> ''
    """,
    """
    CREATE TABLE deaths (
        n INTEGER PRIMARY KEY,
        uid TEXT NOT NULL,
        runtime TEXT NOT NULL,
        kind TEXT NOT NULL,
        at REAL NOT NULL,
        detail TEXT NOT NULL
    )
    """,
    "CREATE INDEX deaths_identity ON deaths (uid, runtime, at)",
    """
    CREATE TABLE marks (
        uid TEXT NOT NULL,
        runtime TEXT NOT NULL,
        mark TEXT NOT NULL,
        set_at REAL NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (uid, runtime, mark)
    ) WITHOUT ROWID
    """,
    # Counters: `foreign_writes` tells the daemon that another process has committed, `probe`
    # is what a connection writes to prove that this file still takes commits.
    "CREATE TABLE counters (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counters (name, value) VALUES ('foreign_writes', 0), ('probe', 0)",
)

# `endpoint` is the address of the runtime's own server, with its password if it has one: a daemon
# that adopts the session must find it again.
_VERSION_2 = (
    "ALTER TABLE sessions ADD COLUMN endpoint TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE sessions ADD COLUMN heard INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX sessions_identity ON sessions (uid, runtime, started_at)",
)

# What a session died of; `deaths` only counts the faults that may hold a peer `broken`, and is
# emptied when somebody starts it again. `boot_id` tells a reboot of the host from other deaths.
_VERSION_3 = (
    "ALTER TABLE sessions ADD COLUMN boot_id TEXT NOT NULL DEFAULT ''",
    """
    CREATE TABLE postmortems (
        session_id TEXT PRIMARY KEY NOT NULL,
        uid TEXT NOT NULL,
        runtime TEXT NOT NULL,
        personality TEXT NOT NULL,
        at REAL NOT NULL,
        what TEXT NOT NULL,
        cause TEXT NOT NULL,
        confidence TEXT NOT NULL,
        why TEXT NOT NULL,
        status INTEGER,
        signal INTEGER,
        watched INTEGER NOT NULL,
        words TEXT NOT NULL,
        report TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX postmortems_at ON postmortems (at)",
    "CREATE INDEX postmortems_uid ON postmortems (uid, at)",
)

# Each accept holds what waits for another reason: without an index that tells the reasons apart it
# reads the whole queue (measured: 38 ms an accept with 5,000 messages waiting).
_VERSION_4 = (
    f"""
    CREATE INDEX messages_reason ON messages (to_uid, runtime, state, reason)
        WHERE {UNDELIVERED_SQL}
    """,
)

# What is old is found by its age: a purge read every message in each audit (measured: 0.33 s at
# 1,000,000). `messages_age` is one index and not partial ones by state: those are written again at
# each step of a message, this one when it is accepted and when its body is forgotten. The steps of
# a session are those after a hand-over; an accept and a hold before it have none, and cost nothing.
_VERSION_5 = (
    "CREATE INDEX messages_age ON messages (purged, accepted_at)",
    f"CREATE INDEX history_session ON history (session_id) WHERE {IN_SESSION_SQL}",
    "CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL",
    "CREATE INDEX deaths_at ON deaths (at)",
    "CREATE INDEX keys_created ON keys (created_at)",
    # How much waits for an identity is asked at each accept: counting reads the whole queue
    # (measured: 0.6 ms with 4,000 messages waiting). Kept by the file itself, whoever writes.
    """
    CREATE TABLE queues (
        to_uid TEXT NOT NULL,
        runtime TEXT NOT NULL,
        depth INTEGER NOT NULL,
        PRIMARY KEY (to_uid, runtime)
    ) WITHOUT ROWID
    """,
    f"""
    INSERT INTO queues
        SELECT to_uid, runtime, count(*) FROM messages WHERE {UNDELIVERED_SQL}
        GROUP BY to_uid, runtime
    """,
    f"""
    CREATE TRIGGER queues_accept AFTER INSERT ON messages WHEN new.{UNDELIVERED_SQL}
    BEGIN
        INSERT INTO queues VALUES (new.to_uid, new.runtime, 1)
            ON CONFLICT DO UPDATE SET depth = depth + 1;
    END
    """,
    f"""
    CREATE TRIGGER queues_step AFTER UPDATE OF state ON messages
        WHEN (old.{UNDELIVERED_SQL}) <> (new.{UNDELIVERED_SQL})
    BEGIN
        INSERT INTO queues VALUES (new.to_uid, new.runtime, 1)
            ON CONFLICT DO UPDATE SET depth = depth + iif(new.{UNDELIVERED_SQL}, 1, -1);
    END
    """,
    f"""
    CREATE TRIGGER queues_delete AFTER DELETE ON messages WHEN old.{UNDELIVERED_SQL}
    BEGIN
        UPDATE queues SET depth = depth - 1 WHERE to_uid = old.to_uid AND runtime = old.runtime;
    END
    """,
)

_STEPS: tuple[tuple[str, ...], ...] = (
    _VERSION_1,
    _VERSION_2,
    _VERSION_3,
    _VERSION_4,
    _VERSION_5,
)


def check_owner(conn: sqlite3.Connection, name: str) -> int:
    """Return the schema version of a ledger; change nothing.

    `name` is what errors call the file. Raises StorageError when the file belongs to another
    program or was written by a newer version, sqlite3.Error when it can't be read.
    """
    version = int(conn.execute("PRAGMA user_version").fetchone()[0])
    if int(conn.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise StorageError(
            f"{name} is a database of another program",
            hint="move it away; a new ledger is made at the next start",
            code="foreign_ledger",
        )
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{name} was written by a newer version (schema {version}, known: {SCHEMA_VERSION})",
            hint="upgrade this program, or restore the backup made before the upgrade",
            code="newer_ledger",
        )
    return version


def migrate(conn: sqlite3.Connection) -> None:
    """Bring an empty database or an older ledger to `SCHEMA_VERSION`, in one transaction.

    The connection must be in autocommit mode (`isolation_level=None`). A database that is not
    empty and not ours, or newer than this program, is refused and left as it was.

    Raises StorageError, sqlite3.Error.
    """
    conn.execute("BEGIN IMMEDIATE")
    try:
        empty = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        version = 0 if empty else check_owner(conn, "the ledger")
        for number, statements in enumerate(_STEPS[version:], start=version + 1):
            for statement in statements:
                conn.execute(statement)
            conn.execute(f"PRAGMA user_version = {number}")
        if empty:
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
