"""Child processes of the ledger tests: `python writers.py <what> <path> ...`."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from iapeer.core.errors import StorageError
from iapeer.core.ids import new_message_id
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.offline import offline
from iapeer.storage.ledger.rows import NewMessage
from iapeer.storage.ledger.store import Ledger


def a_message(message_id: str, sender: str = "bob@claude", body: str = "hello") -> NewMessage:
    return NewMessage(
        id=message_id,
        sender=sender,
        sender_uid="uid-" + sender,
        to_uid="uid-ann",
        personality="ann",
        runtime="claude",
        body=body,
        accepted_ts="2026-09-21T14:13:20+02:00",
        expires_at=2e9,
        path="cli",
        intelligence="natural",
    )


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def accept(ledger: Ledger, message_id: str, body: str = "hello") -> None:
    new = a_message(message_id, body=body)
    await ledger.write(lambda conn: messages.accept(conn, new, 1.0))


def offline_writes(path: Path, count: str, sender: str) -> None:
    """Accept `count` messages, each in its own transaction; print each id once it is durable."""
    for _ in range(int(count)):
        message_id = new_message_id()
        with offline(path, 30.0) as conn:
            messages.accept(conn, a_message(message_id, sender), 1.0)
        say(message_id)


def accept_for_ever(path: Path, producers: str) -> None:
    """Accept from many coroutines until killed; print each id once `write` has returned."""
    ledger = Ledger.open(path)

    async def produce() -> None:
        while True:
            message_id = new_message_id()
            await accept(ledger, message_id)
            say(message_id)

    async def main() -> None:
        await asyncio.gather(*(produce() for _ in range(int(producers))))

    asyncio.run(main())


def hold_lock(path: Path) -> None:
    """Keep a write transaction open until a line comes in; roll it back."""
    with offline(path) as conn:
        conn.execute("UPDATE counters SET value = value + 0")
        say("held")
        sys.stdin.readline()
        conn.execute("ROLLBACK")
        conn.execute("BEGIN")


def fill_disk(path: Path) -> None:
    """Meet the file size limit in a commit, then lift it and go on."""
    ledger = Ledger.open(path)

    async def attempt(message_id: str, body: str = "hello") -> str:
        try:
            await accept(ledger, message_id, body)
        except StorageError as error:
            return error.code
        return "ok"

    async def main() -> None:
        say("before", await attempt("before"))
        soft = Path(f"{path}-wal").stat().st_size + 8192
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        tried = asyncio.gather(*(attempt(f"big{n}", "x" * 200_000) for n in range(4)))
        say("during", *sorted(set(await tried)), ledger.stats.commits)
        say("fast", await attempt("fast", "x" * 200_000))
        say("read", len(await ledger.read(messages.search)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        result = ""
        for _ in range(600):
            result = await attempt("after")
            if result == "ok":
                break
            await asyncio.sleep(0.05)
        say("after", result, ledger.stats.healthy, ledger.unhealthy)

    asyncio.run(main())
    ledger.close()


def open_as(path: Path, uid: str, how: str) -> None:
    """Give up root, then open; print the error's code or ok."""
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    try:
        if how == "daemon":
            Ledger.open(path).close()
        else:
            with offline(path):
                pass
    except StorageError as error:
        say(error.code, error.message, error.hint)
    else:
        say("ok")


JOBS: dict[str, Callable[..., None]] = {
    job.__name__: job for job in (offline_writes, accept_for_ever, hold_lock, fill_disk, open_as)
}

if __name__ == "__main__":
    JOBS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
