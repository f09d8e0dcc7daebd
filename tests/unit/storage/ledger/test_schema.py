from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from iapeer.core.errors import StorageError
from iapeer.core.states import TRANSITIONS, UNDELIVERED, Event, MessageState
from iapeer.storage.ledger import messages, postmortems, schema, sessions, upkeep
from iapeer.storage.ledger.dbfile import ensure_ledger
from iapeer.storage.ledger.offline import offline, offline_read
from tests.unit.storage.ledger.samples import NOW, accepted, brought_to


def test_a_new_ledger_carries_version_and_application(conn: sqlite3.Connection) -> None:
    assert conn.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    assert conn.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)


def test_migrating_again_changes_nothing(conn: sqlite3.Connection) -> None:
    row = accepted(conn)
    before = conn.execute("SELECT sql FROM sqlite_master").fetchall()
    schema.migrate(conn)
    assert conn.execute("SELECT sql FROM sqlite_master").fetchall() == before
    assert messages.get(conn, row.id) == row


def test_a_migration_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_STEPS", (("CREATE TABLE a (x)", "no sql"),))
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as conn:
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(conn)
        assert not conn.in_transaction
        assert conn.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_an_old_ledger_gets_only_the_steps_it_lacks(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = accepted(conn)
    monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, ("CREATE TABLE later (x)",)))
    newer = schema.SCHEMA_VERSION + 1
    monkeypatch.setattr(schema, "SCHEMA_VERSION", newer)
    schema.migrate(conn)
    assert conn.execute("PRAGMA user_version").fetchone() == (newer,)
    assert conn.execute("SELECT count(*) FROM later").fetchone() == (0,)
    assert messages.get(conn, row.id) == row


@pytest.mark.parametrize(
    ("pragma", "code"),
    [("user_version = 99", "newer_ledger"), ("application_id = 7", "foreign_ledger")],
)
def test_what_is_not_ours_is_refused(conn: sqlite3.Connection, pragma: str, code: str) -> None:
    conn.execute(f"PRAGMA {pragma}")
    with pytest.raises(StorageError) as caught:
        schema.migrate(conn)
    assert caught.value.code == code
    assert caught.value.hint
    assert not conn.in_transaction


def test_the_tables_know_exactly_the_states_of_the_core(conn: sqlite3.Connection) -> None:
    row = accepted(conn)
    for state in MessageState:
        conn.execute("UPDATE messages SET state = ? WHERE id = ?", (state, row.id))
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("UPDATE messages SET state = 'lost' WHERE id = ?", (row.id,))


def test_the_conditions_of_the_indexes_are_the_sets_of_the_core() -> None:
    def named(condition: str) -> set[str]:
        return set(re.findall(r"'(\w+)'", condition))

    assert named(schema.UNDELIVERED_SQL) == UNDELIVERED
    # What `see` may prove and what has been handed over.
    out = {s for s, e in TRANSITIONS if e is Event.RETURN} - {MessageState.SEEN}
    assert named(schema.OUTSTANDING_SQL) == out


@pytest.mark.parametrize(
    ("index", "question"),
    [
        ("messages_lane", lambda c: messages.pending(c, "u", "r")),
        ("queues USING PRIMARY KEY", lambda c: messages.depth(c, "u", "r")),
        ("messages_reason", lambda c: messages.hold_pending(c, "u", "r", "busy", NOW)),
        ("queues USING PRIMARY KEY", lambda c: messages.depths(c, "u")),
        ("messages_pair", lambda c: messages.fixed_runtime(c, "s", "u")),
        ("messages_ttl", lambda c: messages.expire_due(c, NOW)),
        ("messages_session", lambda c: messages.outstanding(c, "s")),
        ("messages_out", lambda c: messages.unresolved(c, "u", "r")),
    ],
)
def test_the_frequent_questions_use_their_index(
    conn: sqlite3.Connection, index: str, question: object
) -> None:
    asked: list[str] = []
    conn.set_trace_callback(asked.append)
    assert callable(question)
    question(conn)
    conn.set_trace_callback(None)
    for statement in asked:
        plan = " ".join(str(row[3]) for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert index in plan, statement
        assert "TEMP B-TREE" not in plan or "ttl" in index, plan


def test_a_ledger_of_the_first_version_keeps_its_sessions(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as conn:
        for statement in schema._VERSION_1:
            conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        conn.execute("PRAGMA user_version = 1")
        conn.execute(
            "INSERT INTO sessions (id, uid, runtime, personality, token_sha256, cwd, socket, mode,"
            " started_at, native_id)"
            " VALUES ('s', 'u', 'demo', 'ann', 't', '/', '/k', 'fresh', 1, 'n')"
        )
        schema.migrate(conn)
        row = sessions.get_session(conn, "s")
    assert row is not None
    assert (row.native_id, row.endpoint, row.heard, row.boot_id) == ("n", "", False, "")


def _shape(conn: sqlite3.Connection) -> set[tuple[str, ...]]:
    return set(conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def _of_version(path: Path, version: int) -> None:
    """Make a ledger as that version of the schema left it."""
    path.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        for step in schema._STEPS[:version]:
            for statement in step:
                conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {version}")
    path.chmod(0o600)


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION))
def test_every_older_ledger_becomes_what_a_new_one_is(
    conn: sqlite3.Connection, tmp_path: Path, version: int
) -> None:
    path = tmp_path / "old" / "ledger.db"
    _of_version(path, version)
    ensure_ledger(path, 5.0)
    with offline_read(path) as old:
        assert _shape(old) == _shape(conn)
        assert old.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)


def test_a_reader_understands_a_ledger_of_the_fourth_version_and_a_purge_comes_after_its_upgrade(
    tmp_path: Path,
) -> None:
    path = tmp_path / "old" / "ledger.db"
    _of_version(path, 4)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        row = brought_to(conn, MessageState.SEEN, "s")
    with offline_read(path) as conn:
        assert [s.event for s in postmortems.steps_of(conn, "s")] == ["hand_over", "see"]
        assert postmortems.last_turn(conn, "s") is None
        assert postmortems.recent_bodies(conn, row.to_uid) == [row.body]
        assert postmortems.newest(conn, row.to_uid) == []
        assert conn.execute("PRAGMA user_version").fetchone() == (4,)
    with offline(path) as conn:
        assert messages.get(conn, row.id) == row
        assert upkeep.purge(conn, NOW + 11, 10, 99).bodies == 1


def test_an_older_ledger_knows_how_much_waits_after_its_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "old" / "ledger.db"
    _of_version(path, 4)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        rows = [brought_to(conn, state) for state in MessageState for _ in range(2)]
    waiting = [row for row in rows if row.state in UNDELIVERED]
    with offline(path) as conn:
        for row in waiting:
            assert messages.depth(conn, row.to_uid, row.runtime) == len(waiting)
            assert messages.depths(conn, row.to_uid) == {row.runtime: len(waiting)}
        conn.execute("DELETE FROM messages")
        assert sum(messages.depths(conn, rows[0].to_uid).values()) == 0


def test_an_accept_and_a_hold_before_it_cost_the_index_of_sessions_nothing(
    conn: sqlite3.Connection,
) -> None:
    def indexed() -> int:
        # With the very condition of the index SQLite takes all of it, and nothing else.
        found = conn.execute(
            "SELECT count(*) FROM history INDEXED BY history_session WHERE session_id <> ''"
        ).fetchone()
        return int(found[0])

    row = brought_to(conn, MessageState.HELD)
    assert indexed() == 0
    messages.begin_attempt(conn, row.id, "s", "paste", NOW)
    assert indexed() == 1
