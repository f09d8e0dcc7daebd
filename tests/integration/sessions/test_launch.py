"""A launch ends READY or as one named failure, and a failure leaves nothing behind."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from iapeer.core.errors import LaunchFailed, SendRefused
from iapeer.core.identity import Identity
from iapeer.sessions.model import LaunchRequest
from iapeer.sessions.process import is_alive
from iapeer.storage.paths import peer_state_dir
from tests.integration.routing.house import WAIT_S, House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


async def _failure(house: House, name: str = "ann", runtime: str = "demo") -> LaunchFailed:
    record = house.services.registry.snapshot().require(name)
    request = LaunchRequest(record.uid, Identity(runtime, name), Path(record.cwd))
    with pytest.raises(LaunchFailed) as failed:
        await house.services.launcher.launch(request, house.services.catalog.get(runtime))
    await house.nothing_left()
    return failed.value


@pytest.mark.requirement("launch:socket-folder", "launch:first-message")
async def test_a_peer_that_sleeps_is_ready_within_its_first_message() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", "NOTHING")
        assert (sent.woke, sent.delivered) == (True, True)
        await house.wait(sent.message_id, "seen")
        (row,) = await house.live_rows()
        assert row.ready_at is not None
        assert row.server_pid == house.session("ann").server[0]
        assert not [name for name in house.leftovers() if name.startswith(".handoff")]


@pytest.mark.requirement("send:refuse:folder", "send:refuse:nothing-stored")
async def test_a_folder_that_is_gone_is_named_at_launch_and_at_send() -> None:
    async with open_house("ann") as house:
        shutil.rmtree(house.paths.peer_home("ann"))
        assert (await _failure(house)).code == "cwd_gone"
        with pytest.raises(SendRefused) as refused:
            await house.send("ann")
        assert refused.value.code == "cwd_gone"
        assert await house.count() == 0


GONE = 'id = "gone"\n[launch]\nargv = ["no-such-program-here"]\n'


@pytest.mark.requirement("send:refuse:folder")
async def test_a_program_that_is_not_installed_is_named_at_launch_and_at_send() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime("gone", GONE)
        house.create("ann", runtime="gone")
        await house.start()
        assert (await _failure(house, runtime="gone")).code == "binary_missing"
        with pytest.raises(SendRefused) as refused:
            await house.send("ann")
        assert refused.value.code == "binary_missing"
        assert await house.count() == 0


@pytest.mark.requirement("launch:failure:vanished")
async def test_a_program_that_ends_at_once_leaves_its_last_words() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime(
            "brief",
            f'id = "brief"\n[launch]\nargv = ["{sys.executable}", "-c", '
            "\"import sys, time; print('licence expired'); time.sleep(0.3); sys.exit(7)\"]\n",
        )
        house.create("ann", runtime="brief")
        await house.start()
        failed = await _failure(house, runtime="brief")
    assert failed.code == "exited"
    assert "exit status 7" in failed.message
    assert "licence expired" in failed.message


@pytest.mark.requirement("launch:failure:vanished", "launch:failure:clean")
@pytest.mark.parametrize(
    ("switch", "deadline_s", "code", "words"),
    [
        ("exit_at_start=3", 60.0, "exited", "exit status 3"),
        ("hang_at_start", 1.0, "not_ready", "within 1 s"),
    ],
)
async def test_a_misbehaving_start_is_named(
    switch: str, deadline_s: float, code: str, words: str
) -> None:
    async with open_house("ann", misbehave=switch) as house:
        await house.close()
        house.runtime("demo", _demo(boot_deadline_s=deadline_s))
        await house.start()
        failed = await _failure(house)
        assert (failed.code, words in failed.message) == (code, True), failed.message


@pytest.mark.requirement("launch:failure:never-ready")
async def test_a_boot_that_hangs_shows_its_pane_and_ends_even_a_deaf_program() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime(
            "deaf",
            'id = "deaf"\n[launch]\nboot_deadline_s = 1.0\nargv = ["sh", "-c", '
            "\"trap '' HUP TERM; echo waiting for a login; while :; do sleep 0.2; done\"]\n"
            '[screen]\nready = ["^never$"]\n',
        )
        house.create("ann", runtime="deaf")
        await house.start()
        failed = await _failure(house, runtime="deaf")
    assert failed.code == "not_ready"
    assert "pane tail: waiting for a login" in failed.message


@pytest.mark.requirement("launch:dialogs")
async def test_a_dialog_at_start_is_answered_as_a_person_would() -> None:
    async with open_house("ann", misbehave="dialog") as house:
        sent = await house.send("ann", "NOTHING")
        assert (await house.wait(sent.message_id, "seen")).attempt == 1


async def test_a_slow_start_is_waited_for() -> None:
    async with open_house("ann", misbehave="slow_start=0.8") as house:
        sent = await house.send("ann", "NOTHING")
        assert sent.delivered


@pytest.mark.requirement("launch:failure:clean")
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5])
async def test_stop_in_the_middle_of_a_boot_takes_effect_and_leaves_nothing(
    after_s: float,
) -> None:
    async with open_house("ann", misbehave="hang_at_start", boot_deadline_s=300.0) as house:
        sending = asyncio.create_task(house.send("ann"))
        await until(lambda: house.lane("ann").phase == "booting", poll_s=0.001)
        await asyncio.sleep(after_s)
        # Far from the time the boot would take.
        async with asyncio.timeout(WAIT_S):
            await house.fleet.stop("ann", None)
        sent = await sending
        assert (sent.state, sent.reason) == ("held", "stopped")
        await house.nothing_left()


async def test_the_daemon_can_close_in_the_middle_of_a_boot() -> None:
    async with open_house("ann", misbehave="hang_at_start") as house:
        sending = asyncio.create_task(house.send("ann"))
        await until(lambda: (house.paths.run).exists() and house.processes())
        sending.cancel()
        await house.close()
        assert house.leftovers() == []


async def test_a_socket_path_beyond_the_limit_is_a_named_failure_that_leaves_no_row() -> None:
    deep = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp")) / ("d" * 90)
    try:
        async with open_house("ann", sock_dir=deep) as house:
            failed = await _failure(house)
            assert failed.code == "tmux"
            assert "107" in failed.message or "long" in failed.message, failed.message
    finally:
        shutil.rmtree(deep.parent)


@pytest.mark.requirement("launch:one-session")
async def test_fifty_sends_at_once_make_one_session() -> None:
    async with open_house("ann") as house:
        sent = await asyncio.gather(*(house.send("ann", f"NOTHING\n{n}") for n in range(50)))
        for result in sent:
            await house.wait(result.message_id, "seen", timeout_s=60)
        assert len(await house.sessions()) == 1
        assert house.bodies("ann") == [f"NOTHING\n{n}" for n in range(50)]


async def test_a_boot_beyond_the_limit_is_held_as_such_and_comes_when_there_is_room() -> None:
    async with open_house("ann", "bob", boot_limit=1, misbehave="slow_start=1.0") as house:
        first = asyncio.create_task(house.send("ann"))
        await until(lambda: house.lane("ann").phase == "booting")
        await until(lambda: not house.services.launcher.boot_slot_free)
        second = await house.send("bob")
        assert (second.state, second.reason) == ("held", "boot_limit")
        assert (await first).delivered
        await house.wait(second.message_id, "seen")


async def test_a_boot_that_waits_for_room_can_be_stopped() -> None:
    async with open_house("ann", "bob", boot_limit=1, misbehave="hang_at_start") as house:
        first = asyncio.create_task(house.send("ann"))
        await until(lambda: not house.services.launcher.boot_slot_free)
        second = await house.send("bob")
        assert second.reason == "boot_limit"
        await house.fleet.stop("bob", None)
        assert (await house.row(second.message_id)).reason == "stopped"
        await house.fleet.stop("ann", None)
        await first
        await until(lambda: house.services.launcher.boot_slot_free)
        await house.nothing_left()


@pytest.mark.requirement("launch:env:peer", "launch:env:foreign")
async def test_a_session_inherits_neither_our_secrets_nor_another_sessions_name() -> None:
    foreign = {
        "PEER_TOKEN": "stolen",
        "PEER_IDENTITY": "demo-eve",
        "IAPEER_BEARER_TOKEN": "hush",
        "CLAUDE_CODE_X": "1",
        "TMUX": "/tmp/x,1,0",
    }
    async with open_house("ann", environ=foreign) as house:
        session = await house.live("ann")
        for pid in (session.pane[0], session.server[0]):
            text = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
            found = dict(v.split("=", 1) for v in text.split("\0") if v)
            assert "stolen" not in found.values()
            assert "hush" not in found.values()
            assert found.get("PEER_IDENTITY") in ("demo-ann", None)
            assert "CLAUDE_CODE_X" not in found
            assert found.get("TMUX") != "/tmp/x,1,0"
        state = peer_state_dir(house.paths.peer_home("ann"), "demo")
        assert state.stat().st_mode & 0o777 == 0o700


def _demo(*, boot_deadline_s: float) -> str:
    from iapeer.runtimes.catalog import SHIPPED

    text = (SHIPPED / "demo.toml").read_text(encoding="utf-8")
    return text.replace("boot_deadline_s = 20.0", f"boot_deadline_s = {boot_deadline_s}")


async def test_an_orphan_that_no_ledger_knows_is_replaced_by_the_next_wake() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        orphan = house.session("ann").pane
        await house.close()
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            (house.paths.state / name).unlink(missing_ok=True)
        await house.start()
        await house.live("ann")
        assert house.session("ann").pane != orphan
        assert not is_alive(*orphan)
