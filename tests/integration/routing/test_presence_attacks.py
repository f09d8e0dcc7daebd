"""Presence under attack: the daemon dies in the middle of every verb, orders cross, the disk fills.

Whatever happens: one session at most, nothing lost, nothing shown twice without its mark, and no
process left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.envelope import decode
from iapeer.core.errors import IapeerError, LaunchFailed, StorageError
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger import marks
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths, profile_path
from iapeer.testing.daemon import TestDaemon, wait_until
from tests.integration.routing.house import WAIT_S, House, open_house, until
from tests.integration.routing.quiet import event, events, faults, gone, marks_of
from tests.integration.routing.quiet import profile as set_profile
from tests.integration.routing.test_bad_disk import full_disk

pytestmark = [pytest.mark.real_tmux]

SETTINGS = {
    "evidence_s": 1.0,
    "boot_backoff_s": 0.05,
    "boot_backoff_max_s": 0.3,
    "ephemeral_quiet_s": 0.3,
    "ephemeral_unarmed_idle_s": 60.0,
    "wait_live_s": 0.0,
    "wait_waking_s": 0.0,
    "audit_s": 60.0,
}
PARKS_SOON = {env.IDLE_SECS: "0.6"}


class Victim:
    """A real daemon with one agent `ann`, to be killed at a point of our choice."""

    def __init__(self, daemon: TestDaemon) -> None:
        self.daemon = daemon
        self.paths = Paths(daemon.root)
        daemon.root.mkdir(mode=0o700)
        lines = [f"{name} = {value}" for name, value in SETTINGS.items()]
        (daemon.root / "iapeer.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        daemon.create("ann")
        daemon.create("op", runtime="api")

    def ephemeral(self) -> None:
        path = profile_path(self.paths.peer_home("ann"))
        known = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**known, "wake_policy": "ephemeral"}), encoding="utf-8")

    def say(self, text: str, **more: Any) -> str:
        return str(self.daemon.send("ann", text, "api-op", **more)["message_id"])

    def said(self, text: str, **more: Any) -> str:
        """Send, and wait until it was read."""
        sent = self.say(text, **more)
        self.daemon.wait_state(sent, "seen")
        return sent

    def dies_at(self, point: str, act: Callable[[], Any], **variables: str) -> None:
        """Restart the daemon so that it dies at a point, act, and wait until it is dead."""
        self.daemon.stop()
        self.daemon.start(**{env.FAULT: point}, **variables)
        acting = threading.Thread(target=_unheard, args=(act,))
        acting.start()
        assert self.daemon.process is not None
        assert self.daemon.process.wait(timeout=60) == -signal.SIGKILL
        acting.join(30)
        assert not acting.is_alive()
        assert len(self.live()) <= 1

    def live(self) -> list[SessionRow]:
        """Sessions that the ledger says live."""
        with offline_read(self.paths.ledger) as conn:
            return [row for row in rows.live_sessions(conn) if row.socket]

    def session(self) -> SessionRow:
        """Return the one session that lives, when it is ready and its program runs."""

        def look() -> SessionRow | None:
            found = [row for row in self.live() if row.ready_at is not None]
            return found[0] if len(found) == 1 and _runs(found[0]) else None

        found: SessionRow = wait_until(look, reason="one live session")
        return found

    def marks(self) -> dict[str, str]:
        with offline_read(self.paths.ledger) as conn:
            found = marks.marks_of(conn, rows.all_sessions(conn)[0].uid, "demo")
        return {mark.mark: mark.value for mark in found}

    def log(self, ev: str) -> list[dict[str, str]]:
        """Return the lines of one event in lifecycle.log."""
        text = self.paths.lifecycle_log.read_text(encoding="utf-8")
        found = [dict(w.split("=", 1) for w in shlex.split(line)) for line in text.splitlines()]
        return [line for line in found if line["ev"] == ev]

    def token(self) -> str:
        """Read the token of the live session out of its program, as its own account can."""
        data = Path(f"/proc/{self.session().pane_pid}/environ").read_bytes()
        pairs = dict(word.split(b"=", 1) for word in data.split(b"\0") if b"=" in word)
        return pairs[b"PEER_TOKEN"].decode()

    def shown(self, text: str) -> list[bool]:
        """Return for each time that a text was shown whether it was marked."""
        found = []
        for prompt in self.daemon.prompts("ann"):
            envelope = decode(prompt)
            if envelope.body == text:
                found.append(envelope.dup == "maybe")
        return found

    def ends_clean(self) -> None:
        """Stop everything: no process of this root is left."""
        if self.daemon.process is None or self.daemon.process.poll() is not None:
            self.daemon.start()
        self.daemon.run("stop", "--all")
        assert self.daemon.stop() == 0
        wait_until(lambda: not self.processes(), 15, "all processes to end")
        assert self.live() == []

    def processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if str(self.daemon.base) in line and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(line)
        return found


def _runs(row: SessionRow) -> bool:
    return bool(row.pane_pid and row.pane_start and is_alive(row.pane_pid, int(row.pane_start)))


def _unheard(act: Callable[[], Any]) -> None:
    """Do something that the daemon may not live to answer."""
    with contextlib.suppress(hot.DaemonUnreachable, hot.BadAnswer):
        act()


@pytest.fixture
def victim(iapeer_daemon: TestDaemon) -> Victim:
    return Victim(iapeer_daemon)


# -- killed in the middle ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:killed")
@pytest.mark.parametrize("point", ["leave.parked", "leave.settled", "leave.killed"])
def test_a_daemon_killed_in_mid_park_goes_on_with_the_conversation(
    victim: Victim, point: str
) -> None:
    victim.daemon.start()
    victim.said("NOTHING\nfirst", topic="one")
    first = victim.session()
    victim.dies_at(point, lambda: None, **PARKS_SOON)
    victim.daemon.start()
    victim.said("NOTHING\nsecond", topic="one")
    now = victim.session()
    assert (now.id == first.id) == (point != "leave.killed")
    if now.id != first.id:
        wake = victim.log("wake")[-1]
        assert (wake["cause"], wake["ref"]) == ("idle-reaped-resume", first.native_id)
    assert victim.shown("NOTHING\nsecond") == [False]
    assert victim.shown("NOTHING\nfirst") == [False]
    # Whatever lives is not parked: a later crash must not pass for a clean end.
    assert "parked" not in victim.marks()
    os.kill(now.pane_pid or 0, signal.SIGKILL)
    wait_until(lambda: not victim.live(), reason="the death to be settled")
    victim.said("NOTHING\nthird", topic="one")
    assert victim.log("wake")[-1]["cause"] == "crash-or-self-close"
    victim.ends_clean()


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:killed")
@pytest.mark.parametrize(
    "point", ["leave.settled", "leave.killed", "new.ended", "launch.born", "launch.ready"]
)
def test_a_daemon_killed_in_mid_new_loses_no_message(victim: Victim, point: str) -> None:
    victim.daemon.start()
    go = victim.daemon.base / "go"
    victim.said(f"HOLD {go}")
    waiting = victim.say("NOTHING\nwaits")
    victim.daemon.wait_state(waiting, "landed")
    old = victim.session()
    new = lambda: victim.daemon.ask("POST", "/api/v1/peers/ann/new", {})  # noqa: E731
    victim.dies_at(point, new)
    go.touch()
    victim.daemon.start()
    victim.daemon.wait_state(waiting, "seen")
    now = victim.session()
    assert _runs(old) == (now.id == old.id)
    assert victim.shown("NOTHING\nwaits").count(False) <= 1
    if now.id != old.id:
        assert now.mode == "fresh"
        # It was in the old session's queue, which is gone: it was shown once, and marked.
        assert victim.shown("NOTHING\nwaits") == [True]
    assert not {"stopped", "parked"} & set(victim.marks())
    victim.ends_clean()


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:killed", "lifecycle:self")
@pytest.mark.parametrize(
    "point", ["leave.settled", "leave.killed", "renew.ended", "launch.born", "launch.ready"]
)
def test_a_daemon_killed_in_mid_self_fresh_still_replaces_the_session(
    victim: Victim, point: str
) -> None:
    victim.daemon.start()
    victim.said("NOTHING\nfirst")
    old = victim.session()
    token = victim.token()
    own = lambda: victim.daemon.run("self-fresh", PEER_TOKEN=token, PEER_IDENTITY="demo-ann")  # noqa: E731
    victim.dies_at(point, own)
    victim.daemon.start()
    wait_until(lambda: "new_eager" not in victim.marks(), reason="the wish to be fulfilled")
    now = victim.session()
    assert now.id != old.id
    assert now.mode == "fresh"
    assert not _runs(old)
    ready = [line for line in victim.log("ready") if line["session"] != old.id]
    assert len(ready) <= 1 + (point == "launch.ready")
    victim.said("NOTHING\nsecond")
    assert victim.session().id == now.id
    victim.ends_clean()


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:killed")
def test_a_refresh_that_was_answered_outlives_the_daemon_and_ends_nothing(victim: Victim) -> None:
    victim.daemon.start()
    victim.said("NOTHING\nfirst", topic="one")
    old = victim.session()
    victim.daemon.run("refresh", "ann")
    victim.daemon.kill()
    victim.daemon.start()
    victim.said("NOTHING\nsecond", topic="one")
    assert victim.session().id == old.id
    victim.daemon.run("stop", "ann")
    victim.daemon.run("start", "ann")
    victim.said("NOTHING\nthird", topic="one")
    assert victim.log("wake")[-1]["cause"] == "soft-reload"
    assert "fresh_next" not in victim.marks()
    victim.ends_clean()


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:killed", "lifecycle:control")
@pytest.mark.parametrize("point", ["stop.marked", "leave.parked", "leave.settled", "leave.killed"])
def test_a_stop_that_the_daemon_died_in_is_carried_out(victim: Victim, point: str) -> None:
    victim.daemon.start()
    victim.said("NOTHING\nfirst", topic="one")
    first = victim.session()
    stop = lambda: victim.daemon.ask("POST", "/api/v1/peers/ann/stop", {})  # noqa: E731
    victim.dies_at(point, stop)
    victim.daemon.start()
    wait_until(lambda: not victim.live(), reason="the stop to be finished")
    assert not _runs(first)
    assert "stopped" in victim.marks()
    victim.daemon.run("start", "ann")
    victim.said("NOTHING\nsecond", topic="one")
    wake = victim.log("wake")[-1]
    assert (wake["cause"], wake["ref"]) == ("idle-reaped-resume", first.native_id)
    victim.ends_clean()


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:killed", "lifecycle:ephemeral:once")
@pytest.mark.parametrize(
    "point",
    [
        "launch.opened",
        "launch.ready",
        "delivery.journalled",
        "delivery.landed",
        "leave.settled",
        "leave.killed",
    ],
)
def test_a_daemon_killed_in_mid_drain_goes_on_with_the_queue_in_order(
    victim: Victim, point: str
) -> None:
    victim.ephemeral()
    victim.daemon.start()
    tasks = [f"SEND op result {n}" for n in range(3)]

    def send() -> None:
        for n, task in enumerate(tasks):
            victim.daemon.send("ann", task, "api-op", key=f"k{n}")

    victim.dies_at(point, send)
    victim.daemon.start()
    send()
    wait_until(lambda: all(victim.shown(task) for task in tasks), 30, "all tasks to be shown")
    wait_until(lambda: not victim.live(), 10, "the last session to end at its quiet window")
    first_shown = [decode(prompt).body for prompt in victim.daemon.prompts("ann")]
    assert list(dict.fromkeys(first_shown)) == tasks
    assert all(victim.shown(task).count(False) <= 1 for task in tasks)
    # Only one that may have been shown before is shown again.
    assert len(first_shown) == len(tasks)
    wait_until(lambda: not {"task", "armed", "parked"} & set(victim.marks()), 5, "no marks")
    victim.ends_clean()


# -- orders that cross ------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.requirement("lifecycle:crossing")
async def test_two_new_at_once_leave_one_session_and_both_are_answered() -> None:
    async with open_house("ann") as house:
        old = await house.live("ann")
        calls = [house.fleet.new("ann", None) for _ in range(2)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failures = [one for one in answers if isinstance(one, BaseException)]
        assert len(failures) <= 1
        assert all(isinstance(one, LaunchFailed) for one in failures), failures
        await _one_session(house, not_this=old.id)
        assert await faults(house, "ann") == 0


@pytest.mark.anyio
@pytest.mark.requirement("lifecycle:crossing", "lifecycle:control")
@pytest.mark.parametrize("when", ["at once", "in mid-boot"])
async def test_a_stop_during_new_wins_and_leaves_nothing(when: str) -> None:
    async with open_house("ann", misbehave="slow_start=2") as house:
        await house.live("ann")
        new = asyncio.create_task(house.fleet.new("ann", None))
        if when == "in mid-boot":
            await event(house, "wake", 2)
            await until(lambda: list(house.settings.sock_dir.glob("*.sock")))
        else:
            await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_S):
            assert await house.fleet.stop("ann", None) == {"demo": "stopped"}
        with pytest.raises(LaunchFailed, match="stopped"):
            await new
        await house.nothing_left()
        assert await faults(house, "ann") == 0
        assert "stopped" in await marks_of(house, "ann")


@pytest.mark.anyio
@pytest.mark.requirement("lifecycle:crossing")
async def test_messages_sent_during_new_and_stop_are_held_or_delivered_once() -> None:
    async with open_house("ann", wait_waking_s=0.0, wait_live_s=0.0) as house:
        await house.live("ann")
        # The stop finds the new session in its boot.
        house.launch_env("ann", "DEMO_MISBEHAVE=hang_at_start\n")
        new = asyncio.create_task(house.fleet.new("ann", None))
        sent = [(await house.send("ann", f"NOTHING\n{n}")).message_id for n in range(3)]
        await house.fleet.stop("ann", None)
        with pytest.raises(LaunchFailed):
            await new
        for message_id in sent:
            row = await house.row(message_id)
            assert row.state == "seen" or row.reason == "stopped", row
        house.launch_env("ann", "")
        await house.fleet.start("ann", None)
        for message_id in sent:
            await house.wait(message_id, "seen")
        bodies = [body for body in house.bodies("ann") if body != "NOTHING"]
        assert list(dict.fromkeys(bodies)) == [f"NOTHING\n{n}" for n in range(3)]


async def _one_session(house: House, not_this: str) -> None:
    """There is one session, of which the ledger, the lane and the machine know alike."""
    session = await until(lambda: house.lane("ann").session)
    assert session.id != not_this
    assert [row.id for row in await house.live_rows()] == [session.id]
    assert [pair for pair in house.processes() if is_alive(*pair)] == [
        session.server,
        session.pane,
    ]


# -- clocks and disks -------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_a_clock_that_jumps_neither_cuts_a_task_off_nor_keeps_a_worker(
    jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worker(house: House) -> None:
        set_profile(house, "ann", wake_policy="ephemeral")

    async with open_house("ann", before=worker, ephemeral_quiet_s=0.5) as house:
        first = await house.send("ann", "SEND op early\nSLOW 2")
        second = await house.send("ann", "SEND op second")
        await house.wait(first.message_id, "seen")
        now = house.services.clock.now
        monkeypatch.setattr(house.services.clock, "now", lambda: now() + jump_s)
        house.lane("ann").work()
        await house.lanes.audit()
        await house.wait(second.message_id, "seen")
        ends = await house.services.ledger.read(
            lambda c: c.execute(
                "SELECT turn_end FROM turns WHERE message_id = ?", (first.message_id,)
            ).fetchall()
        )
        assert ends == [("done",)]
        await event(house, "supervise", 2, outcome="ephemeral-done")
        assert len(house.bodies("ann")) == 2


@pytest.mark.anyio
async def test_a_clock_that_jumps_back_does_not_hold_a_faulty_peer_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann", misbehave="exit_at_start=1") as house:
        sent = await house.send("ann")
        await house.wait(sent.message_id, "broken")
        house.launch_env("ann", "")
        now = house.services.clock.now
        monkeypatch.setattr(house.services.clock, "now", lambda: now() - 86_400)
        await house.wait(sent.message_id, "seen")


@pytest.mark.anyio
@pytest.mark.requirement("lifecycle:full-disk")
async def test_a_word_that_the_disk_refuses_is_refused_and_does_not_arm() -> None:
    def worker(house: House) -> None:
        set_profile(house, "ann", wake_policy="ephemeral")

    async with open_house(
        "ann", before=worker, ephemeral_quiet_s=0.3, ephemeral_unarmed_idle_s=60.0
    ) as house:
        sent = await house.send("ann", "NOTHING")
        await house.wait(sent.message_id, "seen")
        session = house.session("ann")
        with full_disk(house):
            with pytest.raises(StorageError):
                await house.ports.own.done(session.id)
            with pytest.raises(IapeerError):
                await house.send("op", "result", sender="demo-ann")
        assert not await house.lane("ann").journal.armed(session.id)
        house.lane("ann").work()
        await asyncio.sleep(0.6)
        assert house.lane("ann").session is session
        await house.ports.own.done(session.id)
        await event(house, "supervise", outcome="ephemeral-done")
        await gone(house, "ann")


@pytest.mark.anyio
@pytest.mark.requirement("lifecycle:full-disk")
async def test_a_park_that_the_disk_refuses_is_done_when_it_takes_writes_again() -> None:
    async with open_house("ann", idle_s=0.5) as house:
        session = await house.live("ann")
        with full_disk(house) as refused:
            await until(lambda: len(refused) >= 3, "the park to be refused")
            assert house.lane("ann").session is session
            assert is_alive(*session.pane)
        await event(house, "supervise", action="reaped-idle")
        await gone(house, "ann")
        await house.nothing_left()
        assert "parked" in await marks_of(house, "ann")
        assert len(events(house, "end")) == 1


@pytest.mark.anyio
@pytest.mark.requirement("lifecycle:full-disk")
@pytest.mark.parametrize("wake_policy", ["persistent", "ephemeral"])
async def test_a_deliberate_end_that_the_disk_does_not_take_is_no_fault(wake_policy: str) -> None:
    def policy(house: House) -> None:
        set_profile(house, "ann", wake_policy=wake_policy)

    async with open_house(
        "ann", before=policy, idle_s=0.5, ephemeral_quiet_s=0.5, ephemeral_unarmed_idle_s=0.5
    ) as house:
        session = await house.live("ann")
        end_session = rows.end_session
        refused: list[tuple[Any, ...]] = []

        def refuse_twice(*args: Any) -> bool:
            if len(refused) < 2:
                refused.append(args)
                raise StorageError("the ledger: disk full", code="disk_full")
            return end_session(*args)

        with mock.patch.object(rows, "end_session", refuse_twice):
            await gone(house, "ann")
        assert len(refused) == 2
        assert not is_alive(*session.pane)
        await house.nothing_left()
        assert await faults(house, "ann") == 0
        assert ("parked" in await marks_of(house, "ann")) == (wake_policy == "persistent")
        assert len(house.bodies("ann")) == 1
