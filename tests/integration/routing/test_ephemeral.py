"""Ephemeral workers: one task, one session, in order; none is lost, none silently run twice."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import datetime, timedelta
from typing import Any

import pytest

from iapeer.core.draft import Draft
from iapeer.core.errors import IapeerError, SendRefused
from iapeer.core.states import MessageState
from iapeer.host.letters import OfflineHouse, OfflineSend
from iapeer.host.presence import offline_done
from iapeer.storage.ledger.offline import offline
from tests.integration.routing.house import House, open_house, until
from tests.integration.routing.quiet import event, events, faults, gone, marks_of, profile

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

SHORT: dict[str, Any] = {"ephemeral_quiet_s": 0.4, "ephemeral_unarmed_idle_s": 1.2}


def _worker(house: House) -> None:
    profile(house, "bee", wake_policy="ephemeral")


def _house(*peers: str, **more: Any) -> Any:
    return open_house(*(peers or ("bee",)), before=_worker, **{**SHORT, **more})


@pytest.mark.requirement("lifecycle:ephemeral")
async def test_each_task_gets_a_fresh_session_one_after_the_other() -> None:
    async with _house() as house:
        # The first works until all are sent.
        texts = [f"SEND op done {n}\nHOLD {house.go}" for n in range(3)]
        sent = [await house.send("bee", text) for text in texts]
        house.go.touch()
        assert sent[0].state in (MessageState.LANDED, MessageState.SEEN)
        assert [(s.state, s.reason) for s in sent[1:]] == [("held", "serial")] * 2
        for one in sent:
            await house.wait(one.message_id, "seen")
        await event(house, "supervise", 3, outcome="ephemeral-done")
        assert [r["text"].count("<iap ") for r in house.records("bee") if r["type"] == "user"] == [
            1,
            1,
            1,
        ]
        rows = await house.sessions()
        assert len(rows) == 3
        assert [line["cause"] for line in events(house, "wake")] == ["ephemeral-policy"] * 3
        assert [line["depth"] for line in events(house, "ephemeral-drain")] == ["1", "2", "1"]
        bodies = [body.splitlines()[0] for body in house.bodies("bee")]
        assert bodies == [f"SEND op done {n}" for n in range(3)]
        assert await faults(house, "bee") == 0
        assert not {"parked", "armed", "task"} & set(await marks_of(house, "bee"))


async def test_the_next_task_starts_at_once_when_a_session_ends() -> None:
    async with _house(audit_s=600.0) as house:
        texts = [f"SEND op {n}\nHOLD {house.go}" for n in range(2)]
        first, second = [await house.send("bee", text) for text in texts]
        house.go.touch()
        await house.wait(first.message_id, "seen")
        reaped = await event(house, "supervise", outcome="ephemeral-done")
        wake = await event(house, "wake", 2)
        await house.wait(second.message_id, "seen")
        after = datetime.fromisoformat(wake["ts"]) - datetime.fromisoformat(reaped["ts"])
        # Far from the next audit.
        assert timedelta(0) <= after < timedelta(seconds=60)


async def test_a_silent_finisher_is_ended_at_its_bound_and_its_task_is_not_run_again() -> None:
    async with _house() as house:
        first, second = [await house.send("bee", f"NOTHING\n{n}") for n in range(2)]
        line = await event(house, "supervise", outcome="ephemeral-unarmed-bound")
        assert line["reason"].startswith("unarmed idle 1s (its turn is complete")
        await house.wait(second.message_id, "seen")
        await event(house, "supervise", 2, outcome="ephemeral-unarmed-bound")
        assert [(await house.row(m.message_id)).attempt for m in (first, second)] == [1, 1]


async def test_a_turn_that_runs_is_waited_for_beyond_every_bound() -> None:
    async with _house() as house:
        sent = await house.send("bee", "SEND op early word\nSLOW 2.5")
        await house.wait(sent.message_id, "seen")
        line = await event(house, "supervise", outcome="ephemeral-done")
        assert line["reason"].startswith("armed, quiet")
        ends = await house.services.ledger.read(
            lambda c: c.execute("SELECT turn_end FROM turns").fetchall()
        )
        assert ends == [("done",)]


@pytest.mark.requirement("lifecycle:ephemeral:once")
async def test_a_task_whose_session_died_comes_once_more_and_then_is_a_dead_letter() -> None:
    async with _house("bee", "ann") as house:
        await house.live("ann")
        sent = await house.send("bee", "SLOW 60", sender="demo-ann")
        after = await house.send("bee", "SEND op after")
        for n in range(2):
            await _shown(house, n + 1)
            await house.wait(sent.message_id, "seen")
            os.kill(house.session("bee").pane[0], signal.SIGKILL)
        await house.wait(sent.message_id, "failed")
        first, second = house.prompts("bee")[:2]
        assert "dup=" not in first
        assert 'dup="maybe"' in second
        await until(lambda: any("delivery failed" in p for p in house.prompts("ann")))
        await house.wait(after.message_id, "seen")


async def test_a_session_that_died_after_its_turn_without_a_word_counts_as_unfinished() -> None:
    async with _house(ephemeral_unarmed_idle_s=30.0) as house:
        sent = await house.send("bee")
        await house.wait(sent.message_id, "seen")
        lane = house.lane("bee")
        await until(lambda: lane.rest.idle_s > 0.3)
        os.kill(house.session("bee").pane[0], signal.SIGKILL)
        await until(lambda: len(house.prompts("bee")) == 2)
        row = await house.wait(sent.message_id, "seen")
        assert (row.dup, row.attempt) == (True, 2)


async def test_a_session_that_had_said_its_word_when_it_died_is_finished() -> None:
    async with _house(ephemeral_quiet_s=30.0, ephemeral_unarmed_idle_s=40.0) as house:
        sent = await house.send("bee", "SEND op my result")
        await house.wait(sent.message_id, "seen")
        session = house.session("bee")
        await until(lambda: house.lane("bee").journal.armed(session.id))
        os.kill(session.pane[0], signal.SIGKILL)
        await gone(house, "bee")
        row = await house.row(sent.message_id)
        assert (row.state, row.attempt) == (MessageState.SEEN, 1)
        assert len(await house.sessions()) == 1


async def test_a_task_that_died_unwatched_comes_back_marked() -> None:
    async with _house() as house:
        sent = await house.send("bee", "SLOW 60")
        await house.wait(sent.message_id, "seen")
        pane = house.session("bee").pane
        await house.close()
        os.kill(pane[0], signal.SIGKILL)
        await house.start()
        await until(lambda: len(house.prompts("bee")) == 2)
        assert 'dup="maybe"' in house.prompts("bee")[1]


async def test_a_stopped_worker_holds_its_queue_and_gets_its_cut_off_task_again() -> None:
    async with _house() as house:
        first, second = [await house.send("bee", t) for t in ("SLOW 60", "SEND op two")]
        await house.wait(first.message_id, "seen")
        await house.fleet.stop("bee", None)
        assert [(await house.row(m.message_id)).reason for m in (first, second)] == ["stopped"] * 2
        with pytest.raises(SendRefused, match="is stopped and not accepting messages"):
            await house.send("bee", "three")
        await house.fleet.start("bee", None)
        row = await house.wait(first.message_id, "seen")
        assert (row.dup, row.attempt) == (True, 2)


async def test_the_session_is_ended_by_its_word_after_a_restart_too() -> None:
    async with _house(ephemeral_quiet_s=1.0, ephemeral_unarmed_idle_s=60.0) as house:
        first = await house.send("bee", "SEND op result")
        second = await house.send("bee", "SEND op next")
        await house.wait(first.message_id, "seen")
        session = house.session("bee")
        await until(lambda: house.lane("bee").journal.armed(session.id))
        await house.close()
        await house.start()
        await house.wait(second.message_id, "seen")
        assert len(house.bodies("bee")) == 2


@pytest.mark.requirement("lifecycle:self")
async def test_a_worker_that_says_it_is_done_wakes_nobody_and_frees_the_queue() -> None:
    async with _house(ephemeral_unarmed_idle_s=60.0) as house:
        first, second = [await house.send("bee", f"NOTHING\n{n}") for n in range(2)]
        await house.wait(first.message_id, "seen")
        before = await house.count()
        answer = await house.ports.own.done(house.session("bee").id)
        assert (answer.identity, answer.ephemeral) == ("demo-bee", True)
        await event(house, "supervise", outcome="ephemeral-done")
        await house.wait(second.message_id, "seen")
        assert await house.count() == before


async def test_done_of_a_peer_that_is_no_worker_does_nothing() -> None:
    async with open_house("ann", **SHORT) as house:
        session = await house.live("ann")
        assert not (await house.ports.own.done(session.id)).ephemeral
        await asyncio.sleep(0.8)
        assert house.lane("ann").session is session


async def test_a_mark_belongs_to_one_session() -> None:
    async with _house(ephemeral_unarmed_idle_s=60.0) as house:
        await house.send("bee")
        with pytest.raises(IapeerError, match="ended"):
            await house.ports.own.done("somebody-else")
        uid = house.services.registry.snapshot().require("bee").uid
        with offline(house.paths.ledger) as conn:
            conn.execute(
                "INSERT INTO marks VALUES (?, 'demo', 'armed', 0, 'an-older-session')", (uid,)
            )
        session = house.session("bee")
        house.lane("bee").work()
        await asyncio.sleep(0.8)
        assert house.lane("bee").session is session


async def test_a_word_said_while_no_daemon_runs_counts() -> None:
    async with _house(ephemeral_unarmed_idle_s=60.0) as house:
        sent = await house.send("bee")
        second = await house.send("bee", "SEND op")
        await house.wait(sent.message_id, "seen")
        token = _token(house)
        await house.close()
        offline_done(house.settings, {**house.environ, "PEER_TOKEN": token})
        await house.start()
        await event(house, "supervise", outcome="ephemeral-done")
        await house.wait(second.message_id, "seen")


async def test_a_message_sent_while_no_daemon_runs_is_a_word_and_a_refused_one_is_none() -> None:
    async with _house(ephemeral_unarmed_idle_s=60.0) as house:
        sent = await house.send("bee")
        await house.wait(sent.message_id, "seen")
        session = house.session("bee")
        with pytest.raises(IapeerError):
            await house.send("nobody", sender="demo-bee")
        assert not await house.lane("bee").journal.armed(session.id)
        await house.close()
        away = OfflineHouse(house.settings, house.environ)
        with pytest.raises(IapeerError):
            away.send(OfflineSend(Draft(to="nobody", message="x"), "demo-bee"))
        assert away.send(OfflineSend(Draft(to="op", message="result"), "demo-bee")).message_id
        await house.start()
        await event(house, "supervise", outcome="ephemeral-done")


async def test_what_a_person_types_is_a_task_of_its_own() -> None:
    async with _house(ephemeral_unarmed_idle_s=0.8) as house:
        with house.awake("bee"):
            await house.fleet.new("bee", None)
            session = house.session("bee")
            house.type("bee", "hello worker", "Enter")
            await until(lambda: "hello worker" in house.bodies("bee"))
            sent = await house.send("bee", "SEND op")
        assert sent.reason == "serial"
        row = await house.wait(sent.message_id, "seen")
        assert row.session_id != session.id


async def test_a_failure_notice_to_a_worker_goes_to_the_operator_and_starts_nobody() -> None:
    async with _house("bee", "ann", ephemeral_unarmed_idle_s=0.6) as house:
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        sent = await house.send("bee", "NOTHING")
        await house.wait(sent.message_id, "seen")
        lost = await house.accept("ann", "NOTHING", sender="demo-bee", sender_uid=_uid(house))
        await gone(house, "bee")
        await house.fleet.remove("ann", force=True)
        line = await event(house, "notice-ephemeral", identity="demo-bee")
        assert line["id"] == lost
        core = await house.services.ledger.read(
            lambda c: c.execute("SELECT count(*) FROM messages WHERE path = 'core'").fetchone()[0]
        )
        assert core == 0
        assert len([row for row in await house.sessions() if row.personality == "bee"]) == 1


async def test_workers_do_not_wait_for_one_another() -> None:
    def both(house: House) -> None:
        profile(house, "bee", wake_policy="ephemeral")
        profile(house, "wasp", wake_policy="ephemeral")

    async with open_house("bee", "wasp", before=both, **SHORT) as house:
        slow = await house.send("bee", "SLOW 60")
        await house.wait(slow.message_id, "seen")
        quick = await house.send("wasp", "SEND op")
        await house.wait(quick.message_id, "seen")
        assert (await house.row(slow.message_id)).state == "seen"


async def _shown(house: House, count: int) -> None:
    await until(lambda: len(house.prompts("bee")) == count)


def _uid(house: House) -> str:
    return house.services.registry.snapshot(allow_stale=True).require("bee").uid


def _token(house: House) -> str:
    """Read the token of the worker's session out of its process, as only its own account can."""
    pid = house.session("bee").pane[0]
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        pairs = dict(p.split(b"=", 1) for p in file.read().split(b"\0") if b"=" in p)
    return pairs[b"PEER_TOKEN"].decode()
