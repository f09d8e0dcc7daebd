"""What grows with the house: 10 against 1,000 peers, 1e3 against 1e6 messages in the ledger."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from benchmarks.figures import Budget, Figure, Row, Size, by_turns, spread
from benchmarks.house import BODY, BOX, OPERATOR, prepare, send_request
from benchmarks.wire import Connection, encode
from iapeer.registry.index import Registry
from iapeer.storage.ledger.dbfile import connect
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.upkeep import purge
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon

FEW_PEERS, MANY_PEERS = 10, 1000
FEW, MANY = 1_000, 1_000_000
WAITING = 4_000
"""Below the default `queue_limit`, 5,000."""
KEEP_S = 30 * 86400.0, 180 * 86400.0
"""Retention of bodies and of all else, as by default."""
_BATCH = 10_000
_COLUMNS = (
    "id, sender, sender_uid, to_uid, personality, runtime, pinned, state, reason, final,"
    " accepted_at, changed_at, accepted_ts, expires_at, path, intelligence, depth, attachments,"
    " body"
)


def growth(size: Size) -> list[Figure]:
    """A small and a large house side by side, asked by turns."""
    many = MANY if size.factor >= 1 else 20_000
    times = size.times(200)
    with _house(FEW_PEERS, FEW) as small, _house(MANY_PEERS, many) as large:
        accepts = by_turns(_accept(small), _accept(large), times)
        lookups = by_turns(_lookup(small, FEW), _lookup(large, many), times)
        with _ledger(small) as short, _ledger(large) as long:
            purges = by_turns(_purge(short), _purge(long), times)
    with _house(FEW_PEERS, FEW) as small, _house(FEW_PEERS, WAITING, "held") as full:
        waiting = by_turns(_accept(small), _accept(full), times)
    peers = f"{FEW_PEERS} -> {MANY_PEERS:,} peers, {FEW:,} -> {many:,} messages"
    return [
        Figure(
            row="growth",
            what=what,
            limit_what="the same in the small house",
            unit="ms",
            limit=spread(sides[0], 1000),
            ours=spread(sides[1], 1000),
            budget=Budget(ratio=2),
        )
        for what, sides in (
            (f"accept: {peers}", accepts),
            (f"lookup: {peers}", lookups),
            (f"accept: 0 -> {WAITING:,} messages waiting for the recipient", waiting),
            (f"purge with nothing due: {FEW:,} -> {many:,} messages", purges),
        )
    ]


@contextmanager
def _house(peers: int, messages: int, state: str = "seen") -> Iterator[TestDaemon]:
    daemon = prepare(peers)
    try:
        fill(daemon, messages, state)
        daemon.start()
        yield daemon
    finally:
        daemon.clean_up()


def fill(daemon: TestDaemon, count: int, in_state: str = "seen") -> None:
    """Put so many messages for the box into the ledger, `seen` or `held`, in one transaction."""
    paths = Paths(daemon.root)
    records = Registry(paths, sandbox=True).snapshot().by_name
    to, sender = records[BOX], records[OPERATOR]
    now = time.time()

    def row(number: int) -> tuple[object, ...]:
        stamp = now - 3600 + number / count
        names = (_id(number), f"api-{OPERATOR}", sender.uid, to.uid, BOX, "api")
        state = (
            0,
            in_state,
            "offline",
            in_state == "seen",
            stamp,
            stamp,
            "2026-01-01T00:00:00+00:00",
            now + 86400,
        )
        return (*names, *state, "unix", "absent", 0, "[]", BODY[:200])

    marks = ", ".join("?" * (_COLUMNS.count(",") + 1))
    with offline(paths.ledger) as conn:
        for begin in range(0, count, _BATCH):
            numbers = range(begin, min(count, begin + _BATCH))
            conn.executemany(
                f"INSERT INTO messages ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants
                map(row, numbers),
            )


def _id(number: int) -> str:
    """Return a message id made of a number: twelve characters of a-z, 2-7."""
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(digits[number >> shift & 31] for shift in range(55, -1, -5))


def _accept(daemon: TestDaemon) -> Callable[[], float]:
    connection = Connection(daemon.socket)
    numbers = iter(range(1 << 30))
    return lambda: connection.time(send_request(number=next(numbers)))


def _lookup(daemon: TestDaemon, count: int) -> Callable[[], float]:
    connection = Connection(daemon.socket)
    found = json.loads(connection.ask(encode("/api/v1/messages/" + _id(0))))
    if found["message"]["state"] != "seen":
        raise RuntimeError(f"not the message that was put there: {found}")
    numbers = iter(range(1 << 30))

    def look() -> float:
        # A large prime: neighbours are never asked one after the other.
        number = next(numbers) * 7_919_993 % count
        return connection.time(encode("/api/v1/messages/" + _id(number)))

    return look


@contextmanager
def _ledger(daemon: TestDaemon) -> Iterator[sqlite3.Connection]:
    with closing(connect(Paths(daemon.root).ledger, 5.0)) as conn:
        yield conn


def _purge(conn: sqlite3.Connection) -> Callable[[], float]:
    """Return what each audit does when nothing is old enough, in a transaction of its own."""

    def look() -> float:
        began = time.perf_counter()
        conn.execute("BEGIN IMMEDIATE")
        done = purge(conn, time.time(), *KEEP_S)
        conn.execute("COMMIT")
        took = time.perf_counter() - began
        if done.bodies or done.messages:
            raise RuntimeError(f"something was due: {done}")
        return took

    return look


ROWS = (Row("growth", growth),)
