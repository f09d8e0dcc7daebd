from __future__ import annotations

import asyncio
import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from iapeer.core.errors import SessionGone, TmuxError
from iapeer.sessions import process
from iapeer.sessions.tmux.options import ENTERED, PASTED
from iapeer.sessions.tmux.server import KEY_GAP_S

from .conftest import processes_with, shown, until, until_dead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .conftest import Rig

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


@pytest.mark.requirement("delivery:paste:bracketed")
async def test_a_paste_and_its_enter_arrive_and_leave_their_markers(rig: Rig) -> None:
    await rig.record()
    assert await rig.server.option(PASTED) is None
    assert await rig.server.paste(b"hello", buffer="b-1", marker="m:1/a.b_c@d+e=f-g")
    assert await rig.server.option(PASTED) == "m:1/a.b_c@d+e=f-g"
    assert await rig.server.option(ENTERED) is None
    assert await rig.server.enter("m:2")
    assert await rig.server.option(ENTERED) == "m:2"
    assert await rig.recorded(6) == b"hello\r"
    assert await rig.raw("list-buffers") == []


@pytest.mark.requirement("delivery:paste:bracketed", "delivery:router")
async def test_lf_stays_lf_and_a_paste_is_bracketed_where_asked_for(rig: Rig) -> None:
    await rig.record("bracketed")
    await shown(rig.server, "READY")
    assert await rig.server.paste(b"a\nb\n", buffer="b", marker="m")
    assert await rig.recorded(16) == b"\x1b[200~a\nb\n\x1b[201~"


@pytest.mark.requirement("delivery:paste:large")
async def test_64_kb_that_end_in_a_semicolon_arrive_whole(rig: Rig) -> None:
    await rig.record()
    text = "".join(f"{n} 'x' \"y\" $HOME #{{pid}} \\ é 北\n" for n in range(2000)) + ";"
    body = text.encode()
    assert len(body) > 64_000
    assert await rig.server.paste(body, buffer="b", marker="m")
    assert await rig.recorded(len(body)) == body


@pytest.mark.requirement("launch:dead-pane")
async def test_a_paste_into_a_dead_pane_is_refused_and_the_server_lives(rig: Rig) -> None:
    birth = await rig.start(["sh", "-c", "exit 3"])
    await until_dead(rig.server)
    for position in range(3):
        assert not await rig.server.paste(b"x", buffer="b", marker=f"m{position}")
    assert not await rig.server.enter("m")
    assert not await rig.server.keys("a", "b")
    assert process.is_alive(birth.server_pid, birth.server_start)
    assert await rig.server.option(PASTED) is None
    assert await rig.server.option(ENTERED) is None
    assert await rig.raw("list-buffers") == []


async def test_a_kill_just_before_the_paste_never_takes_the_server_along(rig: Rig) -> None:
    for position in range(20):
        birth = await rig.start(["sleep", "60"])
        await rig.server.option(PASTED)
        os.kill(birth.pane_pid, signal.SIGKILL)
        await rig.server.paste(b"x" * 5000, buffer="b", marker=f"m{position}")
        await until_dead(rig.server)
        assert not await rig.server.paste(b"x", buffer="b", marker="late")
        assert process.is_alive(birth.server_pid, birth.server_start)
        await rig.server.kill()


async def test_copy_mode_swallows_neither_paste_nor_enter_nor_key(rig: Rig) -> None:
    await rig.record()
    expected = b""
    acts: list[tuple[Callable[[], Awaitable[bool]], bytes]] = [
        (lambda: rig.server.paste(b"body", buffer="b", marker="m"), b"body"),
        (lambda: rig.server.enter("m"), b"\r"),
        (lambda: rig.server.keys("2"), b"2"),
    ]
    for act, arrives in acts:
        await rig.raw("copy-mode", "-t", "=claude-iap:")
        before = await rig.server.facts()
        assert before is not None
        assert before.in_mode
        assert await act()
        expected += arrives
        assert await rig.recorded(len(expected)) == expected
        after = await rig.server.facts()
        assert after is not None
        assert not after.in_mode


