"""A session ends only when its program has written down what it has read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from iapeer.sessions import recorded
from iapeer.sessions.process import is_alive
from iapeer.sessions.recorded import until_recorded
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

QUIET_S = 0.4
"""A stop that does not wait takes less (measured: 0.05 to 0.1 s)."""


async def _read(house: House) -> tuple[str, Path]:
    sent = await house.send("ann", "NOTHING")
    await house.wait(sent.message_id, "seen")
    session = house.session("ann")
    # Whoever tells first: the record is what is waited for.
    await until(lambda: sent.message_id in session.proven, "it to be told")
    path = Path(session.transcript)
    await until(lambda: path.exists() and sent.message_id in path.read_text("utf-8"), "the record")
    return sent.message_id, path


@pytest.mark.requirement("lifecycle:resume")
async def test_a_session_is_not_ended_while_its_record_lacks_what_it_has_read() -> None:
    async with open_house("ann") as house:
        message_id, path = await _read(house)
        session, whole = house.session("ann"), path.read_bytes()
        # As Claude Code has it on a busy machine: everything but the prompt is on the disk.
        other = json.dumps({"type": "last-prompt", "lastPrompt": f'<iap id="{message_id}">'})
        path.write_text(f"{other}\n", encoding="utf-8")
        stopping = asyncio.create_task(house.fleet.stop("ann", None))
        done, _ = await asyncio.wait({stopping}, timeout=QUIET_S)
        assert not done
        assert is_alive(*session.pane)
        path.write_bytes(whole)
        await stopping
        assert not is_alive(*session.pane)


async def test_a_record_that_never_comes_holds_the_end_up_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann") as house:
        _, path = await _read(house)
        session = house.session("ann")
        assert await until_recorded(session)
        monkeypatch.setattr(recorded, "RECORD_WAIT_S", 0.2)
        path.write_bytes(b"")
        assert not await until_recorded(session)
        path.unlink()
        assert not await until_recorded(session)
        await house.fleet.stop("ann", None)
        assert not is_alive(*session.pane)
        assert not await until_recorded(session)
