"""The inbox door: a program reads its messages from a stream and acknowledges each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from iapeer.core.errors import SendRefused
from iapeer.routing.lanes.letters import Verb
from iapeer.routing.ports import InboxMessage
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


def _open() -> AbstractAsyncContextManager[House]:
    """A sender waits only shortly: most of these readers acknowledge later, or never."""
    return open_house(wait_live_s=0.3, wait_waking_s=0.3)


class Reader:
    """One open stream of `svc`, read by a task."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.caller = house.caller("api-svc")
        self.stream: AsyncIterator[InboxMessage] = house.inboxes.open(self.caller)
        self.got: list[InboxMessage] = []
        self.ended = False
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.stream:
            self.got.append(message)
        self.ended = True

    async def has(self, count: int) -> list[InboxMessage]:
        await until(lambda: len(self.got) >= count, f"{count} messages")
        return self.got

    async def ack(self, message: InboxMessage) -> bool:
        return await self._house.inboxes.ack(self.caller, message.id)

    async def drop(self) -> None:
        """The connection breaks."""
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.stream.aclose()  # type: ignore[attr-defined]


def _svc(house: House) -> None:
    house.create("svc", runtime="api")


async def test_an_ack_makes_a_message_seen() -> None:
    async with _open() as house:
        _svc(house)
        reader = Reader(house)
        call = asyncio.create_task(house.send("svc", "hello", topic="t", attachments=("/a b",)))
        (message,) = await reader.has(1)
        assert (message.sender, message.body, message.topic) == ("api-op", "hello", "t")
        assert (message.attachments, message.dup) == (("/a b",), "")
        assert await reader.ack(message)
        sent = await call
        assert sent.state == "seen"
        (step,) = [h for h in await house.history(message.id) if h.state == "seen"]
        assert (step.evidence, step.door) == ("ack", "inbox")
        # A second ack, one for nothing, and one for another's message acknowledge nothing.
        assert not await reader.ack(message)
        assert not await house.inboxes.ack(reader.caller, "aaaaaaaaaaaa")
        assert not await house.inboxes.ack(house.caller("api-op"), message.id)
        await reader.drop()


async def test_a_stream_that_breaks_before_the_ack_gets_the_message_again_marked() -> None:
    async with _open() as house:
        _svc(house)
        first = Reader(house)
        sent = await house.send("svc", "hello")
        assert not sent.delivered
        (message,) = await first.has(1)
        await first.drop()
        await house.wait(message.id, "offline")
        second = Reader(house)
        (again,) = await second.has(1)
        assert (again.id, again.body, again.dup) == (message.id, "hello", "maybe")
        # The ack of the first showing came late: it is the second stream's word now.
        assert await second.ack(again)
        await house.wait(again.id, "seen")
        await second.drop()


async def test_a_second_stream_replaces_the_first() -> None:
    async with _open() as house:
        _svc(house)
        first = Reader(house)
        await until(lambda: house.lane("svc", "api").phase == "live")
        second = Reader(house)
        await until(lambda: first.ended)
        call = asyncio.create_task(house.send("svc", "to the second"))
        (message,) = await second.has(1)
        assert await second.ack(message)
        assert (await call).delivered
        assert first.got == []
        assert len(await house.live_rows()) == 1
        await second.drop()
        await until(lambda: house.lane("svc", "api").phase == "asleep")
        await until(lambda: _rows(house, 0))


async def test_what_was_shown_to_the_first_stream_only_comes_again_on_the_second() -> None:
    async with _open() as house:
        _svc(house)
        first = Reader(house)
        sent = [await house.send("svc", f"n{n}") for n in range(3)]
        await first.has(1)
        second = Reader(house)
        got: list[InboxMessage] = []
        for n in range(3):
            message = (await second.has(n + 1))[n]
            assert await second.ack(message)
            got.append(message)
        assert [m.id for m in got] == [s.message_id for s in sent]
        assert [m.dup for m in got] == ["maybe", "", ""]
        await second.drop()


async def test_a_sender_does_not_wait_for_an_ack_as_long_as_for_a_boot() -> None:
    async with open_house(wait_live_s=0.3, wait_waking_s=20.0) as house:
        _svc(house)
        reader = Reader(house)
        # Its stream opens while the sender waits already: there is nothing to boot.
        sent = await asyncio.wait_for(house.send("svc", "hello"), 5)
        assert sent.reason in ("", "offline")
        assert not sent.delivered
        await reader.has(1)
        await reader.drop()


async def test_the_window_is_one_and_the_order_is_the_senders() -> None:
    async with _open() as house:
        _svc(house)
        reader = Reader(house)
        await until(lambda: house.lane("svc", "api").phase == "live")
        sent = [await house.send("svc", f"n{n}") for n in range(10)]
        assert [s.reason for s in sent[1:]] == ["busy"] * 9
        for n in range(10):
            await reader.has(n + 1)
            await asyncio.sleep(0.01)
            assert len(reader.got) == n + 1, "more than one message without an ack"
            assert await reader.ack(reader.got[n])
        assert [m.body for m in reader.got] == [f"n{n}" for n in range(10)]
        for one in sent:
            await house.wait(one.message_id, "seen")
        await reader.drop()