async def test_a_choosing_mode_is_left_as_well(rig: Rig) -> None:
    await rig.record()
    await rig.raw("choose-tree", "-t", "=claude-iap:")
    assert await rig.server.enter("m")
    assert await rig.recorded(1) == b"\r"


async def test_a_stopped_program_that_reads_late_gets_the_whole_paste(rig: Rig) -> None:
    birth = await rig.record("busy")
    os.kill(birth.pane_pid, signal.SIGSTOP)  # tmux 3.3a continues it at once
    body = b"z" * 20_000
    assert await rig.server.paste(body, buffer="b", marker="m")
    assert rig.log.stat().st_size == 0
    os.kill(birth.pane_pid, signal.SIGCONT)
    rig.log.with_name("log.go").touch()
    assert await rig.recorded(len(body)) == body


@pytest.mark.requirement("delivery:exact-target")
async def test_a_name_that_is_a_prefix_of_the_session_reaches_nobody(rig: Rig) -> None:
    await rig.start(rig.recorder(), session="claude-iapeer")
    await until(rig.log.exists)
    short = rig.twin(rig.mode, session="claude-iap")
    with pytest.raises(SessionGone):
        await short.paste(b"x", buffer="b", marker="m")
    with pytest.raises(SessionGone):
        await short.enter("m")
    with pytest.raises(SessionGone):
        await short.facts()
    with pytest.raises(SessionGone):
        await short.capture()
    assert await rig.server.paste(b"right", buffer="b", marker="m")
    assert await rig.recorded(5) == b"right"
    assert await rig.raw("list-buffers") == []


@pytest.mark.requirement("launch:secrets")
async def test_the_body_is_on_no_command_line_and_its_file_is_private(rig: Rig) -> None:
    birth = await rig.record()
    await rig.server.option(PASTED)
    secret = b"TOP" + b"SECRET-" + os.urandom(8).hex().encode()
    os.kill(birth.server_pid, signal.SIGSTOP)
    try:
        paste = asyncio.create_task(rig.server.paste(secret, buffer="b", marker="m-visible"))
        await until(lambda: any(n.startswith(".paste-") for n in os.listdir(rig.folder)))
        if rig.mode == "exec":
            await until(lambda: bool(processes_with("load-buffer")))
        files = [path for path in rig.folder.iterdir() if path.name.startswith(".paste-")]
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
        assert processes_with(secret.decode()) == []
    finally:
        os.kill(birth.server_pid, signal.SIGCONT)
    assert await paste
    assert await rig.recorded(len(secret)) == secret
    assert processes_with(secret.decode()) == []
    assert not [name for name in os.listdir(rig.folder) if name.startswith(".paste-")]


async def test_keys_go_one_by_one_with_a_pause(rig: Rig) -> None:
    await rig.record()
    begin = asyncio.get_running_loop().time()
    assert await rig.server.keys("Down", "2", "Enter")
    assert asyncio.get_running_loop().time() - begin >= 2 * KEY_GAP_S
    assert await rig.recorded(5) == b"\x1b[B2\r"


@pytest.mark.parametrize("bad", ["", "a b", "a,b", "x}", "#{pid}", "a\nb", "ü", "-x"])
async def test_markers_that_could_be_syntax_are_refused(rig: Rig, bad: str) -> None:
    await rig.record()
    with pytest.raises(TmuxError, match="marker"):
        await rig.server.paste(b"x", buffer="b", marker=bad)
    with pytest.raises(TmuxError, match="marker"):
        await rig.server.enter(bad)
    assert await rig.raw("list-buffers") == []
    assert rig.log.read_bytes() == b""


async def test_an_empty_body_is_refused(rig: Rig) -> None:
    await rig.record()
    with pytest.raises(TmuxError, match="empty"):
        await rig.server.paste(b"", buffer="b", marker="m")
