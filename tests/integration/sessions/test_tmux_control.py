from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iapeer.sessions.tmux.command import Command
from iapeer.sessions.tmux.control import ControlClient, ControlLost
from iapeer.sessions.tmux.server import Mode, TmuxServer

from .conftest import ENV, Rig, shown

pytestmark = pytest.mark.real_tmux

HOSTILE = st.lists(
    st.sampled_from(
        ["'", '"', "$HOME", "#{pid}", "#(id)", ";", "\\", "\n", "~", "{", "}", "%1", "é"]
    )
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("mode", ["auto", "exec"])
def test_any_text_makes_a_round_trip_through_an_option(mode: Mode) -> None:
    folder = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    server = TmuxServer(folder / "s.sock", mode=mode)
    with asyncio.Runner() as runner:
        runner.run(server.start("a-b", ["sleep", "600"], cwd=folder, env=ENV))

        async def there_and_back(value: str) -> str | None:
            await server.set_option("@value", value)
            return await server.option("@value")

        @settings(
            max_examples=150 if mode == "auto" else 40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(HOSTILE)
        def check(value: str) -> None:
            assert runner.run(there_and_back(value)) == value

        try:
            check()
            assert server.fallbacks == 0
        finally:
            runner.run(server.kill())
    shutil.rmtree(folder)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto"], indirect=True)
async def test_a_killed_control_client_is_replaced(rig: Rig) -> None:
    await rig.record()
    await rig.server.option("@x")
    first = rig.server.control_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    rig.may_fall_back = True
    async with asyncio.timeout(30):
        while rig.server.control_pid in (None, first):
            assert await rig.server.option("@x") is None
            await asyncio.sleep(0.05)
    assert rig.server.fallbacks > 0


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto"], indirect=True)
async def test_an_act_whose_answer_was_lost_is_done_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.record()
    await rig.server.option("@x")
    real = ControlClient.request

    async def lose_the_answer(self: ControlClient, commands: Sequence[Command]) -> list[str]:
        await real(self, commands)
        raise ControlLost("test")

    monkeypatch.setattr(ControlClient, "request", lose_the_answer)
    rig.may_fall_back = True
    assert await rig.server.paste(b"once", buffer="b", marker="m")
    assert rig.server.fallbacks > 0
    assert await rig.raw("list-buffers") == [], "the body stays in no buffer"
    monkeypatch.setattr(ControlClient, "request", real)
    await until_control(rig)
    monkeypatch.setattr(ControlClient, "request", lose_the_answer)
    assert await rig.server.enter("m")
    assert await rig.server.keys("z")
    assert await rig.recorded(6) == b"once\rz"


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto"], indirect=True)
async def test_a_cancelled_request_does_not_spoil_the_next_answer(rig: Rig) -> None:
    birth = await rig.record()
    await rig.server.set_option("@x", "value")
    os.kill(birth.server_pid, signal.SIGSTOP)
    try:
        task = asyncio.create_task(rig.server.capture())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        os.kill(birth.server_pid, signal.SIGCONT)
    for _ in range(5):
        assert await rig.server.option("@x") == "value"


@pytest.mark.anyio
async def test_many_tasks_at_once_get_their_own_answers(rig: Rig) -> None:
    await rig.record()

    async def own(position: int) -> None:
        await rig.server.set_option(f"@x{position}", str(position))
        assert await rig.server.option(f"@x{position}") == str(position)

    await asyncio.gather(*(own(position) for position in range(12)))


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto"], indirect=True)
async def test_a_screen_full_of_guard_lines_does_not_end_the_answer(rig: Rig) -> None:
    script = (
        "import time;n=int(time.time());"
        "[print(f'%end {n+t} {k} 1') for t in range(2) for k in range(262, 280)];"
        "print('%error 1 1 1');print('LAST');time.sleep(60)"
    )
    await rig.start([*rig.recorder()[:3], "-c", script])
    await shown(rig.server, "LAST")
    for _ in range(10):
        text = (await rig.server.capture()).rstrip("\n").split("\n")
        assert len(text) == 38
        assert text[-1] == "LAST"


async def until_control(rig: Rig) -> None:
    async with asyncio.timeout(30):
        while rig.server.control_pid is None:
            await rig.server.option("@x")
            await asyncio.sleep(0.05)
