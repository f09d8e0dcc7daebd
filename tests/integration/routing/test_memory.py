"""A memory provider that is asked by a running daemon."""

from __future__ import annotations

import asyncio
import json

import psutil
import pytest

from iapeer.storage.paths import Paths
from tests.integration.routing.house import WAIT_S, House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


def hold(house: House, script: str) -> None:
    """Put a provider into the slot whose program runs `script`."""
    paths = Paths(house.root)
    program = paths.root / "provider"
    program.write_text(f"#!/bin/sh\ncd '{paths.root}'\n{script}\n", encoding="utf-8")
    program.chmod(0o700)
    command = {"command": str(program), "args": ["{runtime}", "{personality}", "{occasion}"]}
    slot = {"provider": "mem", "package": "p", "version": "1", "unprovision": command}
    paths.memory_slot.write_text(json.dumps(slot), encoding="utf-8")


def logged(house: House) -> list[str]:
    lines = Paths(house.root).lifecycle_log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if " ev=memory-provision " in line]


@pytest.mark.requirement("memory:removal", "memory:provision:log")
async def test_a_removal_by_the_daemon_asks_the_provider_and_the_loop_goes_on() -> None:
    async with open_house() as house:
        house.create("ann", runtime="claude")
        hold(house, "echo $* > asked; while [ ! -e go ]; do sleep 0.05; done; echo bad >&2; exit 3")
        root = Paths(house.root).root
        removal = asyncio.create_task(house.fleet.remove("ann", force=False))
        await until((root / "asked").exists)
        # While the provider works, others are served.
        async with asyncio.timeout(WAIT_S):
            await house.fleet.peers()
        assert not removal.done()
        (root / "go").touch()
        done = await asyncio.wait_for(removal, WAIT_S)
        assert (done["action"], done["memory"]) == ("removed", [])
        assert done["warnings"] == ["MEMORY UNPROVISION of claude: failed (exit 3): bad"]
        assert (root / "asked").read_text(encoding="utf-8") == "claude ann remove\n"
        (line,) = logged(house)
        assert " identity=claude-ann occasion=remove state=failed exit=3 ms=" in line
        assert line.endswith(" detail=bad")


@pytest.mark.requirement("memory:provision:limit")
async def test_a_daemon_that_goes_down_does_not_wait_for_the_provider() -> None:
    async with open_house() as house:
        house.create("ann", runtime="claude")
        hold(house, "echo $$ > new; mv new asked; exec sleep 300")
        root = Paths(house.root).root
        removal = asyncio.create_task(house.fleet.remove("ann", force=False))
        await until((root / "asked").exists)
        pid = int((root / "asked").read_text(encoding="utf-8"))
        removal.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removal
        await until(lambda: not psutil.pid_exists(pid))
        (line,) = logged(house)
        assert "identity=claude-ann occasion=remove state=timeout" in line
