"""The limit of durable accepts: SQLite in WAL mode, synchronous FULL, one writer, group commit.

One table, one insert a record, nothing looked up: what a store of messages costs at the very least.
Beside it our own ledger by itself: what the daemon around it costs is the rest.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from iapeer.core.ids import new_message_id
from iapeer.core.states import HoldReason
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.rows import MessageRow, NewMessage
from iapeer.storage.ledger.store import Ledger

GROUP_LIMIT = 256


class BareStore:
    """Records of bytes; `insert` returns when the record is on the disk."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._queue: deque[tuple[bytes, asyncio.Future[None]] | None] = deque()
        self._filled = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def insert(self, body: bytes) -> None:
        """Store one record durably."""
        done = self._loop.create_future()
        self._queue.append((body, done))
        self._filled.release()
        await done

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.append(None)
        self._filled.release()
        self._thread.join()

    def _run(self) -> None:
        conn = sqlite3.connect(self._path, isolation_level=None)
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("CREATE TABLE records (n INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        ended = False
        while not ended:
            self._filled.acquire()
            group = [self._queue.popleft()]
            while len(group) < GROUP_LIMIT and self._filled.acquire(blocking=False):
                group.append(self._queue.popleft())
            ended = None in group
            jobs = [job for job in group if job is not None]
            conn.execute("BEGIN")
            conn.executemany("INSERT INTO records (body) VALUES (?)", [(job[0],) for job in jobs])
            conn.execute("COMMIT")
            self._loop.call_soon_threadsafe(_tell, [job[1] for job in jobs])
        conn.close()


def _tell(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class OneProducer:
    """A bare store that a program without a loop inserts into, one record at a time."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._store = BareStore(path, self._loop)

    def insert(self, body: bytes) -> float:
        """Insert one record; return the seconds it took."""
        began = time.perf_counter()
        self._loop.run_until_complete(self._store.insert(body))
        return time.perf_counter() - began

    def close(self) -> None:
        """End the store."""
        self._store.close()
        # The writer's last word may still be queued in the loop.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


def ledger_accepts_per_s(path: Path, producers: int, each: int, body: str) -> float:
    """Return the same of our own ledger, without a daemon around it: nobody asks, nothing checks.

    A message, its two steps and the depth of its queue are stored, as for one that is held.
    """

    async def run() -> float:
        ledger = Ledger.open(path)
        now = time.time()

        async def produce(number: int) -> None:
            for _ in range(each):
                await ledger.write(_storing(_message(number, body, now)), refuses_first=True)

        began = time.perf_counter()
        await asyncio.gather(*(produce(number) for number in range(producers)))
        taken = time.perf_counter() - began
        ledger.close()
        return producers * each / taken

    return asyncio.run(run())


def _storing(new: NewMessage) -> Callable[[sqlite3.Connection], MessageRow]:
    return lambda conn: messages.accept(conn, new, new.expires_at - 3600, HoldReason.OFFLINE)


def _message(number: int, body: str, now: float) -> NewMessage:
    return NewMessage(
        id=new_message_id(),
        sender=f"api-p{number}",
        sender_uid=f"{number:032}",
        to_uid="0" * 32,
        personality="box",
        runtime="api",
        body=body,
        accepted_ts="2026-01-01T00:00:00+00:00",
        expires_at=now + 3600,
        path="http",
        intelligence="absent",
        pinned=False,
        topic=None,
        attachments=(),
        depth=0,
        key=None,
    )


def inserts_per_s(path: Path, producers: int, each: int, body: bytes) -> float:
    """Return durable inserts per second of so many producers at once in one loop."""

    async def run() -> float:
        store = BareStore(path, asyncio.get_running_loop())

        async def produce() -> None:
            for _ in range(each):
                await store.insert(body)

        began = time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(producers)))
        taken = time.perf_counter() - began
        store.close()
        return producers * each / taken

    return asyncio.run(run())
