"""A runtime that a bad update has broken is not started by the whole fleet again and again."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.routing.house import House, open_house, until
from tests.integration.routing.quiet import event, events

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

PEERS = tuple(f"p{n:02}" for n in range(20))
EACH = 10
MOST_BOOTS = 12
"""Three prove that the runtime is broken, three more were starting by then, the rest are probes."""


async def _send_all(house: House) -> list[str]:
    results = await asyncio.gather(
        *(house.send(peer, f"NOTHING\n{n}") for n in range(EACH) for peer in PEERS)
    )
    return [result.message_id for result in results]


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:crash-loop", "lifecycle:host-budget")
async def test_a_broken_runtime_costs_few_boots_and_one_notice_and_loses_nothing() -> None:
    async with open_house(
        # So long that nobody is probed again while the test looks.
        *PEERS,
        misbehave="exit_at_start=1",
        boot_backoff_max_s=300.0,
        wait_waking_s=15.0,
    ) as house:
        ids = await _send_all(house)
        await event(house, "runtime-broken")
        await asyncio.sleep(1.0)
        boots = len(await house.sessions())
        assert boots <= MOST_BOOTS
        rows = [await house.row(message_id) for message_id in ids]
        assert {(row.state, row.reason) for row in rows} == {("held", "broken")}
        (notice,) = events(house, "runtime-broken")
        assert notice["runtime"] == "demo"
        assert "ended during boot" in notice["reason"]
        problems = (await house.fleet.status())["problems"]
        (problem,) = [text for text in problems if text.startswith("runtime demo fails to start")]
        assert "iapeer start --all" in problem
        shown = {status for peer in await house.fleet.peers() for status in peer.statuses.values()}
        assert "broken" in shown

        # A new daemon does not begin the same misery anew.
        await house.close()
        await house.start()
        await asyncio.sleep(0.5)
        assert len(await house.sessions()) <= boots + 2

        for peer in PEERS:
            house.launch_env(peer, "")
        for peer in PEERS:
            await house.fleet.start(peer, None)
        for message_id in ids:
            await house.wait(message_id, "seen", timeout_s=90)
        assert all(len(house.prompts(peer)) == EACH for peer in PEERS)
        assert "fails to start" not in str((await house.fleet.status())["problems"])


async def test_one_good_probe_sets_every_peer_of_the_runtime_free() -> None:
    async with open_house(
        "ann", "bob", "cyd", misbehave="exit_at_start=1", boot_backoff_max_s=3.0
    ) as house:
        sent = [await house.send(peer) for peer in ("ann", "bob", "cyd")]
        await event(house, "runtime-broken")
        for peer in ("ann", "bob", "cyd"):
            house.launch_env(peer, "")
        for one in sent:
            await house.wait(one.message_id, "seen")
        await event(house, "runtime-mended", cause="came-up")


@pytest.mark.requirement("lifecycle:host-budget")
async def test_a_boot_that_is_put_off_is_no_wake_in_the_log() -> None:
    peers = tuple(f"p{n}" for n in range(6))
    async with open_house(
        *peers, misbehave="exit_at_start=1", boot_limit=1, boot_backoff_max_s=60.0,
        boot_backoff_s=60.0, wait_waking_s=0.2,
    ) as house:  # fmt: skip
        sent = [await house.send(peer) for peer in peers]
        await house.wait(sent[-1].message_id, "broken")
        booted = [row.personality for row in await house.sessions()]
        assert "p5" not in booted
        begun = [line["personality"] for line in events(house, "wake", mode="fresh")]
        assert sorted(begun) == sorted(booted)
        assert len(events(house, "wake", mode="refused", personality="p5")) == 1


async def test_a_peer_whose_own_folder_is_at_fault_breaks_nobody_else() -> None:
    async with open_house("ann", "bob") as house:
        house.launch_env("ann", "DEMO_MISBEHAVE=exit_at_start=1\n")
        sent = await house.send("ann")
        await house.wait(sent.message_id, "broken")
        other = await house.send("bob")
        await house.wait(other.message_id, "seen")
        assert events(house, "runtime-broken") == []
        await until(lambda: house.lane("ann").broken)
