"""The ledger refuses writes for a while: nothing that happened meanwhile is forgotten."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from iapeer.core.errors import StorageError
from iapeer.routing.lanes.letters import Observed
from iapeer.routing.lanes.presence import Phase
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession
from iapeer.storage.ledger import postmortems
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.store import Ledger
from tests.integration.routing.house import House, open_house, until
from tests.integration.routing.quiet import event, events, key

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


@contextlib.contextmanager
def full_disk(house: House) -> Iterator[list[int]]:
    """Refuse every write of the ledger; yields how many were refused."""
    refused: list[int] = []

    async def refuse(_ledger: Ledger, _fn: Any, **_options: Any) -> Any:
        refused.append(1)
        raise StorageError("the ledger: disk full", code="disk_full")

    with mock.patch.object(type(house.services.ledger), "write", refuse):
        yield refused


async def _queued(house: House) -> tuple[TmuxSession, str]:
    """Return a session that works, and a message in its queue: landed and not seen."""
    session = await house.live("ann")
    working = await house.send("ann", f"HOLD {house.go}")
    await house.wait(working.message_id, "seen")
    waiting = (await house.send("ann", "NOTHING\nsecond")).message_id
    await house.wait(waiting, "landed")
    return session, waiting


async def test_what_a_dead_session_held_goes_round_when_the_disk_is_back() -> None:
    async with open_house("ann") as house:
        session, waiting = await _queued(house)
        with full_disk(house) as refused:
            os.kill(session.pane[0], signal.SIGKILL)
            await until(lambda: len(refused) >= 3, "the lane to find out")
        house.go.touch()
        row = await house.wait(waiting, "seen")
        assert row.dup
        assert [r.id for r in await house.live_rows()] == [house.session("ann").id]


@contextlib.contextmanager
def no_end(times: int = 3) -> Iterator[list[int]]:
    """Refuse to write the end of a session so many times; yields how often that was."""
    refused: list[int] = []
    end_session = rows.end_session

    def refuse(*args: Any) -> Any:
        if len(refused) < times:
            refused.append(1)
            raise StorageError("the ledger: disk full", code="disk_full")
        return end_session(*args)

    with mock.patch.object(rows, "end_session", refuse):
        yield refused


@pytest.mark.requirement("forensics:first-word")
@pytest.mark.parametrize(("victim", "cause"), [("server", "server-gone"), ("pane", "program-exit")])
async def test_a_death_is_told_and_shown_before_the_ledger_has_it(victim: str, cause: str) -> None:
    async with open_house("ann") as house:
        session, waiting = await _queued(house)
        with full_disk(house) as refused:
            pid = getattr(session, victim)[0]
            os.kill(pid, signal.SIGKILL)
            word = await event(house, "death")
            assert (word["cause"], word["pid"], word["session"]) == (cause, str(pid), session.id)
            await until(lambda: len(refused) >= 3, "the lane to try again and again")
            assert house.lanes.phase(key(house, "ann")) == Phase.ASLEEP
            assert [r.id for r in await house.live_rows()] == [session.id]
            assert events(house, "end") == []
        assert (await event(house, "end"))["cause"] == cause
        house.go.touch()
        await house.wait(waiting, "seen")
        assert len(events(house, "death")) == 1


async def test_a_death_keeps_its_verdict_when_the_disk_refuses_its_end() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        with no_end() as refused:
            os.kill(session.pane[0], signal.SIGKILL)
            await event(house, "supervise", action="reaped-gone", death="session-gone")
            assert len(refused) == 3
        found = await house.services.ledger.read(postmortems.newest)
        assert [(row.what, row.cause, row.signal) for row in found] == [("program", "signal", 9)]
        assert len(events(house, "death")) == 1


@pytest.mark.requirement("forensics:recorder:silent")
async def test_an_ordered_end_that_the_disk_refuses_is_no_death_when_it_is_back() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        with no_end() as refused:
            with contextlib.suppress(StorageError):
                await house.fleet.stop("ann", None)
            await event(house, "end", cause="stopped")
            assert len(refused) == 3
        assert await house.services.ledger.read(postmortems.newest) == []
        assert events(house, "death") == []
        assert not house.paths.exits_log.exists()


async def test_evidence_that_the_disk_refuses_is_taken_later() -> None:
    async with open_house("ann") as house:
        session, sent = await _queued(house)
        with full_disk(house) as refused:
            # A hook of something else comes first.
            hook = Fact("user", ("aaaaaaaaaaaa",), source="prompt hook")
            record = Fact("user", (sent,), source="record")
            house.lane("ann").observe(Observed(session.id, (hook,)))
            house.lane("ann").observe(Observed(session.id, (record,), 0))
            await until(lambda: len(refused) >= 2, "the evidence to be refused")
        row = await house.wait(sent, "seen")
        assert not row.dup
        assert (await house.history(sent))[-1].evidence == "record"


async def test_a_boot_that_fails_with_the_disk_leaves_no_second_session() -> None:
    async with open_house("ann") as house:
        mark_ready = rows.mark_ready

        def fail_once(*args: Any) -> Any:
            disk.enter_context(full_disk(house))
            raise StorageError("the ledger: disk full", code="disk_full")

        with contextlib.ExitStack() as disk:
            with mock.patch.object(rows, "mark_ready", fail_once):
                sent = await house.send("ann", "NOTHING")
                await until(lambda: not house.leftovers(), "the boot to be undone")
            assert rows.mark_ready is mark_ready
        await house.wait(sent.message_id, "seen")
        assert [r.id for r in await house.live_rows()] == [house.session("ann").id]


async def test_an_ack_that_the_disk_refuses_is_taken_later() -> None:
    async with open_house() as house:
        stream = house.inboxes.open(house.caller("api-op"))
        house.create("bob", runtime="api")
        sent = (await house.send("op", "first", sender="api-bob")).message_id
        message = await anext(stream)
        assert message.id == sent
        with full_disk(house) as refused:
            assert await house.inboxes.ack(house.caller("api-op"), sent)
            await until(lambda: len(refused) >= 2, "the ack to be refused")
        await house.wait(sent, "seen")
