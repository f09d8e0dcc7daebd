from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from iapeer.core import env
from iapeer.core.errors import LockBusy, StorageError
from iapeer.core.states import Event, MessageState
from iapeer.storage.ledger import dbfile, messages, schema, store
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.store import Ledger
from tests.integration.storage import writers
from tests.integration.storage.writers import a_message

SOURCE = Path(store.__file__).parents[3]
NOBODY = 65534


@contextlib.contextmanager
def child(*args: object, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run a job of `writers` and end it, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, writers.__file__, *map(str, args)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out.splitlines()


def digest(folder: Path) -> dict[str, str]:
    """What every file of a folder holds; `-shm` is SQLite's shared memory and holds no data."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if not path.name.endswith("-shm")
    }


def ids_in(path: Path) -> list[str]:
    with offline_read(path) as conn:
        return [row.id for row in reversed(messages.search(conn, limit=1_000_000))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder another account can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_two_processes_and_the_daemon_write_at_once_and_nothing_is_lost(path: Path) -> None:
    ledger = Ledger.open(path, busy_timeout_s=30.0)

    async def daemon() -> list[str]:
        done = []
        for number in range(100):
            new = a_message(f"daemon{number}", "daemon@claude")
            row = await ledger.write(partial(messages.accept, new=new, now=1.0))
            done.append(row.id)
        return done

    with child("offline_writes", path, 60, "x") as x, child("offline_writes", path, 60, "y") as y:
        mine = asyncio.run(daemon())
        theirs = {"x": lines_of(x), "y": lines_of(y)}
    ledger.close()
    with offline_read(path) as conn:
        rows = messages.pending(conn, "uid-ann", "claude", limit=1000)
    assert len(rows) == 220
    assert [row.id for row in rows if row.sender == "daemon@claude"] == mine
    for sender, ids in theirs.items():
        assert [row.id for row in rows if row.sender == sender] == ids


def test_two_processes_may_create_the_ledger_at_once(path: Path) -> None:
    with child("offline_writes", path, 3, "x") as x, child("offline_writes", path, 3, "y") as y:
        wrote = lines_of(x) + lines_of(y)
    assert sorted(ids_in(path)) == sorted(wrote)
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")] == []


@pytest.mark.requirement("storage:ledger")
@pytest.mark.parametrize("acknowledged", [1, 50, 400])
def test_what_was_acknowledged_survives_kill_9(path: Path, acknowledged: int) -> None:
    with child("accept_for_ever", path, 8) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    # The last line may be cut by the kill.
    seen += [line for line in rest.splitlines(keepends=False) if len(line) == len(seen[0])]
    assert set(seen) <= set(ids_in(path))


@pytest.mark.parametrize(("point", "stored"), [("ledger.commit", 0), ("ledger.acknowledge", 1)])
def test_a_group_is_there_completely_or_not_at_all(path: Path, point: str, stored: int) -> None:
    Ledger.open(path).close()
    with child("accept_for_ever", path, 1, **{env.FAULT: point}) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert out == ""
    assert len(ids_in(path)) == stored


def test_a_daemon_notices_what_another_process_wrote(path: Path) -> None:
    ledger = Ledger.open(path)

    async def own_write() -> None:
        await ledger.write(lambda conn: messages.accept(conn, a_message("own"), 1.0))

    before = ledger.data_version()
    asyncio.run(own_write())
    assert ledger.data_version() == before
    with child("offline_writes", path, 1, "x") as process:
        (wrote,) = lines_of(process)
    after = ledger.data_version()
    assert after != before
    found = asyncio.run(ledger.read(lambda conn: messages.get(conn, wrote)))
    assert found is not None
    assert ledger.data_version() == after
    ledger.close()


def test_a_lock_held_by_another_process_fails_the_group_and_nothing_else(path: Path) -> None:
    ledger = Ledger.open(path, busy_timeout_s=0.2)

    async def attempt(name: str) -> str:
        row = await ledger.write(lambda conn: messages.accept(conn, a_message(name), 1.0))
        return row.id

    async def both() -> list[str | BaseException]:
        return [*await asyncio.gather(attempt("one"), attempt("two"), return_exceptions=True)]

    with child("hold_lock", path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        results = asyncio.run(both())
        assert [type(result) for result in results] == [LockBusy, LockBusy]
        assert results[0] is not results[1]
        assert asyncio.run(ledger.read(messages.search)) == []
        with pytest.raises(LockBusy), offline(path, 0.1):
            pass
        with pytest.raises(LockBusy):
            Ledger.open(path, busy_timeout_s=0.1)
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(30) == 0
    assert asyncio.run(attempt("three")) == "three"
    ledger.close()
    assert ids_in(path) == ["three"]


def test_a_full_disk_claims_nothing_and_heals_by_itself(path: Path) -> None:
    with child("fill_disk", path) as process:
        lines = lines_of(process)
    assert lines == [
        "before ok",
        "during disk_io 1",
        "fast disk_io",
        "read 1",
        "after ok True None",
    ]
    assert ids_in(path) == ["before", "after"]


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE theirs (x)")


def no_database(path: Path) -> None:
    path.write_text("dear diary\n" * 500, encoding="utf-8")


def short_text(path: Path) -> None:
    path.write_text("dear diary", encoding="utf-8")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:64] = bytes(64)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (newer, "newer_ledger"),
        (foreign, "foreign_ledger"),
        (no_database, "damaged"),
        (short_text, "damaged"),
        (emptied, "damaged"),
        (cut_header, "damaged"),
    ],
)
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_that_can_not_be_ours_is_refused_and_left_as_it_was(
    path: Path, spoil: object, code: str, mode: int
) -> None:
    Ledger.open(path).close()
    assert callable(spoil)
    spoil(path)
    path.chmod(mode)
    before = digest(path.parent)
    with pytest.raises(StorageError) as caught:
        Ledger.open(path)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)
    with pytest.raises(StorageError), offline(path):
        pass
    with pytest.raises(StorageError), offline_read(path):
        pass
    assert digest(path.parent) == before
    assert path.stat().st_mode & 0o777 == mode


def test_a_newer_ledger_whose_log_was_left_by_a_crash_stays_as_it_is(path: Path) -> None:
    with child("accept_for_ever", path, 1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait(30)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('PRAGMA user_version = 99'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=30)
    before = digest(path.parent)
    assert f"{path.name}-wal" in before
    with pytest.raises(StorageError) as caught:
        Ledger.open(path)
    assert caught.value.code == "newer_ledger"
    assert digest(path.parent) == before


def test_damage_inside_is_found_when_it_is_met(path: Path) -> None:
    with offline(path) as conn:
        for number in range(200):
            messages.accept(conn, a_message(f"m{number}", body="x" * 500), 1.0)
    with path.open("r+b") as file:
        # The tables' definitions stand in front; the rows behind are what is hit.
        middle = path.stat().st_size // 2
        file.seek(middle)
        file.write(b"\xff" * middle)
    ledger = Ledger.open(path)
    with pytest.raises(StorageError) as caught:
        asyncio.run(ledger.write(lambda conn: messages.fail_for_uid(conn, "uid-ann", "x", 1.0)))
    assert caught.value.code == "damaged"
    assert not ledger.stats.healthy
    ledger.close()


@pytest.mark.parametrize("how", ["daemon", "offline"])
@pytest.mark.skipif(os.geteuid() != 0, reason="another account is needed")
def test_a_ledger_of_another_account_is_not_opened(open_folder: Path, how: str) -> None:
    path = open_folder / "ledger.db"
    Ledger.open(path).close()
    # As open as can be, so that nothing but our own check refuses.
    path.parent.chmod(0o777)
    path.chmod(0o666)
    before = digest(open_folder)
    with child("open_as", path, NOBODY, how) as process:
        (line,) = lines_of(process)
    assert line.startswith("not_owner")
    assert digest(open_folder) == before
    assert sorted(os.listdir(open_folder)) == ["ledger.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="another account is needed")
def test_root_does_not_open_the_ledger_of_a_user(open_folder: Path) -> None:
    path = open_folder / "state" / "ledger.db"
    Ledger.open(path).close()
    os.chown(path, NOBODY, NOBODY)
    os.chown(path.parent, NOBODY, NOBODY)
    for opening in (lambda: Ledger.open(path), lambda: offline(path).__enter__()):
        with pytest.raises(StorageError) as caught:
            opening()
        assert caught.value.code == "not_owner"
    with pytest.raises(StorageError), offline_read(path):
        pass


@pytest.mark.parametrize("how", ["daemon", "offline"])
@pytest.mark.skipif(os.geteuid() != 0, reason="another account is needed")
def test_a_read_only_ledger_is_refused_and_left_as_it_was(open_folder: Path, how: str) -> None:
    path = open_folder / "ledger.db"
    Ledger.open(path).close()
    os.chown(path, NOBODY, NOBODY)
    os.chown(open_folder, NOBODY, NOBODY)
    path.chmod(0o400)
    before = digest(open_folder)
    with child("open_as", path, NOBODY, how) as process:
        (line,) = lines_of(process)
    assert line.startswith("read_only")
    assert "chmod 600" in line
    assert digest(open_folder) == before
    assert path.stat().st_mode & 0o777 == 0o400


@pytest.mark.requirement("storage:private")
def test_file_and_folder_are_private(path: Path) -> None:
    old = os.umask(0)
    try:
        with offline(path) as conn:
            messages.accept(conn, a_message("m"), 1.0)
            modes = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    Ledger.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_offline_block_that_fails_leaves_nothing(path: Path) -> None:
    def lands_too_early() -> None:
        with offline(path) as conn:
            messages.accept(conn, a_message("m"), 1.0)
            messages.advance(conn, "m", Event.LAND, now=1.0)

    def accepts_twice() -> None:
        with offline(path) as conn:
            messages.accept(conn, a_message("m"), 1.0)
            messages.accept(conn, a_message("m"), 1.0)

    with pytest.raises(ValueError, match="no transition"):
        lands_too_early()
    assert ids_in(path) == []
    with pytest.raises(StorageError) as caught:
        accepts_twice()
    assert caught.value.code == "constraint"
    assert ids_in(path) == []


def test_an_offline_reader_can_not_write_and_makes_nothing(path: Path) -> None:
    with pytest.raises(StorageError) as caught, offline_read(path):
        pass
    assert caught.value.code == "no_ledger"
    assert not path.parent.exists()
    with offline(path) as conn:
        messages.accept(conn, a_message("m"), 1.0)
    with pytest.raises(StorageError) as caught, offline_read(path) as conn:
        messages.advance(conn, "m", Event.FAIL, now=2.0)
    assert caught.value.code == "read_only"
    with offline_read(path) as conn:
        found = messages.get(conn, "m")
    assert found is not None
    assert found.state is MessageState.ACCEPTED


def test_a_path_with_signs_a_uri_would_read_is_only_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#b %41ü" / "ledger.db"
    with offline(path) as conn:
        messages.accept(conn, a_message("m"), 1.0)
    assert path.is_file()
    assert ids_in(path) == ["m"]


@pytest.mark.parametrize("opening", [Ledger.open, offline])
def test_an_older_ledger_is_migrated_on_opening(
    path: Path, opening: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with offline(path) as conn:
        messages.accept(conn, a_message("old"), 1.0)
    monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, ("CREATE TABLE later (x)",)))
    newer = schema.SCHEMA_VERSION + 1
    monkeypatch.setattr(schema, "SCHEMA_VERSION", newer)
    monkeypatch.setattr(dbfile, "SCHEMA_VERSION", newer)
    if opening is offline:
        with offline(path):
            pass
    else:
        Ledger.open(path).close()
    with offline_read(path) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (newer,)
        assert messages.get(conn, "old") is not None
