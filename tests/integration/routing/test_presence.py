"""Sessions that nobody needs are ended and gone on with; nothing that goes on is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import pytest

from iapeer.core.states import HoldReason
from iapeer.lifecycle import rules
from iapeer.registry.units import unit_path
from iapeer.routing.lanes.apipause import _Pause
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger import marks
from iapeer.storage.ledger.offline import offline
from tests.integration.routing.house import House, open_house, until
from tests.integration.routing.quiet import (
    attached,
    event,
    events,
    faults,
    gone,
    key,
    marks_of,
    profile,
)

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

IDLE_S = 0.5


async def _say(house: House, name: str, topic: str | None) -> None:
    """Send one message and wait until it was read."""
    sent = await house.send(name, topic=topic)
    await house.wait(sent.message_id, "seen")


@pytest.mark.requirement("lifecycle:idle", "lifecycle:resume", "lifecycle:topics")
async def test_an_idle_session_is_parked_and_a_known_topic_goes_on_with_it() -> None:
    async with open_house("ann", idle_s=IDLE_S) as house:
        with house.awake("ann"):
            await _say(house, "ann", "one")
            first = house.session("ann").native_id
        reaped = await event(house, "supervise", action="reaped-idle", identity="demo-ann")
        assert reaped["outcome"] == "resume-eligible"
        assert "parked" in await marks_of(house, "ann")
        assert await faults(house, "ann") == 0
        await gone(house, "ann")
        await house.nothing_left()

        with house.awake("ann"):
            await _say(house, "ann", "one")
            wake = await event(house, "wake", count=2, identity="demo-ann")
            assert (wake["mode"], wake["cause"], wake["ref"]) == (
                "resume",
                "idle-reaped-resume",
                first,
            )
            assert "parked" not in await marks_of(house, "ann")


async def test_another_topic_and_no_topic_begin_anew() -> None:
    async with open_house("ann", idle_s=IDLE_S) as house:
        await _say(house, "ann", "one")
        await gone(house, "ann")
        await _say(house, "ann", "two")
        await gone(house, "ann")
        await _say(house, "ann", None)
        causes = [line["cause"] for line in events(house, "wake", identity="demo-ann")]
        assert causes == ["first-wake", "idle-reaped-new-topic", "idle-reaped-no-topic"]


async def test_topics_of_live_deliveries_belong_to_the_conversation() -> None:
    async with open_house("ann", idle_s=IDLE_S) as house:
        with house.awake("ann"):
            await _say(house, "ann", "one")
            await _say(house, "ann", "two")
        assert [line["topic"] for line in events(house, "topic-note")] == ["two"]
        await gone(house, "ann")
        await _say(house, "ann", "one")
        assert (await event(house, "wake", count=2))["cause"] == "idle-reaped-resume"


async def test_a_person_with_an_interface_is_gone_on_with_whatever_the_topic() -> None:
    async with open_house("ann", idle_s=IDLE_S) as house:
        profile(house, "ann", interfaces={"telegram": {"bot": "annbot"}})
        await _say(house, "ann", "one")
        await gone(house, "ann")
        await _say(house, "ann", "two")
        assert (await event(house, "wake", count=2))["cause"] == "idle-reaped-human"


@pytest.mark.requirement("lifecycle:mid-turn")
async def test_a_running_turn_is_never_cut_off() -> None:
    async with open_house("ann", idle_s=0.3) as house:
        sent = await house.send("ann", "SLOW 1.5")
        await house.wait(sent.message_id, "seen")
        await gone(house, "ann")
        ends = await house.services.ledger.read(
            lambda c: c.execute("SELECT turn_end FROM turns").fetchall()
        )
        assert ends == [("done",)]


@pytest.mark.requirement("lifecycle:mid-turn")
async def test_who_is_attached_keeps_the_session() -> None:
    async with open_house("ann", idle_s=0.3) as house:
        with contextlib.ExitStack() as guest:
            with house.awake("ann"):
                session = await house.live("ann")
                guest.enter_context(attached(house, "ann"))
                await until(session.tmux.people)
            await asyncio.sleep(1.0)
            assert house.lane("ann").session is session
        await gone(house, "ann")


@pytest.mark.requirement("lifecycle:mid-turn")
async def test_a_draft_keeps_the_session() -> None:
    async with open_house("ann", idle_s=0.6) as house:
        with house.awake("ann"):
            session = await house.live("ann")
            house.type("ann", "half a thought")
            await house.drawn("ann", "half a thought")
        await asyncio.sleep(1.2)
        assert house.lane("ann").session is session
        house.type("ann", "", "C-u")
        await gone(house, "ann")


@pytest.mark.requirement("lifecycle:mid-turn")
async def test_a_session_that_waits_in_a_call_is_active_until_the_call_returns() -> None:
    async with open_house("ann", idle_s=0.3) as house:
        with house.awake("ann"):
            session = await house.live("ann")
            await asyncio.sleep(0.9)
            assert house.lane("ann").session is session
        assert house.lane("ann").rest.idle_s < 0.9
        await gone(house, "ann")


async def test_a_wall_clock_that_jumps_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house("ann", idle_s=30.0) as house:
        session = await house.live("ann")
        now = house.services.clock.now
        monkeypatch.setattr(house.services.clock, "now", lambda: now() + 86_400)
        house.lane("ann").work()
        await house.lanes.audit()
        await asyncio.sleep(0.2)
        assert house.lane("ann").session is session


async def test_an_adopted_session_is_as_old_as_its_last_sign_of_life() -> None:
    async with open_house("ann", idle_s=6.0) as house:
        began = time.monotonic()
        await house.live("ann")
        await house.close()
        await asyncio.sleep(1.0)
        await house.start()
        await until(lambda: house.lane("ann").session)
        assert 0.9 < house.lane("ann").rest.idle_s < time.monotonic() - began
        await gone(house, "ann")
        await event(house, "supervise", action="reaped-idle")


async def test_an_adopted_session_is_never_older_than_its_last_delivery() -> None:
    async with open_house("ann", misbehave="no_transcript", idle_s=60.0) as house:
        session = await house.live("ann")
        await until(lambda: house.lane("ann").rest.idle_s > 1.0)
        sent = await house.send("ann")
        await house.wait(sent.message_id, "seen")
        await house.close()
        with offline(house.paths.ledger) as conn:
            conn.execute("UPDATE sessions SET ready_at = ready_at - 3600, started_at = 1")
        await house.start()
        await until(lambda: house.lane("ann").session)
        assert house.session("ann").id == session.id
        assert house.lane("ann").rest.idle_s < 10


@pytest.mark.parametrize("victim", ["server", "pane"])
async def test_a_death_is_told_with_its_class_and_the_next_session_begins_anew(victim: str) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        os.kill(getattr(session, victim)[0], signal.SIGKILL)
        line = await event(house, "supervise", action="reaped-gone")
        assert line["death"] == {"server": "server-dead", "pane": "session-gone"}[victim]
        assert line["outcome"] == "fresh-next-msg"
        await until(lambda: house.lane("ann").session is None)
        assert "parked" not in await marks_of(house, "ann")

        async def counted() -> bool:
            return await faults(house, "ann") == 1

        await until(counted)
        await _say(house, "ann", None)
        assert (await event(house, "wake", count=2))["cause"] == "crash-or-self-close"


async def test_a_death_that_no_event_told_is_found_by_the_audit() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        session.stops.pop(0)()
        session.stops.pop(0)()
        os.kill(session.server[0], signal.SIGKILL)
        await until(lambda: not is_alive(*session.server))
        await house.lanes.audit()
        await event(house, "supervise", action="reaped-gone", death="server-dead")


async def test_deliberate_ends_are_no_faults() -> None:
    async with open_house("ann", idle_s=0.4) as house:
        for _ in range(4):
            await house.fleet.new("ann", None)
            await house.fleet.stop("ann", None)
            await house.fleet.start("ann", None)
        await _say(house, "ann", None)
        await gone(house, "ann")
        assert await faults(house, "ann") == 0


async def test_a_death_at_a_used_up_quota_is_no_fault() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        lane = house.lane("ann")
        now = house.services.clock.now()
        pause = lane.deliverer._pause
        pause._pause, pause._loaded = _Pause(now + 600, (), HoldReason.QUOTA, True, now), True
        lane.work()
        await until(lambda: lane.deliverer.paused == HoldReason.QUOTA)
        os.kill(session.pane[0], signal.SIGKILL)
        await event(house, "supervise", action="reaped-gone")
        # After an order the step before it is over.
        await house.fleet.stop("ann", None)
        assert await faults(house, "ann") == 0


async def test_a_stopped_peer_is_parked_and_goes_on_after_its_start() -> None:
    async with open_house("ann") as house:
        await _say(house, "ann", "one")
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        assert house.lane("ann").session is None
        await _say(house, "ann", "one")
        assert (await event(house, "wake", count=2))["cause"] == "idle-reaped-resume"


async def test_attach_consumes_the_park_so_that_a_later_crash_is_no_clean_end() -> None:
    async with open_house("ann") as house:
        await _say(house, "ann", "one")
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        assert (await house.fleet.wake("ann", None)).woke
        assert "parked" not in await marks_of(house, "ann")
        os.kill(house.session("ann").pane[0], signal.SIGKILL)
        await gone(house, "ann")
        await _say(house, "ann", "one")
        causes = [line["cause"] for line in events(house, "wake")]
        assert causes == ["first-wake", "attach", "crash-or-self-close"]


async def test_a_refresh_survives_an_attach_and_makes_the_next_session_a_fresh_one() -> None:
    async with open_house("ann") as house:
        await _say(house, "ann", "one")
        done = await house.fleet.refresh("ann", None)
        assert done == {"demo": "refresh-armed"}
        assert await house.fleet.refresh("op", None) == {"api": "skipped-non-agentic"}
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        await house.fleet.wake("ann", None)
        assert "fresh_next" in await marks_of(house, "ann")
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        await _say(house, "ann", "one")
        causes = [line["cause"] for line in events(house, "wake")]
        assert causes == ["first-wake", "attach", "soft-reload"]
        assert not {"fresh_next", "parked"} & set(await marks_of(house, "ann"))


async def test_a_quiet_session_is_told_only_to_those_who_want_every_step() -> None:
    async with open_house("ann", supervise_log_verbose=True) as house:
        await house.live("ann")
        await house.lanes.audit()
        assert (await event(house, "supervise", action="alive"))["identity"] == "demo-ann"
        path = unit_path(house.settings.units_dir, "ann")
        path.parent.mkdir(mode=0o700, parents=True)
        path.write_text("[Unit]\n", encoding="utf-8")
        await house.lanes.audit()
        await event(house, "supervise", action="skipped-launchd", outcome="read-only-h4")
    async with open_house("ann") as house:
        await house.live("ann")
        await house.lanes.audit()
        assert events(house, "supervise", action="alive") == []


async def test_a_stopped_peer_that_is_found_dead_is_parked_and_has_no_fault() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        uid = key(house, "ann")[0]
        await house.close()
        with offline(house.paths.ledger) as conn:
            marks.set_mark(conn, uid, "demo", "stopped", 0.0)
        os.kill(session.server[0], signal.SIGKILL)
        await until(lambda: not is_alive(*session.pane))
        await house.start()
        await event(house, "supervise", action="skipped-stopped", outcome="resume-on-start")
        assert events(house, "supervise", action="reaped-gone") == []
        assert await faults(house, "ann") == 0
        assert {"parked", "stopped"} <= set(await marks_of(house, "ann"))


async def test_a_stop_that_was_cut_short_by_a_kill_is_finished() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", "SLOW 60")
        await house.wait(sent.message_id, "seen")
        session = house.session("ann")
        uid = key(house, "ann")[0]
        await house.close()
        with offline(house.paths.ledger) as conn:
            marks.set_mark(conn, uid, "demo", "stopped", 0.0)
        assert is_alive(*session.pane)
        await house.start()
        await event(house, "supervise", action="skipped-stopped", outcome="resume-on-start")
        await house.nothing_left()
        assert (await house.row(sent.message_id)).state == "seen"
        assert await faults(house, "ann") == 0


async def test_a_look_at_a_live_session_does_not_make_it_younger() -> None:
    async with open_house("ann", idle_s=4.0) as house:
        session = await house.live("ann")
        lane = house.lane("ann")
        await until(lambda: lane.rest.idle_s > 0.5)
        before = lane.rest.idle_s
        assert not (await house.fleet.wake("ann", None)).woke
        assert lane.rest.idle_s >= before
        await gone(house, "ann")
        assert session.id not in house.services.by_session


@pytest.mark.requirement("lifecycle:crash-loop")
async def test_faults_outlive_the_daemon_and_hold_the_peer_as_broken() -> None:
    async with open_house(
        "ann", misbehave="exit_at_start=1", boot_backoff_max_s=30.0, peers_before_broken=9
    ) as house:
        sent = await house.send("ann")
        await house.wait(sent.message_id, "broken")
        await house.close()
        await house.start()
        await until(lambda: house.lane("ann").broken)
        assert await faults(house, "ann") == rules.streak([0, 0, 0], house.settings)
        assert (await house.row(sent.message_id)).reason == "broken"
        line = await event(house, "wake", mode="refused", cause="crash-loop")
        assert "crash-loop guard" in line["reason"]
