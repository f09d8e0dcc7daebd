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
from iapeer.routing.letters import Observed
from iapeer.sessions.evidence import Fact
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


async def test_what_a_dead_session_held_goes_round_when_the_disk_is_back() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        # Landed and not seen: pasted into a program that is stopped.
        os.kill(session.pane[0], signal.SIGSTOP)
        waiting = (await house.send("ann", "NOTHING\nsecond")).message_id
        assert (await house.row(waiting)).state in ("in_flight", "landed")
        with full_disk(house) as refused:
            os.kill(session.pane[0], signal.SIGKILL)
            await until(lambda: len(refused) >= 3, "the lane to find out")
        row = await house.wait(waiting, "seen")
        assert row.dup
        assert [r.id for r in await house.live_rows()] == [house.session("ann").id]


async def test_evidence_that_the_disk_refuses_is_taken_later() -> None:
    async with open_house("ann", misbehave="no_hook") as house:
        session = await house.live("ann")
        os.kill(session.pane[0], signal.SIGSTOP)
        sent = (await house.send("ann", "NOTHING\nsecond")).message_id
        # From now on the record is read only when a hook says that there is something.
        assert session.follower is not None
        session.follower.stop()
        with full_disk(house) as refused:
            os.kill(session.pane[0], signal.SIGCONT)
            await until(lambda: len(house.prompts("ann")) == 2, "the reader to have it")
            before = len(refused)
            fact = Fact("user", ("aaaaaaaaaaaa",), source="prompt hook")
            house.lane("ann").observe(Observed(session.id, (fact,)))
            await until(lambda: len(refused) > before + 1, "the evidence to be refused")
        row = await house.wait(sent, "seen")
        assert not row.dup


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
