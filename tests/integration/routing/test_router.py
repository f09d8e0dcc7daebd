"""Accept, refuse, wait: what a sender is told, and what is stored."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from iapeer.core.draft import Draft
from iapeer.core.errors import (
    IapeerError,
    InvalidInput,
    PeerNotFound,
    RuntimeUnknown,
    SendRefused,
)
from iapeer.core.identity import CORE_ADDRESS, Identity
from iapeer.core.states import HoldReason
from iapeer.registry.index import Registry
from iapeer.routing import fleet
from iapeer.routing.lanes.letters import Verb
from iapeer.routing.lanes.pool import Lanes
from iapeer.storage.paths import launch_env_path
from tests.integration.routing.house import WAIT_S, House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

_fleet: Any = fleet

REFUSED: list[tuple[dict[str, Any], type[IapeerError], str]] = [
    ({"attachments": ("/a",) * 21}, InvalidInput, "attachments exceeds 20 item limit"),
    ({"attachments": ("a",)}, InvalidInput, "absolute local paths"),
    ({"attachments": (3,)}, InvalidInput, "absolute local paths"),
    ({"attachments": ("/a\nb",)}, InvalidInput, "must not contain newline"),
    ({"attachments": ("/a\rb",)}, InvalidInput, "must not contain newline"),
    ({"to": ""}, InvalidInput, 'requires non-empty "personality" and "message"'),
    ({"message": ""}, InvalidInput, 'requires non-empty "personality" and "message"'),
    ({"to": "Ann!"}, InvalidInput, "invalid personality"),
    ({"runtime": "de-mo"}, InvalidInput, "invalid runtime"),
    ({"topic": "t" * 201}, InvalidInput, "topic exceeds 200 char limit"),
    ({"message": "m" * 16_001}, InvalidInput, "message exceeds 16000 char limit"),
    # The contract's order: the first fault is the one that is told.
    ({"attachments": ("a",), "to": "", "topic": "t" * 201}, InvalidInput, "absolute local"),
    ({"to": "", "runtime": "!", "message": "m" * 16_001}, InvalidInput, "requires non-empty"),
    ({"to": "nobody"}, PeerNotFound, "not in the iapeer peers index"),
    ({"to": "iapeer"}, SendRefused, "core itself"),
    ({"runtime": "claude"}, RuntimeUnknown, "is not declared"),
]


@pytest.mark.requirement("send:check:order", "send:refuse:self", "send:refuse:nothing-stored")
async def test_every_refusal_stores_nothing() -> None:
    async with open_house("ann") as house:
        for change, kind, words in REFUSED:
            fields = {"to": "ann", "message": "hello", **change}
            with pytest.raises(kind, match=words):
                await house.router.send(house.caller("api-op"), Draft(**fields), path="http")
        with pytest.raises(InvalidInput, match="cannot send to self"):
            await house.send("op", sender="api-op")
        await house.fleet.stop("ann", None)
        with pytest.raises(SendRefused, match="is stopped and not accepting messages"):
            await house.send("ann")
        assert await house.count() == 0
        log = house.paths.delivery_log.read_text(encoding="utf-8")
        assert len(log.splitlines()) >= len(REFUSED) + 2
        assert "hello" not in log


async def test_a_full_queue_refuses_and_stores_nothing() -> None:
    async with open_house(queue_limit=3) as house:
        house.create("svc", runtime="api")
        for _ in range(3):
            await house.send("svc")
        with pytest.raises(SendRefused) as refused:
            await house.send("svc")
        assert refused.value.code == "queue_full"
        assert await house.count() == 3


async def test_fifty_sends_at_once_do_not_pass_a_full_queue() -> None:
    async with open_house(queue_limit=10) as house:
        house.create("svc", runtime="api")
        done = await asyncio.gather(*(house.send("svc") for _ in range(50)), return_exceptions=True)
        assert sum(not isinstance(d, BaseException) for d in done) == 10
        assert await house.count() == 10


@pytest.mark.requirement("send:result:offline")
async def test_a_send_to_a_reader_that_is_off_line_is_answered_at_once() -> None:
    async with open_house(wait_live_s=300.0, wait_waking_s=300.0) as house:
        house.create("svc", runtime="api")
        async with asyncio.timeout(WAIT_S):
            sent = await house.send("svc")
        assert (sent.state, sent.reason, sent.queue_depth) == ("held", "offline", 1)
        assert not sent.woke


async def test_a_sender_waits_for_a_waking_reader_only_so_long() -> None:
    async with open_house(
        "ann", misbehave="hang_at_start", wait_waking_s=0.6, boot_deadline_s=300.0
    ) as house:
        began = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            sent = await house.send("ann")
        assert (sent.state, sent.reason, sent.woke) == ("held", "waking", True)
        assert time.monotonic() - began > 0.5
        assert house.lane("ann").phase == "booting"


async def test_a_sender_waits_for_a_live_reader_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann", wait_live_s=0.5) as house:
        await house.live("ann")
        door = house.services.doors["paste"]
        entered, go = asyncio.Event(), asyncio.Event()

        async def stuck(*_: object) -> None:
            entered.set()
            await go.wait()

        monkeypatch.setattr(door, "probe", stuck)
        began = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            sent = await house.send("ann")
        assert entered.is_set()
        assert not sent.delivered
        assert time.monotonic() - began > 0.4
        monkeypatch.undo()
        go.set()
        await house.wait(sent.message_id, "seen")


@pytest.mark.requirement("delivery:composer:draft")
async def test_a_hold_is_an_answer_at_once() -> None:
    async with open_house("ann", wait_live_s=300.0) as house:
        await house.live("ann")
        house.type("ann", "a draft")
        await house.drawn("ann", "a draft")
        async with asyncio.timeout(WAIT_S):
            sent = await house.send("ann")
        assert sent.reason == "composer"


async def test_cancelling_the_call_does_not_cancel_the_message() -> None:
    async with open_house("ann") as house:
        calls = [asyncio.create_task(house.send("ann", f"NOTHING\n{n}")) for n in range(3)]
        await until(lambda: house.lane("ann").phase == "booting")
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        await until(lambda: len(house.prompts("ann")) == 3)
        assert house.bodies("ann") == [f"NOTHING\n{n}" for n in range(3)]
        assert not house.services.waits._by_message


async def test_a_cancel_at_any_moment_loses_nothing_that_was_stored() -> None:
    async with open_house() as house:
        house.create("svc", runtime="api")
        calls = []
        for n in range(40):
            calls.append(asyncio.create_task(house.send("svc", f"n{n}")))
            for _ in range(n % 7):
                await asyncio.sleep(0)
            calls[-1].cancel()
        await asyncio.wait(calls)
        stored = await house.count()
        got: list[str] = []
        stream = house.inboxes.open(house.caller("api-svc"))
        async with asyncio.timeout(20):
            while len(got) < stored:
                message = await anext(stream)
                got.append(message.id)
                assert await house.inboxes.ack(house.caller("api-svc"), message.id)
        await stream.aclose()  # type: ignore[attr-defined]
        assert len(set(got)) == stored


def _two_runtimes(house: House, name: str) -> None:
    """Give a demo peer a second runtime."""
    registry = Registry(house.paths, sandbox=True)
    record = registry.snapshot().require(name)

    def change(records: dict[str, Any]) -> None:
        records[name] = msgspec.structs.replace(record, runtimes=(*record.runtimes, "api"))

    registry.change(change)


@pytest.mark.requirement("send:order")
async def test_an_unpinned_message_follows_the_ones_before_it() -> None:
    async with open_house("ann", misbehave="hang_at_start", wait_waking_s=0.3) as house:
        _two_runtimes(house, "ann")
        first = await house.send("ann")
        assert first.runtime == "demo"
        # Another runtime comes alive meanwhile: order counts more than speed.
        stream = house.inboxes.open(house.caller("api-ann"))
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: house.lane("ann", "api").phase == "live")
        second = await house.send("ann")
        assert second.runtime == "demo"
        pinned = await house.send("ann", runtime="api")
        assert pinned.runtime == "api"
        third = await house.send("ann")
        assert third.runtime == "demo"
        # Who has nothing waiting there goes where somebody is at home.
        house.create("eve", runtime="api")
        other = await house.send("ann", sender="api-eve")
        assert other.runtime == "api"
        assert (await reading).id == pinned.message_id
        await stream.aclose()  # type: ignore[attr-defined]
        await house.fleet.stop("ann", None)


async def test_two_sends_at_once_are_never_split_over_two_runtimes() -> None:
    """The identity is fixed in the transaction that accepts."""
    async with open_house("ann", misbehave="hang_at_start", wait_waking_s=0.3) as house:
        _two_runtimes(house, "ann")
        stream = house.inboxes.open(house.caller("api-ann"))
        reading = asyncio.ensure_future(anext(stream))

        async def later(n: int) -> str:
            for _ in range(n):
                await asyncio.sleep(0)
            return (await house.send("ann", f"{n}")).runtime

        found = await asyncio.gather(*(later(n) for n in range(30)))
        assert len(set(found)) == 1, found
        reading.cancel()
        await asyncio.wait({reading})
        await house.fleet.stop("ann", None)


async def test_a_notice_reaches_the_sender_wakes_nobody_and_has_no_notice_of_its_own() -> None:
    async with open_house("ann") as house:
        house.create("svc", runtime="api")
        lost = [await house.send("svc", f"text {n}", sender="demo-ann") for n in range(5)]
        await house.fleet.remove("svc", force=False)
        for one in lost:
            assert (await house.row(one.message_id)).state == "failed"
        await until(lambda: _undelivered(house, "ann"))
        assert house.lane("ann").phase == "asleep"
        assert await house.sessions() == []
        await house.live("ann")
        await until(lambda: all(any(m.message_id in b for b in house.bodies("ann")) for m in lost))
        # Nobody is told that the notices of a peer that is gone can't be delivered.
        await house.fleet.stop("ann", None)
        before = await house.count()
        await house.fleet.remove("ann", force=True)
        assert await house.count() == before


def _undelivered(house: House, name: str) -> Any:
    async def look() -> bool:
        peers = {p.personality: p for p in await house.fleet.peers()}
        return peers[name].undelivered > 0

    return look()


async def test_a_message_behind_a_hundred_notices_still_wakes_its_reader() -> None:
    async with open_house("ann") as house:
        for n in range(101):
            await house.accept("ann", f"notice {n}", sender=CORE_ADDRESS, path="core")
        house.lane("ann").work()
        call = asyncio.create_task(house.send("ann", "NOTHING\nreal"))
        await until(lambda: house.lane("ann").phase in ("booting", "live"))
        call.cancel()
        await asyncio.wait({call})


async def test_hand_overs_that_provably_never_happened_are_no_attempts() -> None:
    async with open_house() as house:
        house.create("svc", runtime="api")
        sent = await house.send("svc")
        journal = house.lane("svc", "api").journal
        for _ in range(8):
            row = await house.row(sent.message_id)
            await journal.begin(row, "some-session", "inbox")
            await journal.return_all([await house.row(sent.message_id)], frozenset(), "nothing")
        assert (await house.row(sent.message_id)).state == "accepted"
        for _ in range(2):
            row = await house.row(sent.message_id)
            if row.state == "failed":
                break
            await journal.begin(row, "some-session", "inbox")
            row = await house.row(sent.message_id)
            await journal.return_all([row], frozenset({row.id}), "unproven")
        assert (await house.row(sent.message_id)).state == "failed"


async def test_removing_a_peer_fails_its_mail_and_says_which() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        house.type("ann", "draft")
        await house.drawn("ann", "draft")
        sent = [await house.send("ann", f"{n}") for n in range(3)]
        with pytest.raises(IapeerError):
            await house.fleet.remove("ann", force=False)
        assert {(await house.row(s.message_id)).state for s in sent} == {"held"}
        done = await house.fleet.remove("ann", force=True)
        assert done["failed_messages"] == [s.message_id for s in sent]
        await house.nothing_left()


async def test_a_message_during_a_removal_is_never_left_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Accepted after the last look at the mail, before the name is gone."""
    async with open_house("ann") as house:
        loop = asyncio.get_running_loop()
        real, late = _fleet.remove_peer, []

        def slow(*args: Any) -> Any:
            # The record is still there: a sender may find it.
            call = asyncio.run_coroutine_threadsafe(house.send("ann", "NOTHING\nlate"), loop)
            late.append(call)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), loop).result(5)
            return real(*args)

        monkeypatch.setattr(_fleet, "remove_peer", slow)
        await house.fleet.remove("ann", force=True)
        try:
            sent = await asyncio.wrap_future(late[0])
        except SendRefused:
            # It was told: the message failed while it waited.
            assert await house.count() == 1
        else:
            row = await house.row(sent.message_id)
            assert row.state in ("failed", "landed", "seen"), row.state
        await house.nothing_left()


