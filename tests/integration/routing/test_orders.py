"""What people and sessions order: new, launch, attach, refresh, self-fresh; the seed comes once."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from iapeer.core.errors import ControlRefused, IapeerError, LaunchFailed, SendRefused, Unauthorized
from iapeer.host.presence import offline_fresh
from iapeer.registry.units import SENTINEL, unit_path
from tests.integration.routing.house import WAIT_S, House, open_house, until
from tests.integration.routing.quiet import event, events, faults, gone, marks_of, profile

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

SEED = "You are ann.\nRead the notes first."


def _seeded(house: House) -> None:
    profile(house, "ann", initial_prompt=SEED)


def _one_line(house: House) -> None:
    profile(house, "ann", initial_prompt="SAY seed")


async def _replaced(house: House, old: str) -> None:
    """Wait until another session than this one lives."""

    def look() -> bool:
        session = house.lane("ann").session
        return session is not None and session.id != old

    await until(look)


async def _prompted(house: House, count: int, name: str = "ann") -> list[str]:
    await until(lambda: len(house.prompts(name)) >= count)
    return house.prompts(name)


@pytest.mark.parametrize("begin", ["new", "launch", "wake"])
@pytest.mark.parametrize("seed", [_seeded, _one_line])
@pytest.mark.requirement("lifecycle:seed")
async def test_a_fresh_session_without_a_message_is_told_its_seed_once(
    begin: str, seed: Any
) -> None:
    async with open_house("ann", before=seed) as house:
        await getattr(house.fleet, begin)("ann", None)
        (first,) = await _prompted(house, 1)
        assert "<iap" not in first
        sent = await house.send("ann", "NOTHING\nafter")
        await house.wait(sent.message_id, "seen")
        prompts = house.prompts("ann")
        assert len(prompts) == 2
        assert prompts[1].startswith("<iap ")


async def test_a_seed_that_a_message_overtakes_comes_with_it_and_only_once() -> None:
    async with open_house("ann", before=_seeded) as house:
        waiting = asyncio.create_task(house.fleet.new("ann", None))
        sent = await house.send("ann", "NOTHING\nfirst")
        await waiting
        await house.wait(sent.message_id, "seen")
        await asyncio.sleep(0.3)
        text = "".join(house.prompts("ann"))
        assert text.count("Read the notes first.") == 1


async def test_a_seed_waits_for_a_draft_and_outlives_the_daemon() -> None:
    async with open_house("ann", misbehave="slow_start=1", before=_one_line) as house:
        booting = asyncio.create_task(house.fleet.new("ann", None))
        await booting
        await _prompted(house, 1)
        await house.close()
        await house.start()
        await house.live("ann")
        assert [p for p in house.prompts("ann") if "seed" in p] == ["SAY seed"]


async def test_new_starts_a_stopped_peer_forgets_its_park_and_ends_what_runs() -> None:
    async with open_house("ann") as house:
        old = await house.live("ann")
        await house.fleet.stop("ann", None)
        assert await house.fleet.new("ann", None) == "demo-ann"
        new = house.session("ann")
        assert new.id != old.id
        assert not {"stopped", "parked"} & set(await marks_of(house, "ann"))
        assert events(house, "wake")[-1]["cause"] == "folder-launch"
        assert await house.fleet.new("ann", None) == "demo-ann"
        assert house.session("ann").id != new.id
        assert await faults(house, "ann") == 0


async def test_new_of_a_program_that_does_not_come_up_says_why() -> None:
    async with open_house("ann", misbehave="exit_at_start=3") as house:
        with pytest.raises(LaunchFailed, match="ended during boot"):
            await house.fleet.new("ann", None)
        with pytest.raises(IapeerError, match="not declared"):
            await house.fleet.new("ann", "codex")


async def test_launch_leaves_a_session_that_lives() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        point = await house.fleet.launch("ann", None)
        assert (point.woke, house.session("ann").id) == (False, session.id)
        await house.fleet.stop("ann", None)
        with pytest.raises(SendRefused, match="is stopped"):
            await house.fleet.launch("ann", None)


async def test_launch_is_fresh_whatever_was_parked() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", topic="one")
        await house.wait(sent.message_id, "seen")
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        assert (await house.fleet.launch("ann", None)).woke
        assert events(house, "wake")[-1]["mode"] == "fresh"
        assert "parked" not in await marks_of(house, "ann")


@pytest.mark.requirement("lifecycle:self")
async def test_a_session_that_wants_to_begin_anew_is_replaced_at_once_and_no_fault() -> None:
    async with open_house("ann", before=_one_line) as house:
        old = await house.live("ann")
        for _ in range(4):
            old = await house.live("ann")
            answer = await house.ports.own.fresh(old.id)
            assert answer.identity == "demo-ann"
            await _replaced(house, old.id)
        assert await faults(house, "ann") == 0

        async def forgotten() -> bool:
            return "new_eager" not in await marks_of(house, "ann")

        # The wish is forgotten after the successor is there, so that a kill in between renews it.
        await until(forgotten)
        assert len(events(house, "supervise", outcome="eager-fresh")) == 4
        with pytest.raises(Unauthorized):
            await house.ports.own.fresh(old.id)


async def test_a_wish_left_while_no_daemon_ran_is_fulfilled() -> None:
    async with open_house("ann") as house:
        old = await house.live("ann")
        with open(f"/proc/{old.pane[0]}/environ", "rb") as file:  # noqa: PTH123
            pairs = dict(p.split(b"=", 1) for p in file.read().split(b"\0") if b"=" in p)
        await house.close()
        environ = {**house.environ, "PEER_TOKEN": pairs[b"PEER_TOKEN"].decode()}
        offline_fresh(house.settings, environ)
        with pytest.raises(Unauthorized):
            offline_fresh(house.settings, {**house.environ, "PEER_TOKEN": "x" * 43})
        await house.start()
        await _replaced(house, old.id)
        assert events(house, "wake")[-1]["cause"] == "folder-launch"

        async def cleared() -> bool:
            return "new_eager" not in await marks_of(house, "ann")

        await until(cleared)


async def test_attach_without_a_runtime_takes_what_lives_then_what_lived_last() -> None:
    async with open_house("ann") as house:
        assert (await house.fleet.wake("ann", None)).identity == "demo-ann"
        assert not (await house.fleet.wake("ann", None)).woke
        # Whoever asks where to attach has not attached yet.
        assert events(house, "attach") == []


# -- the service manager's own ------------------------------------------------------------------


def _unit(house: House, text: str) -> None:
    path = unit_path(house.settings.units_dir, "ann")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(f"[Unit]\nDescription=ann\n{text}\n", encoding="utf-8")


@pytest.mark.requirement("lifecycle:managed")
@pytest.mark.parametrize(("text", "code"), [(SENTINEL, "service_managed"), ("", "foreign_unit")])
async def test_a_peer_of_the_service_manager_is_only_read_and_delivered_to(
    text: str, code: str
) -> None:
    async with open_house("ann", idle_s=0.4) as house:
        with house.awake("ann"):
            session = await house.live("ann")
            _unit(house, text)
        sent = await house.send("ann", "NOTHING\nread")
        await house.wait(sent.message_id, "seen")
        await asyncio.sleep(1.0)
        assert house.lane("ann").session is session
        for verb in ("new", "compact", "stop", "start"):
            with pytest.raises(ControlRefused, match="is launchd-managed") as refused:
                await getattr(house.fleet, verb)("ann", None)
            assert refused.value.code == code
        os.kill(session.pane[0], signal.SIGKILL)
        await gone(house, "ann")
        held = await house.send("ann", "NOTHING\nlater")
        assert (held.state, held.reason) == ("held", "offline")
        with pytest.raises(ControlRefused, match="is launchd-managed"):
            await house.fleet.wake("ann", None)
        assert events(house, "wake", mode="refused", cause="launchd-managed")
        assert house.lane("ann").session is None
        unit_path(house.settings.units_dir, "ann").unlink()
        house.lane("ann").work()
        await house.wait(held.message_id, "seen")


async def test_a_worker_of_the_service_manager_takes_no_tasks() -> None:
    async with open_house("ann") as house:
        profile(house, "ann", wake_policy="ephemeral")
        _unit(house, SENTINEL)
        with pytest.raises(SendRefused, match="is launchd-managed; message NOT delivered"):
            await house.send("ann")
        assert await house.count() == 0


# -- orders overtake work -----------------------------------------------------------------------


async def _stop_in_time(house: House) -> None:
    async with asyncio.timeout(WAIT_S):
        assert await house.fleet.stop("ann", None) == {"demo": "stopped"}
    assert house.lane("ann").session is None
    await until(lambda: not house.leftovers(), "all processes to end")


@pytest.mark.requirement("lifecycle:control")
async def test_stop_takes_effect_in_mid_boot() -> None:
    async with open_house("ann", misbehave="hang_at_start", boot_deadline_s=300.0) as house:
        call = asyncio.create_task(house.send("ann"))
        await event(house, "wake")
        await until(lambda: list(house.settings.sock_dir.glob("*.sock")))
        await _stop_in_time(house)
        assert (await call).reason == "stopped"


@pytest.mark.requirement("lifecycle:control")
async def test_stop_takes_effect_in_mid_hold() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        house.type("ann", "a draft")
        await house.drawn("ann", "a draft")
        held = await house.send("ann")
        assert held.reason == "composer"
        await _stop_in_time(house)
        assert (await house.row(held.message_id)).reason == "stopped"


@pytest.mark.requirement("lifecycle:control")
async def test_stop_takes_effect_in_mid_compact() -> None:
    async with open_house("ann", misbehave="never_compacts") as house:
        await house.live("ann")
        compact = asyncio.create_task(house.fleet.compact("ann", None))
        await until(lambda: house.lane("ann").controls.compacting)
        await asyncio.sleep(0.6)
        await _stop_in_time(house)
        with pytest.raises(ControlRefused, match="the session ended: stopped"):
            await compact
