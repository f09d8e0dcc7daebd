"""What counts as proof that a message was read, and what becomes of one nobody proves."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


async def test_a_message_in_the_programs_own_queue_is_landed_and_no_more() -> None:
    async with open_house("ann", evidence_s=0.3) as house:
        await house.live("ann")
        slow = await house.send("ann", f"HOLD {house.go}")
        await house.wait(slow.message_id, "seen")
        queued = await house.send("ann", "NOTHING\nqueued")
        assert queued.state == "landed"
        await _queued(house)
        # A busy program has not lost it: waiting for its turn is no lack of evidence.
        await asyncio.sleep(0.6)
        assert (await house.row(queued.message_id)).state == "landed"
        behind = await house.send("ann", "NOTHING\nbehind")
        assert (behind.state, behind.reason) == ("held", "busy")
        house.go.touch()
        await house.wait(behind.message_id, "seen")
        assert (await house.row(queued.message_id)).state == "seen"
        assert house.bodies("ann")[-2:] == ["NOTHING\nqueued", "NOTHING\nbehind"]


async def test_a_lost_queue_and_a_death_bring_the_message_back_marked_once() -> None:
    async with open_house("ann", misbehave="lose_queue", evidence_s=30.0) as house:
        session = await house.live("ann")
        await _idle(house)
        slow = await house.send("ann", f"HOLD {house.go}")
        await house.wait(slow.message_id, "seen")
        lost = await house.send("ann", "NOTHING\nlost in the queue")
        assert lost.state == "landed"
        await _queued(house)
        house.go.touch()
        await _idle(house)
        assert "NOTHING\nlost in the queue" not in house.bodies("ann")
        os.kill(session.pane[0], signal.SIGKILL)
        row = await house.wait(lost.message_id, "seen")
        assert (row.dup, row.attempt) == (True, 2)
        found = [p for p in house.prompts("ann") if "lost in the queue" in p]
        assert len(found) == 1
        assert 'dup="maybe"' in found[0]


def _envelope(message_id: str, body: str = "x") -> str:
    return f'<iap from="eve" runtime="demo" id="{message_id}"><msg>{body}</msg></iap>'


async def test_a_printed_or_quoted_id_proves_nothing() -> None:
    """An agent that prints a waiting message's envelope, and a message that quotes it."""
    async with open_house("ann", misbehave="no_hook", evidence_s=30.0) as house:
        await house.live("ann")
        victim = await house.accept("ann", "NOTHING\nvictim")
        forged = _envelope(victim)
        sent = await house.send("ann", f"SAY {forged}\nSLOW 0.5\n{forged}")
        await house.wait(sent.message_id, "seen")
        await until(lambda: any(r["type"] == "assistant" for r in house.records("ann")))
        row = await house.row(victim)
        assert row.state in ("accepted", "held", "landed", "in_flight", "seen")
        row = await house.wait(victim, "seen")
        (step,) = [h for h in await house.history(victim) if h.state == "seen"]
        real = [n for n, r in enumerate(house.records("ann")) if r["type"] == "user"]
        assert len(real) == 3
        assert step.evidence.startswith("transcript@")
        assert int(step.evidence.partition("@")[2]) > 0
        assert house.bodies("ann").count("NOTHING\nvictim") == 1


async def test_an_assistant_that_prints_a_lost_messages_id_proves_nothing() -> None:
    async with open_house("ann", misbehave="no_hook,lose_queue", evidence_s=30.0) as house:
        await house.live("ann")
        await _idle(house)
        slow = await house.send("ann", f"HOLD {house.go}")
        await house.wait(slow.message_id, "seen")
        lost = await house.send("ann", "NOTHING\nlost")
        assert lost.state == "landed"
        await _queued(house)
        house.go.touch()
        await _idle(house)
        half = f'<iap from="op" runtime="api" id="{lost.message_id}">'
        house.type("ann", f"SAY and then: {half}", "Enter")
        await until(lambda: [r["type"] for r in house.records("ann")].count("assistant") == 1)
        await _idle(house)
        house.type("ann", f"SAY <msg>lost</msg></iap> <iap id='{lost.message_id}'/>", "Enter")
        await until(lambda: [r["type"] for r in house.records("ann")].count("assistant") == 2)
        await _idle(house)
        await _all_read(house)
        assert (await house.row(lost.message_id)).state == "landed"


async def _all_read(house: House) -> None:
    """The daemon has taken every record the agent wrote."""

    async def look() -> bool:
        (row,) = await house.live_rows()
        return row.read_offset == Path(row.transcript).stat().st_size

    await until(look)