async def test_a_rename_keeps_queued_mail_and_delivers_it_under_the_new_name() -> None:
    async with open_house("ann", misbehave="exit_at_start=1") as house:
        sent = [await house.send("ann", f"NOTHING\n{n}") for n in range(3)]
        assert sent[-1].reason == HoldReason.BROKEN
        await house.fleet.rename("ann", "anna")
        cwd = house.services.registry.snapshot().require("anna").cwd
        launch_env_path(Path(cwd), "demo").write_text("", encoding="utf-8")
        await house.fleet.start("anna", None)
        for one in sent:
            await house.wait(one.message_id, "seen")
        assert (await house.row(sent[0].message_id)).personality == "anna"
        with pytest.raises(PeerNotFound):
            await house.send("ann")


async def test_a_message_during_a_rename_arrives_under_the_new_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann") as house:
        loop = asyncio.get_running_loop()
        real, late = _fleet.rename_peer, []

        async def accept_now() -> None:
            late.append(await house.accept("ann", "NOTHING\nduring"))
            record = house.services.registry.snapshot().require("ann")
            house.lanes.work(record.uid, Identity("demo", "ann"))

        def before(*args: Any) -> Any:
            asyncio.run_coroutine_threadsafe(accept_now(), loop).result(5)
            return real(*args)

        monkeypatch.setattr(_fleet, "rename_peer", before)
        try:
            await house.fleet.rename("ann", "anna")
        except IapeerError:
            # The message woke it: then it is live under the old name, and the mail is there.
            await house.wait(late[0], "seen")
            return
        await house.wait(late[0], "seen")
        assert (await house.row(late[0])).personality == "anna"


async def test_an_order_to_wake_during_adoption_is_answered() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        await house.close()
        orders: list[asyncio.Future[str]] = []
        load = Lanes.load

        async def load_and_order(self: Lanes) -> None:
            await load(self)
            lanes = [x for x in self._lanes.values() if x.identity.personality == "ann"]
            orders.extend(lane.order(Verb.WAKE) for lane in lanes)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lanes, "load", load_and_order)
            await house.start()
        async with asyncio.timeout(WAIT_S):
            assert await orders[0] in ("live", "woke")
        assert house.session("ann").id == session.id
