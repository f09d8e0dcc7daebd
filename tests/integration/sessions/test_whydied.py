"""A whole daemon and its sessions: who records which end, and which ends nobody records."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable

import pytest

from iapeer.sessions.canary.marks import read_mark
from iapeer.sessions.forensics.exits import ExitLine, read
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.process import wait_gone
from iapeer.storage.ledger import postmortems
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import PostmortemRow
from tests.integration.routing.house import House, open_house, until
from tests.integration.routing.quiet import profile
from tests.integration.sessions.canary_rig import GRACE_S, recorders

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


def _lines(house: House) -> list[ExitLine]:
    return list(read(house.paths.exits_log))


def _deaths(house: House) -> list[PostmortemRow]:
    with offline_read(house.paths.ledger) as conn:
        return postmortems.newest(conn)


def _logged(house: House, event: str) -> list[str]:
    log = house.paths.lifecycle_log
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return [line for line in text.splitlines() if re.search(rf"\bev={event}\b", line)]


async def _no_record(house: House) -> None:
    await until(lambda: not recorders(house.base), "recorders to be gone")
    await asyncio.sleep(0.2)
    assert _lines(house) == []
    assert list(house.paths.server_deaths.iterdir()) == []
    assert _deaths(house) == []
    assert _logged(house, "death") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
async def test_a_killed_program_leaves_one_record_and_one_verdict(number: signal.Signals) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        assert read_mark(house.paths.canary_mark(session.id)) is not None
        os.kill(session.pane[0], number)
        (death,) = await until(lambda: _deaths(house))
        await until(lambda: not recorders(house.base), "recorders to be gone")
        (line,) = _lines(house)
        assert (line.ev, line.session) == ("session-exit", session.id)
        assert (death.what, death.watched) == ("program", True)
        # A program may catch what it can, and leave with a status of its own.
        caught = line.signal is None
        assert (line.signal or 0) == (0 if caught else int(number))
        assert death.cause == {9: "signal", 11: "crash"}.get(int(number), death.cause)
        (word,) = _logged(house, "death")
        assert f"session={session.id} cause=program-exit pid={session.pane[0]} " in word


async def test_a_killed_server_leaves_one_record_one_report_and_one_verdict() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        os.kill(session.server[0], signal.SIGKILL)
        await until(lambda: any(death.report for death in _deaths(house)), "the report")
        (line,) = _lines(house)
        assert (line.ev, line.cause) == ("server-exit", "server-vanished")
        (report,) = house.paths.server_deaths.iterdir()
        (death,) = _deaths(house)
        assert (death.cause, death.report) == ("server_killed", str(report))


async def _stop(house: House, _session: TmuxSession) -> None:
    await house.fleet.stop("ann", None)


async def _remove(house: House, _session: TmuxSession) -> None:
    await house.fleet.remove("ann", force=True)


async def _restart_and_stop(house: House, _session: TmuxSession) -> None:
    await house.close()
    await house.start()
    await house.fleet.stop("ann", None)


@pytest.mark.requirement("forensics:recorder:silent")
@pytest.mark.parametrize("end", [_stop, _remove, _restart_and_stop])
async def test_an_ordered_end_leaves_no_record(
    end: Callable[[House, TmuxSession], Awaitable[None]],
) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        await end(house, session)
        await wait_gone(*session.server, 10.0)
        await _no_record(house)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.2])
async def test_a_boot_that_is_taken_back_leaves_no_record(after_s: float) -> None:
    async with open_house("ann", misbehave="hang_at_start") as house:
        sending = asyncio.create_task(house.send("ann"))
        await until(lambda: house.lane("ann").phase == "booting", poll_s=0.001)
        await asyncio.sleep(after_s)
        await house.fleet.stop("ann", None)
        await sending
        await _no_record(house)


async def test_a_daemon_that_goes_and_comes_back_leaves_the_recorders_alone() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        before = read_mark(house.paths.canary_mark(session.id))
        await house.close()
        await house.start()
        await until(lambda: house.lane("ann").phase == "live")
        assert read_mark(house.paths.canary_mark(session.id)) == before
        assert not _logged(house, "supervise")
        assert [re.search(r"state=(\w+)", x)[1] for x in _logged(house, "canary")] == ["spawned"]  # type: ignore[index]


async def test_a_recorder_that_was_lost_meanwhile_is_replaced_and_that_is_logged_once() -> None:
    async with open_house("ann", audit_s=0.3) as house:
        session = await house.live("ann")
        mark = read_mark(house.paths.canary_mark(session.id))
        assert mark is not None
        assert mark.recorder is not None
        os.kill(mark.recorder[0], signal.SIGKILL)
        await until(lambda: len(recorders(house.base)) == 2 and _logged(house, "supervise"))
        await asyncio.sleep(1.0)
        (line,) = [x for x in _logged(house, "supervise") if "action=canary" in x]
        assert "state=spawned origin=retrofit" in line
        assert _lines(house) == []


async def test_a_program_that_dies_while_no_daemon_runs_is_judged_by_the_next_one() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        await house.close()
        os.kill(session.pane[0], signal.SIGKILL)
        await wait_gone(*session.pane, 5.0)
        await house.start()
        (death,) = await until(lambda: _deaths(house))
        (line,) = _lines(house)
        assert (line.ev, line.signal) == ("session-exit", 9)
        assert (death.cause, death.signal, death.watched) == ("signal", 9, False)


async def test_a_server_that_dies_while_no_daemon_runs_is_recorded_and_judged() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        await house.close()
        os.kill(session.server[0], signal.SIGKILL)
        await until(lambda: any(death.report for death in _deaths(house)), "the recorder")
        await house.start()
        # A message that was in its turn makes the next daemon start another session.
        await until(lambda: house.lane("ann").phase in {"asleep", "live"})
        (line,) = _lines(house)
        (death,) = _deaths(house)
        assert (line.cause, death.cause) == ("server-vanished", "server_killed")
        assert not death.watched


async def test_three_boots_that_crash_are_three_deaths_at_boot() -> None:
    async with open_house("ann", misbehave="exit_at_start=4") as house:
        sent = await house.send("ann")
        assert sent.reason == "broken"
        found = _deaths(house)
        assert {(x.what, x.cause, x.status) for x in found} == {("boot", "boot_crash", 4)}
        assert len(found) == len(await house.sessions())
        assert [line.status for line in _lines(house)] == [4] * len(found)


async def test_a_successor_within_a_second_hides_nothing() -> None:
    async with open_house("ann") as house:
        first = await house.live("ann")
        os.kill(first.server[0], signal.SIGKILL)
        second = await house.live("ann")
        assert second.id != first.id
        await until(lambda: _lines(house), timeout_s=GRACE_S + 20)
        (line,) = _lines(house)
        assert (line.session, line.cause) == (first.id, "server-vanished")
        assert read_mark(house.paths.canary_mark(second.id)) is not None


async def _new(house: House, _session: TmuxSession) -> None:
    await house.fleet.new("ann", None)
    await house.fleet.stop("ann", None)


async def _self_fresh(house: House, session: TmuxSession) -> None:
    await house.ports.own.fresh(session.id)
    await until(lambda: _logged(house, "wake")[1:], "the fresh session")
    await house.fleet.stop("ann", None)


@pytest.mark.requirement("forensics:recorder:silent")
@pytest.mark.parametrize("end", [_new, _self_fresh])
async def test_a_session_that_is_replaced_leaves_no_record(
    end: Callable[[House, TmuxSession], Awaitable[None]],
) -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        await end(house, session)
        assert await wait_gone(*session.server, 10.0)
        await _no_record(house)


@pytest.mark.requirement("forensics:recorder:silent")
async def test_a_parked_session_leaves_no_record() -> None:
    async with open_house("ann", idle_s=0.4) as house:
        session = await house.live("ann")
        assert await wait_gone(*session.server, 20.0)
        await until(lambda: any("reaped-idle" in line for line in _logged(house, "supervise")))
        await _no_record(house)


@pytest.mark.requirement("forensics:recorder:silent")
@pytest.mark.parametrize(
    ("task", "outcome"),
    [("SEND op done", "ephemeral-done"), ("NOTHING", "ephemeral-unarmed-bound")],
)
async def test_a_worker_that_is_reaped_leaves_no_record(task: str, outcome: str) -> None:
    async with open_house(
        "ann",
        before=lambda house: profile(house, "ann", wake_policy="ephemeral"),
        ephemeral_quiet_s=0.4,
        ephemeral_unarmed_idle_s=0.8,
    ) as house:
        sent = await house.send("ann", task)
        await house.wait(sent.message_id, "seen")
        await until(lambda: any(outcome in line for line in _logged(house, "supervise")))
        await _no_record(house)