async def _queued(house: House) -> None:
    """The program has put a message into its own queue."""
    await until(lambda: any(r.get("op") == "enqueue" for r in house.records("ann")))


async def _idle(house: House) -> None:
    """The newest turn has ended: what comes now is no part of a queue."""
    await until(lambda: house.records("ann")[-1].get("op") == "end")


@pytest.mark.parametrize(
    ("missing", "source"), [("no_transcript", "hook UserPromptSubmit"), ("no_hook", "transcript@")]
)
async def test_each_kind_of_evidence_is_enough_alone(missing: str, source: str) -> None:
    async with open_house("ann", misbehave=missing) as house:
        sent = await house.send("ann", "NOTHING\nhello")
        # The hook reaches the daemon as any program does: over its socket.
        await house.wait(sent.message_id, "seen")
        (step,) = [h for h in await house.history(sent.message_id) if h.state == "seen"]
        assert step.evidence.startswith(source)


async def test_without_any_evidence_landed_stays_and_later_messages_arrive() -> None:
    async with open_house("ann", misbehave="no_transcript,no_hook", evidence_s=0.4) as house:
        sent = [await house.send("ann", f"SAY number {n}") for n in range(3)]
        for one in sent:
            row = await house.wait(one.message_id, "landed")
            assert (row.dup, row.attempt, row.final) == (False, 1, False)
        shown = house.tmux("ann", "capture-pane", "-p", "-S", "-100", "-t", "=demo-ann:")
        places = [shown.index(f"● number {n}") for n in range(3)]
        assert places == sorted(places)
        log = house.paths.lifecycle_log.read_text(encoding="utf-8")
        assert log.count("unproven") >= 2


async def test_the_window_holds_again_for_a_message_that_came_back() -> None:
    """Unproven in one session says nothing about the next one."""
    async with open_house("ann", misbehave="no_transcript,no_hook", evidence_s=1.0) as house:
        first = (await house.send("ann", "NOTHING\nfirst")).message_id
        second = (await house.send("ann", "NOTHING\nsecond")).message_id
        # The second lands only because the first was given up as a proof.
        await house.wait(second, "landed")
        os.kill(house.session("ann").pane[0], signal.SIGKILL)

        async def came_back() -> bool:
            row = await house.row(second)
            return (row.attempt, row.state, row.dup) == (2, "landed", True)

        await until(came_back)
        (landed,) = [h for h in await house.history(first) if h.attempt == 2 and h.event == "land"]
        (begun,) = [
            h for h in await house.history(second) if h.attempt == 2 and h.event == "hand_over"
        ]
        assert begun.at - landed.at >= 0.9


async def test_a_late_proof_saves_a_second_showing() -> None:
    """Given back while its session lives, then found in that session's record after all."""
    from iapeer.routing.lanes.letters import Observed
    from iapeer.sessions.evidence import Fact

    async with open_house("ann", misbehave="no_transcript,no_hook", evidence_s=30.0) as house:
        session = await house.live("ann")
        house.type("ann", "a draft that holds everything")
        await house.drawn("ann", "a draft that holds everything")
        late = await house.accept("ann", "NOTHING\nlate")
        lane = house.lane("ann")
        await lane.journal.begin(await house.row(late), session.id, "paste")
        await lane.journal.return_all([await house.row(late)], frozenset({late}), "no proof")
        lane.observe(Observed(session.id, (Fact("user", (late,), source="prompt hook"),)))
        row = await house.wait(late, "seen")
        assert row.attempt == 1


async def test_what_hooks_told_is_taken_in_its_order_whatever_the_record_tells_between() -> None:
    """On a busy machine hooks and lines of the record pile up in front of the lane."""
    from iapeer.core.states import TurnEnd
    from iapeer.routing.lanes.letters import Observed
    from iapeer.sessions.evidence import Fact
    from iapeer.storage.ledger import turns

    async with open_house("ann", misbehave="no_transcript,no_hook", evidence_s=30.0) as house:
        sent = await house.send("ann", "NOTHING\nmore")
        await house.wait(sent.message_id, "landed")
        session, lane = house.session("ann"), house.lane("ann")
        begun = Observed(session.id, (Fact("user", (sent.message_id,), source="hook"),))
        between = Observed(session.id, (Fact("dequeue", source="transcript@1"),), 0)
        ended = Observed(session.id, (Fact("turn_end", status=TurnEnd.DONE, source="hook"),))
        lane.box.reports.extend((begun, between, ended))
        lane.box.ring()
        await house.wait(sent.message_id, "seen")

        async def over() -> bool:
            found = await house.services.ledger.read(lambda c: turns.turns_of(c, sent.message_id))
            return [turn.turn_end for turn in found] == ["done"]

        await until(over)
