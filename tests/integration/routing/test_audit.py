"""The regular look at everything: quick, no process, never beside itself."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

import msgspec
import pytest

from iapeer.core.profile import RegistryRecord
from iapeer.registry.index import Registry
from tests.integration.routing.house import House, open_house

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

CAT = 'id = "cat"\n[launch]\nargv = ["cat"]\n[screen]\nready = []\n'
REGISTERED, LIVE = 1000, 50
LIMIT_S = 0.020
ROUNDS = 30


def _crowd(house: House) -> None:
    house.runtime("cat", CAT)
    house.create(*(f"live{n}" for n in range(LIVE)), runtime="cat")
    registry = Registry(house.paths, sandbox=True)
    one = registry.snapshot().require("live0")

    def add(records: dict[str, RegistryRecord]) -> None:
        for n in range(REGISTERED - LIVE):
            name = f"asleep{n}"
            records[name] = msgspec.structs.replace(one, personality=name, uid=f"{n:032x}")

    registry.change(add)


@pytest.mark.slow
@pytest.mark.requirement("lifecycle:audit")
async def test_a_thousand_peers_are_audited_in_20_ms_without_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house(before=_crowd, boot_limit=8) as house:
        await asyncio.gather(*(house.fleet.wake(f"live{n}", None) for n in range(LIVE)))
        assert len(house.services.by_session) == LIVE
        assert len(await house.fleet.peers()) == REGISTERED + 1

        def no_process(*args: object, **_more: object) -> None:
            raise AssertionError(f"the audit started a process: {args}")

        monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
        monkeypatch.setattr(subprocess, "Popen", no_process)
        asked = _count_requests(house, monkeypatch)
        took = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await house.lanes.audit()
            took.append(time.perf_counter() - began)
        await asyncio.sleep(0.2)
        assert sorted(took)[ROUNDS // 2] < LIMIT_S, took
        assert asked == []
        assert len(house.services.by_session) == LIVE


def _count_requests(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count what terminals are asked."""
    from iapeer.sessions.tmux.server import TmuxServer

    asked: list[str] = []
    request = TmuxServer._request

    async def counted(self: TmuxServer, commands: Any) -> list[str]:
        asked.append(str(commands))
        return await request(self, commands)

    monkeypatch.setattr(TmuxServer, "_request", counted)
    return asked


async def test_two_audits_never_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house("ann") as house:
        running, most = 0, 0
        expire = house.lanes._expire

        async def slow() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            await expire()
            running -= 1

        monkeypatch.setattr(house.lanes, "_expire", slow)
        await asyncio.gather(*(house.lanes.audit() for _ in range(5)))
        assert most == 1
        await house.lanes.audit()
        assert running == 0
