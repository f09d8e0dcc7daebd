from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from iapeer.core.errors import StorageError
from iapeer.storage.ledger import dbfile, messages, store
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.rows import MessageRow
from iapeer.storage.ledger.store import Ledger
from tests.integration.storage.writers import a_message

T = TypeVar("T")
BOUND_S = 30.0


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, BOUND_S))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(path)
    yield opened
    opened.close()


async def accept(ledger: Ledger, name: str, sender: str = "bob@claude") -> MessageRow:
    new = a_message(name, sender)
    return await ledger.write(lambda conn: messages.accept(conn, new, 1.0))


async def ids(ledger: Ledger) -> list[str]:
    rows = await ledger.read(lambda conn: messages.search(conn, limit=100_000))
    return [row.id for row in reversed(rows)]


class Gate:
    """A write that stops the writer thread until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, conn: sqlite3.Connection) -> str:
        self.entered.set()
        assert self.opened.wait(BOUND_S)
        return "passed"

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, BOUND_S)


def test_sixteen_producers_lose_nothing_and_keep_the_order_of_each(ledger: Ledger) -> None:
    async def produce(sender: str) -> None:
        for number in range(200):
            await accept(ledger, f"{sender}-{number}", sender)

    async def main() -> list[MessageRow]:
        await asyncio.gather(*(produce(f"s{n}") for n in range(16)))
        return await ledger.read(lambda conn: messages.pending(conn, "uid-ann", "claude", 10_000))

    rows = run(main())
    for n in range(16):
        mine = [row.id for row in rows if row.sender == f"s{n}"]
        assert mine == [f"s{n}-{number}" for number in range(200)]
    assert len(rows) == 3200
    assert ledger.stats.writes == 3200
    assert ledger.stats.commits < 3200 / 2


def test_what_queues_up_behind_a_commit_shares_the_next_one(ledger: Ledger) -> None:
    async def main() -> None:
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        rest = [asyncio.create_task(accept(ledger, f"m{n}")) for n in range(50)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *rest)

    run(main())
    assert (ledger.stats.writes, ledger.stats.commits) == (51, 2)


def test_what_is_written_in_one_round_of_the_loop_shares_a_commit(ledger: Ledger) -> None:
    async def main() -> None:
        await asyncio.gather(*(accept(ledger, f"m{n}") for n in range(50)))

    run(main())
    assert (ledger.stats.writes, ledger.stats.commits) == (50, 1)
    assert run(ids(ledger)) == [f"m{n}" for n in range(50)]


def test_what_was_put_in_the_round_in_which_the_ledger_closes_is_carried_out(path: Path) -> None:
    ledger = Ledger.open(path)

    async def main() -> list[MessageRow]:
        tasks = [asyncio.create_task(accept(ledger, f"m{n}")) for n in range(3)]
        asyncio.get_running_loop().call_soon(ledger.close)
        return await asyncio.gather(*tasks)

    assert [row.id for row in run(main())] == ["m0", "m1", "m2"]


def test_a_group_is_no_larger_than_its_limit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "GROUP_LIMIT", 10)
    run(accept(ledger, "first"))

    async def main() -> None:
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        rest = [asyncio.create_task(accept(ledger, f"m{n}")) for n in range(25)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *rest)

    before = ledger.stats.commits
    run(main())
    assert ledger.stats.commits - before == 1 + 3


def test_an_exception_reaches_its_caller_only_and_undoes_its_own_work(ledger: Ledger) -> None:
    def half(error: BaseException) -> Any:
        def fn(conn: sqlite3.Connection) -> None:
            messages.accept(conn, a_message(f"half-{type(error).__name__}"), 1.0)
            raise error

        return fn

    def twice(conn: sqlite3.Connection) -> None:
        messages.accept(conn, a_message("twice"), 1.0)
        messages.accept(conn, a_message("twice"), 1.0)

    async def main() -> list[Any]:
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        group = asyncio.gather(
            accept(ledger, "a"),
            ledger.write(half(ValueError("mine"))),
            accept(ledger, "b"),
            ledger.write(twice),
            ledger.write(half(StopIteration())),
            ledger.write(half(SystemExit())),
            accept(ledger, "c"),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        return await group

    results = run(main())
    assert [type(r).__name__ for r in results] == [
        "MessageRow",
        "ValueError",
        "MessageRow",
        "StorageError",
        "RuntimeError",
        "RuntimeError",
        "MessageRow",
    ]
    assert results[3].code == "constraint"
    assert run(ids(ledger)) == ["a", "b", "c"]
    assert ledger.stats.healthy
    assert ledger.stats.commits == 2


def _refuse(conn: sqlite3.Connection) -> None:
    raise ValueError("first")


def _break_the_promise(conn: sqlite3.Connection) -> None:
    messages.accept(conn, a_message("half"), 1.0)
    raise ValueError("too late")


def test_a_write_that_refuses_before_it_changes_anything_leaves_its_group_alone(
    ledger: Ledger,
) -> None:
    async def main() -> Any:
        return await asyncio.gather(
            accept(ledger, "a"),
            ledger.write(_refuse, refuses_first=True),
            accept(ledger, "b"),
            return_exceptions=True,
        )

    results = run(main())
    assert [type(r).__name__ for r in results] == ["MessageRow", "ValueError", "MessageRow"]
    assert run(ids(ledger)) == ["a", "b"]
    assert (ledger.stats.commits, ledger.stats.recoveries) == (1, 0)


def test_a_write_that_breaks_that_promise_leaves_nothing_half_done(ledger: Ledger) -> None:
    async def main() -> Any:
        return await asyncio.gather(
            accept(ledger, "a"),
            ledger.write(_break_the_promise, refuses_first=True),
            accept(ledger, "b"),
            return_exceptions=True,
        )

    before, broken, after = run(main())
    assert isinstance(broken, ValueError)
    assert "a write failed when it had begun" in str(before)
    assert isinstance(before, StorageError)
    assert isinstance(after, StorageError)
    assert run(ids(ledger)) == []
    assert run(accept(ledger, "later")).id == "later"


@pytest.mark.parametrize("refuses_first", [False, True])
def test_a_write_that_fails_alone_in_its_group_is_undone(
    ledger: Ledger, *, refuses_first: bool
) -> None:
    with pytest.raises(ValueError, match="too late"):
        run(ledger.write(_break_the_promise, refuses_first=refuses_first))
    assert run(ids(ledger)) == []
    assert (ledger.stats.writes, ledger.stats.commits, ledger.stats.recoveries) == (0, 0, 0)
    assert run(accept(ledger, "later")).id == "later"


def test_a_caller_that_gives_up_does_not_disturb_the_others(ledger: Ledger) -> None:
    async def main() -> list[str]:
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        quitter = asyncio.create_task(accept(ledger, "quitter"))
        other = asyncio.create_task(accept(ledger, "other"))
        await asyncio.sleep(0)
        quitter.cancel()
        first.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        await other
        assert quitter.cancelled()
        return await ids(ledger)

    assert run(main()) == ["quitter", "other"]


def test_a_loop_that_ended_does_not_disturb_the_next(ledger: Ledger) -> None:
    gate = Gate()

    async def leaves() -> None:
        task = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        task.cancel()

    run(leaves())
    gate.opened.set()
    assert run(accept(ledger, "next")).id == "next"


def test_a_full_queue_refuses_with_a_time_to_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "QUEUE_LIMIT", 5)
    ledger = Ledger.open(path)

    async def main() -> list[Any]:
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        group = asyncio.gather(*(accept(ledger, f"m{n}") for n in range(7)), return_exceptions=True)
        await asyncio.sleep(0)
        assert ledger.stats.queued == 5
        gate.opened.set()
        await first
        return await group

    results = run(main())
    refused = results[5:]
    assert [r.id for r in results[:5]] == [f"m{n}" for n in range(5)]
    assert [(r.code, r.retry_after_s) for r in refused] == [("overloaded", 1.0)] * 2
    assert run(accept(ledger, "later")).id == "later"
    ledger.close()


def test_closing_carries_out_what_is_queued_and_refuses_the_rest(path: Path) -> None:
    ledger = Ledger.open(path)

    async def main() -> list[MessageRow]:
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        rest = [asyncio.create_task(accept(ledger, f"m{n}")) for n in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(ledger.close))
        gate.opened.set()
        await asyncio.gather(first, closing)
        return await asyncio.gather(*rest)

    assert [row.id for row in run(main())] == [f"m{n}" for n in range(20)]
    for call in (accept(ledger, "late"), ids(ledger)):
        with pytest.raises(StorageError) as caught:
            run(call)
        assert caught.value.code == "closed"
    ledger.close()
    assert not list(path.parent.glob("*-wal")), "the last close writes the log back"


def test_closing_is_bounded(path: Path) -> None:
    ledger = Ledger.open(path)
    gate = Gate()

    async def main() -> None:
        task = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        with pytest.raises(StorageError, match="did not close"):
            ledger.close(timeout_s=0.1)
        gate.opened.set()
        assert await task == "passed"

    run(main())
    ledger.close()


def test_a_read_sees_every_write_that_returned_and_can_not_write(ledger: Ledger) -> None:
    async def main() -> None:
        for number in range(20):
            await accept(ledger, f"m{number}")
            assert len(await ids(ledger)) == number + 1
        with pytest.raises(StorageError) as caught:
            await ledger.read(lambda conn: messages.accept(conn, a_message("x"), 1.0))
        assert caught.value.code == "read_only"
        with pytest.raises(KeyError):
            await ledger.read(lambda conn: os.environ["NO_SUCH_NAME"])
        assert len(await ids(ledger)) == 20

    run(main())


def test_reads_go_on_while_a_write_is_at_work(ledger: Ledger) -> None:
    async def main() -> list[str]:
        await accept(ledger, "a")
        gate = Gate()
        writing = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        found = await ids(ledger)
        gate.opened.set()
        await writing
        return found

    assert run(main()) == ["a"]


def test_a_full_database_is_reported_as_a_full_disk_and_claims_nothing(ledger: Ledger) -> None:
    """`max_page_count` makes SQLite itself answer SQLITE_FULL; it ends with the connection."""

    def too_much(conn: sqlite3.Connection) -> None:
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(1000):
            messages.accept(conn, a_message(f"big{number}", body="x" * 10_000), 1.0)

    async def main() -> list[Any]:
        await accept(ledger, "before")
        gate = Gate()
        first = asyncio.create_task(ledger.write(gate))
        await gate.reached()
        group = asyncio.gather(
            accept(ledger, "same-group"), ledger.write(too_much), return_exceptions=True
        )
        await asyncio.sleep(0)
        gate.opened.set()
        outcome = await asyncio.gather(first, return_exceptions=True)
        return [*outcome, *await group]

    passed, *lost = run(main())
    assert passed == "passed"
    assert [error.code for error in lost] == ["disk_full", "disk_full"]
    assert "disk full" in str(lost[0])
    assert lost[0] is not lost[1]
    assert ledger.stats.recoveries == 1
    assert run(accept(ledger, "after")).id == "after"
    assert run(ids(ledger)) == ["before", "after"]


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_a_function_that_ends_the_transaction_fails_its_group(ledger: Ledger, ending: str) -> None:
    with pytest.raises(StorageError, match="a transaction was lost"):
        run(ledger.write(lambda conn: conn.execute(ending).fetchall()))
    assert run(accept(ledger, "after")).id == "after"
    assert ledger.stats.healthy


def test_a_ledger_that_was_removed_takes_no_more_until_it_is_back(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RETRY_S", 0.2)
    run(accept(ledger, "before"))
    aside = path.with_name("aside.db")
    path.rename(aside)

    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            run(accept(ledger, "lost"))
        assert caught.value.code == "no_ledger"
        assert caught.value.retry_after_s is not None
    while_gone = ledger.stats
    assert not while_gone.healthy
    assert str(path) in str(ledger.unhealthy)
    assert not path.exists(), "a new ledger would hide the loss"

    aside.rename(path)

    async def until_healthy() -> str:
        while True:
            try:
                return (await accept(ledger, "after")).id
            except StorageError:
                await asyncio.sleep(0.02)

    assert run(until_healthy()) == "after"
    assert ledger.stats.healthy
    assert run(ids(ledger)) == ["before", "after"]


def test_attempts_to_come_back_are_rationed(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RETRY_S", 3600.0)
    tries = []
    honest = dbfile.connect_anew

    def counted(*args: Any) -> sqlite3.Connection:
        tries.append(time.monotonic())
        return honest(*args)

    monkeypatch.setattr(store, "connect_anew", counted)
    path.unlink()
    for number in range(5):
        with pytest.raises(StorageError):
            run(accept(ledger, f"m{number}"))
    assert len(tries) == 1


def test_a_defect_of_the_writer_reaches_the_callers_and_the_next_write_works(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "fault", lambda point: 1 // 0)
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            run(accept(ledger, "in doubt"))
    assert run(accept(ledger, "after")).id == "after"
    assert run(ids(ledger)) == ["after"]


def test_the_last_known_version_is_told_while_the_ledger_is_away(
    ledger: Ledger, path: Path
) -> None:
    with offline(path) as conn:
        messages.accept(conn, a_message("m"), 1.0)
    version = ledger.data_version()
    ledger.close()
    path.rename(path.with_name("aside.db"))
    assert [ledger.data_version(), ledger.data_version()] == [version, version]
    path.with_name("aside.db").rename(path)
    with offline(path) as conn:
        messages.accept(conn, a_message("n"), 1.0)
    assert ledger.data_version() == version + 1
    ledger.close()


@pytest.mark.requirement("storage:ledger")
def test_the_settings_that_make_a_commit_durable_are_on(ledger: Ledger) -> None:
    def pragmas(conn: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync", "foreign_keys")
        return {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    async def main() -> dict[str, object]:
        return await ledger.write(pragmas)

    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "foreign_keys": 1,
    }
    assert run(main()) == expected
