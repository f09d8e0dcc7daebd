"""The regular look at everything: quick, no process, never beside itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from sqlite3 import Connection
from typing import Any

import msgspec
import pytest

from iapeer.core.identity import Identity
from iapeer.core.profile import RegistryRecord
from iapeer.core.states import Event
from iapeer.registry.index import Registry
from iapeer.storage.ledger import messages, upkeep
from iapeer.storage.ledger.rows import NewMessage
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

CAT = 'id = "cat"\n[launch]\nargv = ["cat"]\n[screen]\nready = []\n'
REGISTERED, LIVE = 1000, 50
ROUNDS = 30
MOST_RATIO = 3.0
"""What sleeps costs next to nothing: an audit of 20 times as many lanes is not 20 times as slow."""


def _crowd(house: House) -> None:
    house.runtime("cat", CAT)
    house.create(*(f"live{n}" for n in range(LIVE)), runtime="cat")
    registry = Registry(house.paths, sandbox=True)
    one = registry.snapshot().require("live0")

    def add(records: dict[str, RegistryRecord]) -> None:
        for n in range(REGISTERED - LIVE):
            name = f"asleep{n}"
            records[name] = msgspec.structs.replace(one, personality=name, uid=f"{n:032x}")

    registry.change(add)


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:audit")
async def test_a_thousand_sleeping_peers_cost_an_audit_next_to_nothing_and_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house(before=_crowd, boot_limit=8) as house:
        await asyncio.gather(*(house.fleet.wake(f"live{n}", None) for n in range(LIVE)))
        assert len(house.services.by_session) == LIVE
        assert len(await house.fleet.peers()) == REGISTERED + 1

        def no_process(*args: object, **_more: object) -> None:
            raise AssertionError(f"the audit started a process: {args}")

        monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
        monkeypatch.setattr(subprocess, "Popen", no_process)
        for start in ("fork", "posix_spawn", "posix_spawnp"):
            monkeypatch.setattr(os, start, no_process)
        asked = _count_requests(house, monkeypatch)
        before, told = sorted(house.leftovers()), house.paths.lifecycle_log.read_bytes()
        only_live = await _audits(house)
        # Whoever was ever spoken to has a lane: in the worst case that is everybody.
        for record in house.services.registry.snapshot(allow_stale=True):
            house.lanes.lane(record.uid, Identity(record.default_runtime, record.personality))
        await until(lambda: not house.lanes.lane(*_last(house)).box.work, "the lanes to settle")
        everybody = await _audits(house)
        await asyncio.sleep(0.2)
        assert everybody < MOST_RATIO * only_live, (everybody, only_live)
        assert asked == []
        assert sorted(house.leftovers()) == before
        assert house.paths.lifecycle_log.read_bytes() == told
        assert len(house.services.by_session) == LIVE


async def _audits(house: House) -> float:
    """Return what an audit costs of this process' time, the median of some: others do not count.

    The limit in milliseconds is kept by the benchmarks.
    """
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        await house.lanes.audit()
        took.append(time.process_time() - began)
    return sorted(took)[ROUNDS // 2]


def _last(house: House) -> tuple[str, Identity]:
    record = list(house.services.registry.snapshot(allow_stale=True))[-1]
    return record.uid, Identity(record.default_runtime, record.personality)


def _count_requests(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count what terminals are asked."""
    from iapeer.sessions.tmux.server import TmuxServer

    asked: list[str] = []
    request = TmuxServer._request

    async def counted(self: TmuxServer, commands: Any) -> list[str]:
        asked.append(str(commands))
        return await request(self, commands)

    monkeypatch.setattr(TmuxServer, "_request", counted)
    return asked


async def test_two_audits_never_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house("ann") as house:
        running, most = 0, 0
        expire = house.lanes._expire

        async def slow() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            await expire()
            running -= 1

        monkeypatch.setattr(house.lanes, "_expire", slow)
        await asyncio.gather(*(house.lanes.audit() for _ in range(5)))
        assert most == 1
        await house.lanes.audit()
        assert running == 0


async def test_an_audit_forgets_all_that_is_old_however_many_pieces_it_takes() -> None:
    much = 2 * upkeep.PURGE_ROWS + 1
    async with open_house("ann", body_retention_s=100.0) as house:

        def fill(conn: Connection) -> None:
            for n in range(much):
                new = _message(f"old{n:09}")
                messages.accept(conn, new, house.services.clock.now() - 200)
                messages.advance(conn, new.id, Event.FAIL, now=1.0, reason="of old")

        await house.services.ledger.write(fill)
        await house.lanes.audit()
        left = await house.services.ledger.read(
            lambda c: c.execute("SELECT count(*) FROM messages WHERE purged = 0").fetchone()
        )
        assert left == (0,)


def _message(message_id: str) -> NewMessage:
    return NewMessage(
        id=message_id,
        sender="api-op",
        sender_uid="of nobody",
        to_uid="of nobody else",
        personality="gone",
        runtime="demo",
        body="words",
        accepted_ts="2026-01-01T00:00:00+00:00",
        expires_at=0.0,
        path="http",
        intelligence="absent",
    )