async def test_only_a_service_has_an_inbox() -> None:
    async with open_house("ann") as house:
        with pytest.raises(SendRefused) as refused:
            await anext(house.inboxes.open(house.caller("demo-ann")))
        assert refused.value.code == "no_inbox"


async def test_stop_ends_the_stream_and_a_new_one_gets_nothing_until_start() -> None:
    async with _open() as house:
        _svc(house)
        first = Reader(house)
        sent = await house.send("svc", "hello")
        await first.has(1)
        await house.fleet.stop("svc", None)
        await until(lambda: first.ended)
        assert (await house.row(sent.message_id)).reason == "stopped"
        refused = Reader(house)
        await until(lambda: refused.ended)
        assert refused.got == []
        await house.fleet.start("svc", None)
        third = Reader(house)
        (message,) = await third.has(1)
        assert message.dup == "maybe"
        assert await third.ack(message)
        await third.drop()


async def test_a_restart_gives_a_message_without_ack_again_marked() -> None:
    async with _open() as house:
        _svc(house)
        first = Reader(house)
        sent = [await house.send("svc", f"n{n}") for n in range(2)]
        await first.has(1)
        await house.close()
        await first.drop()
        await house.start()
        second = Reader(house)
        got = []
        for n in range(2):
            got.append((await second.has(n + 1))[n])
            assert await second.ack(got[n])
        assert [(m.id, m.dup) for m in got] == [
            (sent[0].message_id, "maybe"),
            (sent[1].message_id, ""),
        ]
        await until(lambda: _rows(house, 1))
        await second.drop()


async def _rows(house: House, count: int) -> bool:
    return len(await house.live_rows()) == count


async def test_streams_that_come_and_go_lose_nothing_and_keep_the_order() -> None:
    async with _open() as house:
        _svc(house)
        sent = [await house.send("svc", f"n{n}") for n in range(12)]
        seen: list[str] = []
        acked: list[str] = []
        while len(acked) < len(sent):
            reader = Reader(house)
            (message, *_rest) = await reader.has(1)
            seen.append(message.id)
            if len(seen) % 3:
                assert await reader.ack(message)
                acked.append(message.id)
                await house.wait(message.id, "seen")
            await reader.drop()
        assert acked == [s.message_id for s in sent]
        await until(lambda: not house.services.by_session)


@pytest.mark.parametrize("how", ["stream closed", "daemon restarted"])
async def test_what_was_acknowledged_does_not_come_again(how: str) -> None:
    async with _open() as house:
        _svc(house)
        sent = await house.send("svc", "once")
        reader = Reader(house)
        assert await reader.ack((await reader.has(1))[0])
        await house.wait(sent.message_id, "seen")
        if how == "stream closed":
            await reader.drop()
        else:
            await house.close()
            await house.start()
        again = Reader(house)
        last = await house.send("svc", "twice")
        assert [m.id for m in await again.has(1)] == [last.message_id]
        assert (await house.row(sent.message_id)).state == "seen"
        await again.drop()


async def test_what_comes_for_an_absent_program_is_held_as_it_is_stored() -> None:
    async with _open() as house:
        _svc(house)
        first = await house.send("svc", "the first asks the lane")
        await until(lambda: house.lane("svc", "api").settled is not None)
        before = house.services.ledger.stats.commits
        second = await house.send("svc", "the second need not")
        assert house.services.ledger.stats.commits == before + 1
        for sent, depth in ((first, 1), (second, 2)):
            assert (sent.state, sent.reason, sent.queue_depth) == ("held", "offline", depth)
            steps = [step.event for step in await house.history(sent.message_id)]
            assert steps == ["accept", "hold"]
        reader = Reader(house)
        (shown,) = await reader.has(1)
        assert await reader.ack(shown)
        assert [message.body for message in await reader.has(2)] == [
            "the first asks the lane",
            "the second need not",
        ]
        await reader.drop()


async def test_a_program_that_comes_while_a_message_is_stored_gets_it() -> None:
    async with _open() as house:
        _svc(house)
        await house.send("svc", "one")
        lane = house.lane("svc", "api")
        await until(lambda: lane.settled is not None)
        go = threading.Event()
        blocked = asyncio.create_task(house.services.ledger.write(lambda _conn: go.wait(10)))
        await asyncio.sleep(0)
        call = asyncio.create_task(house.send("svc", "two"))
        await asyncio.sleep(0)
        reader = Reader(house)
        await until(lambda: lane.settled is None)
        go.set()
        assert await blocked
        await call
        for count in (1, 2):
            shown = (await reader.has(count))[-1]
            assert await reader.ack(shown)
        assert [message.body for message in reader.got] == ["one", "two"]
        await reader.drop()


async def test_a_lane_with_an_order_or_work_before_it_is_not_settled() -> None:
    async with _open() as house:
        _svc(house)
        await house.send("svc", "one")
        lane = house.lane("svc", "api")
        await until(lambda: lane.settled is not None)
        before = lane.settled
        lane.work()
        assert lane.settled is None
        await until(lambda: lane.settled is not None)
        assert lane.settled != before
        stopped = lane.order(Verb.STOP)
        assert lane.settled is None
        await stopped
