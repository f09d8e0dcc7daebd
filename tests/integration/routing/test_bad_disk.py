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
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.store import Ledger
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


@contextlib.contextmanager
def full_disk(house: House) -> Iterator[list[int]]:
    """Refuse every write of the ledger; yields how many were refused."""
    refused: list[int] = []

    async def refuse(_ledger: Ledger, _fn: Any) -> Any:
        refused.append(1)
        raise StorageError("the ledger: disk full", code="disk_full")

    with mock.patch.object(type(house.services.ledger), "write", refuse):
        yield refused


async def _queued(house: House) -> tuple[TmuxSession, str]:
    """Return a session that works, and a message in its queue: landed and not seen."""
    session = await house.live("ann")
    working = await house.send("ann", "SLOW 3\nNOTHING")
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
        row = await house.wait(waiting, "seen")
        assert row.dup
        assert [r.id for r in await house.live_rows()] == [house.session("ann").id]


async def test_evidence_that_the_disk_refuses_is_taken_later() -> None:
    async with open_house("ann") as house:
        session, sent = await _queued(house)
        with full_disk(house) as refused:
            # A hook of something else comes first, and has the record's facts read before it.
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
