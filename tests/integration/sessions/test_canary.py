"""Each way a session can end: one record of the right kind, or none when it was wanted."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from iapeer.sessions.canary import Canaries, CanaryState, Watched
from iapeer.sessions.canary import script as script_module
from iapeer.sessions.canary.marks import living, orphans
from iapeer.sessions.process import wait_gone
from tests.integration.sessions.canary_rig import (
    GRACE_S,
    WHEN_ARMED,
    Rig,
    open_rig,
    recorders,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

SLEEP = "import time; time.sleep(600)"


def _python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def _kill(process: tuple[int, int] | None, number: int = signal.SIGKILL) -> None:
    assert process is not None
    os.kill(process[0], number)


# -- the program ends ------------------------------------------------------------------------


@pytest.mark.requirement("forensics:hook")
@pytest.mark.parametrize(
    ("code", "status", "number"),
    [
        (0, 0, None),
        (3, 3, None),
        (-signal.SIGTERM, None, 15),
        (-signal.SIGKILL, None, 9),
        (-signal.SIGSEGV, None, 11),
    ],
)
async def test_a_program_that_ends_leaves_one_record_of_how(
    code: int, status: int | None, number: int | None
) -> None:
    end = f"os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
    async with open_rig() as rig:
        body = await rig.begin(*_python(f"{WHEN_ARMED}{end}; time.sleep(9)"))
        found = await rig.line(body)
        assert (found.ev, found.status, found.signal) == ("session-exit", status, number)
        assert found.identity == "demo-ann"
        scene = await rig.end(body, "program-exit")
        assert scene is not None
        assert (scene.what, scene.status, scene.signal) == ("program", status, number)
        await until(lambda: not recorders(rig.base))
        assert [line.ev for line in rig.lines()] == ["session-exit"]
        assert rig.reports() == []
        names = {None: "", 15: "TERM", 9: "KILL", 11: "SEGV"}
        assert f"signal_name={names[number]} " in rig.paths.exits_log.read_text(encoding="utf-8")


@pytest.mark.requirement("forensics:hook")
async def test_a_program_that_ends_at_once_leaves_its_record_too() -> None:
    async with open_rig() as rig:
        for status in range(5):
            body = await rig.begin(*_python(f"raise SystemExit({status})"), armed=False)
            await rig.dead(body)
            await rig.end(body, "program-exit")
            await until(lambda: bool(rig.lines(body)))  # noqa: B023 - awaited in this round
            assert [line.status for line in rig.lines(body)] == [status]
        assert len(rig.lines()) == 5


async def test_the_record_is_complete_although_its_server_is_ended_at_once() -> None:
    """The lane clears a dead pane within milliseconds, and tmux ends its jobs with it."""
    async with open_rig() as rig:
        for _ in range(10):
            body = await rig.begin()
            _kill(body.pane)
            await rig.dead(body)
            await rig.end(body, "program-exit")
            await until(lambda: bool(rig.lines(body)))  # noqa: B023 - awaited in this round
            (line,) = rig.lines(body)
            assert line.signal == 9


async def test_a_hook_that_comes_late_is_waited_for() -> None:
    async with open_rig() as rig:
        text = rig.paths.canary_script.read_text(encoding="utf-8")
        rig.paths.canary_script.write_text(f"sleep 0.4\n{text}", encoding="utf-8")
        body = await rig.begin(*_python("raise SystemExit(8)"), armed=False)
        await rig.dead(body)
        await rig.end(body, "program-exit")
        await until(lambda: bool(rig.lines(body)))
        await until(lambda: not recorders(rig.base))
        written = rig.paths.exits_log.read_text(encoding="utf-8")
        assert written.count("dead_status=8") == 1


async def test_where_the_hook_can_not_run_the_daemon_writes_the_record() -> None:
    async with open_rig() as rig:
        rig.paths.canary_script.unlink()
        body = await rig.begin(*_python("raise SystemExit(4)"), armed=False)
        await rig.dead(body)
        await rig.end(body, "program-exit")
        (line,) = rig.lines(body)
        assert (line.ev, line.status, line.signal) == ("session-exit", 4, None)


async def test_a_second_pane_of_a_person_is_no_death() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        await body.tmux._request([["split-window", "-d", "-t", "=demo-ann:", "true"]])
        dead = ["list-panes", "-t", "=demo-ann:", "-F", "#{pane_dead}"]

        async def panes() -> list[str]:
            return await body.tmux._request([dead])

        while "1" not in await panes():  # noqa: ASYNC110 - tmux sets no asyncio.Event
            await asyncio.sleep(0.02)
        await body.tmux._request([["run-shell", "true"]])
        assert rig.mark(body).watches
        assert await rig.end(body) is None
        await rig.silent()


async def test_paths_with_blanks_quotes_and_format_signs_are_no_trouble() -> None:
    async with open_rig('a b\'c #{pid} %d "x"') as rig:
        body = await rig.begin(*_python(f"{WHEN_ARMED}raise SystemExit(6)"))
        assert (await rig.line(body)).status == 6
        other = await rig.begin(identity="demo-bob")
        _kill(other.server)
        line = await rig.line(other)
        assert Path(line.report).parent == rig.paths.server_deaths
        assert Path(line.report).is_file()


# -- the server ends ---------------------------------------------------------------------------


@pytest.mark.requirement("forensics:recorder", "forensics:snapshot")
async def test_a_killed_server_leaves_one_record_and_one_report() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        _kill(body.server)
        line = await rig.line(body)
        assert (line.ev, line.cause) == ("server-exit", "server-vanished")
        report = await rig.report()
        assert report.startswith("server-death identity=demo-ann ")
        for section in ("at-once", "memory", "pressure", "top-memory", "deliveries", "transcript"):
            assert f"--- {section}\n" in report
        row = await rig.verdict(body, is_it=lambda row: bool(row.report))
        assert (row.what, row.cause, row.confidence) == ("server", "server_killed", "likely")
        assert [x.ev for x in rig.lines()] == ["server-exit"]
        assert not rig.paths.canary_mark(body.session_id).exists()


@pytest.mark.requirement("forensics:recorder:causes")
async def test_a_server_that_somebody_ends_in_order_is_not_taken_for_wanted() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        _kill(body.server, signal.SIGTERM)
        # A server that ends in order dismisses its waiting client first (status 0), or on a busy
        # machine is gone before that has read it (status 1): the record says which.
        line = await rig.line(body)
        assert line.cause == {"0": "signaled-server-gone", "1": "server-vanished"}[_rc(rig)]
        assert len(rig.lines()) == 1


def _rc(rig: Rig) -> str:
    """What the recorder's own tmux client ended with, from its record."""
    found = re.search(r"wait_rc=(\d+)", rig.paths.exits_log.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


@pytest.mark.requirement("forensics:recorder:causes")
async def test_a_sweep_that_takes_server_and_client_together_is_told_apart() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        client = rig.mark(body).client
        _kill(client)
        _kill(body.server)
        assert (await rig.line(body)).cause == "client-killed-server-gone"
        assert len(rig.lines()) == 1


@pytest.mark.requirement("forensics:recorder:successor")
async def test_a_successor_on_the_same_socket_does_not_hide_the_death() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        _kill(body.server)
        await wait_gone(*body.server, 5.0)
        # Nobody but the recorder: a daemon would stand in for one that was deceived.
        successor = await rig.begin()
        line = await rig.line(body)
        assert (line.cause, line.session) == ("server-vanished", body.session_id)
        assert rig.lines(successor) == []
        assert rig.mark(successor).watches
        assert await rig.end(successor) is None


async def test_a_process_that_has_the_pid_of_the_server_is_not_taken_for_it() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        await rig.canaries.silence(body.watched)
        # The same pid, another start: what a reused pid looks like.
        reused = Watched("reused", "demo-ann", body.tmux.socket, (body.server[0], 1))
        child = Canaries(rig.paths, rig.tmux)
        child._spawn("watch", reused, child.counter("reused"))
        await until(rig.paths.canary_mark("reused").exists)
        await body.tmux._request([["wait-for", "-S", script_module.channel("demo-ann")]])
        await until(lambda: bool(rig.lines()))
        (line,) = rig.lines()
        assert (line.session, line.cause) == ("reused", "signaled-server-gone")
        child._reap()
        assert await rig.canaries.ensure(reused) is CanaryState.SKIPPED


# -- wanted, or nothing happened ------------------------------------------------------------------


@pytest.mark.requirement("forensics:recorder:silent")
async def test_what_is_wanted_leaves_no_record() -> None:
    async with open_rig() as rig:
        for _ in range(5):
            body = await rig.begin()
            assert await rig.end(body) is None
        await rig.silent()
        assert os.listdir(rig.paths.canaries) == ["canary.sh"]


@pytest.mark.requirement("forensics:recorder:silent")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_dismissed_recorder_takes_its_client_along(number: signal.Signals) -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        mark = rig.mark(body)
        _kill(mark.recorder, number)
        await until(lambda: not recorders(rig.base))
        _kill(body.server)
        await asyncio.sleep(GRACE_S + 0.5)
        await rig.silent()


DEAF = f"""exec {shlex.quote(sys.executable)} -S -c '
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).with_name("deaf").touch()
time.sleep(60)
' "$0" "$@"
"""


async def test_a_dismissed_recorder_takes_a_client_along_that_hears_no_signal_yet() -> None:
    async with open_rig(client=DEAF) as rig:
        body = await rig.begin()
        await until((rig.base / "deaf").exists)
        _kill(rig.mark(body).recorder, signal.SIGTERM)
        await until(lambda: not recorders(rig.base))


@pytest.mark.requirement("forensics:recorder:rearm")
@pytest.mark.parametrize("victim", ["client", "recorder"])
async def test_a_recorder_or_its_client_killed_alone_is_no_death_and_is_armed_again(
    victim: str,
) -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        mark = rig.mark(body)
        old = mark.client if victim == "client" else mark.recorder
        assert old is not None
        _kill(old)
        await wait_gone(*old, 5.0)
        assert await rig.canaries.ensure(body.watched) is CanaryState.SPAWNED
        assert await rig.canaries.ensure(body.watched) is CanaryState.ALREADY
        assert len(recorders(rig.base)) == 2
        assert rig.lines() == []
        _kill(body.server)
        assert (await rig.line(body)).cause == "server-vanished"
        assert len(rig.lines()) == 1


async def test_a_signal_on_the_channel_wakes_the_recorder_and_the_audit_arms_it_again() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        await body.tmux._request([["wait-for", "-S", script_module.channel("demo-ann")]])
        await until(lambda: not recorders(rig.base))
        assert rig.lines() == []
        assert await rig.canaries.ensure(body.watched) is CanaryState.SPAWNED


async def test_a_lost_pid_file_does_not_leave_two_recorders() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        rig.paths.canary_mark(body.session_id).unlink()
        assert await rig.canaries.ensure(body.watched) is CanaryState.SPAWNED
        assert len(recorders(rig.base)) == 2
        rig.paths.canary_mark(body.session_id).unlink()
        assert await rig.end(body) is None
        await rig.silent()


async def test_a_dismissed_session_is_not_armed_again_by_an_audit_that_comes_late() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        await rig.canaries.silence(body.watched)
        assert await rig.canaries.ensure(body.watched) is CanaryState.SKIPPED


async def test_the_pattern_for_orphans_takes_no_other_name_and_no_editor() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        longer = await rig.begin(identity="demo-ann-two")
        text = f"vi {rig.paths.canary_script} iap-canary-demo-ann {body.tmux.socket}"
        editor = await asyncio.create_subprocess_exec(*_python(SLEEP), text)
        channel = script_module.channel("demo-ann")
        found = set(orphans(rig.paths.canary_script, body.tmux.socket, channel))
        mark = rig.mark(body)
        assert found == {mark.recorder, mark.client}
        assert rig.mark(longer).watches
        editor.kill()
        await editor.wait()


# -- how it lives ----------------------------------------------------------------------------------


@pytest.mark.requirement("forensics:recorder:outlives")
async def test_a_recorder_outlives_the_process_that_made_it() -> None:
    """A daemon that is killed takes nothing along, and the death it did not see is recorded."""
    async with open_rig() as rig:
        body = await rig.begin(armed=False)
        code = (
            "import asyncio,os,signal,sys\n"
            "from pathlib import Path\n"
            "from iapeer.sessions.canary import Canaries, Watched\n"
            "from iapeer.storage.paths import Paths\n"
            "root, tmux, session, sock, pid, start = sys.argv[1:]\n"
            "watched = Watched(session, 'demo-ann', Path(sock), (int(pid), int(start)))\n"
            "state = asyncio.run(Canaries(Paths(Path(root)), tmux).ensure(watched))\n"
            "assert state == 'spawned', state\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        words = (str(rig.paths.root), rig.tmux, body.session_id, str(body.tmux.socket))
        numbers = (str(body.server[0]), str(body.server[1]))
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", code, *words, *numbers
        )
        assert await daemon.wait() == -signal.SIGKILL
        assert rig.mark(body).watches
        assert await rig.canaries.ensure(body.watched) is CanaryState.ALREADY
        _kill(body.server)
        assert (await rig.line(body)).cause == "server-vanished"
        row = await rig.verdict(body, is_it=lambda row: bool(row.report))
        assert (row.cause, row.watched) == ("server_killed", False)


async def test_a_death_that_no_recorder_saw_is_recorded_by_the_daemon_that_did() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        mark = rig.mark(body)
        for one in (mark.recorder, mark.client, body.server):
            _kill(one)
        # Not waited for: the recorder may still seem to live at that moment.
        await wait_gone(*body.server, 5.0)
        await rig.end(body, "server-gone")
        assert (await rig.line(body)).cause == "server-vanished"
        await until(lambda: not recorders(rig.base), timeout_s=40)
        assert len(rig.lines()) == 1


@pytest.mark.requirement("forensics:recorder:cost")
async def test_a_recorder_costs_little_memory_and_no_time() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        mark = rig.mark(body)
        assert mark.recorder is not None
        assert mark.client is not None
        pids = (mark.recorder[0], mark.client[0])
        async with asyncio.timeout(30.0):
            # The client is young: it has yet to connect.
            while not await _rest(*pids):
                continue
        private = 0
        for pid in pids:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            rows = [line.split() for line in rollup.splitlines()[1:]]
            private += sum(int(r[1]) for r in rows if r[0].startswith("Private_"))
        assert private <= 1536


async def _rest(*pids: int) -> bool:
    """Whether they use no processor time for a second."""
    before = _ticks(*pids)
    await asyncio.sleep(1.0)
    return _ticks(*pids) == before


def _ticks(*pids: int) -> list[list[str]]:
    """The processor time each has used so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text(encoding="ascii") for pid in pids]
    return [stat.rpartition(")")[2].split()[11:13] for stat in stats]


async def test_files_are_private_and_processes_are_told_by_their_start() -> None:
    async with open_rig() as rig:
        body = await rig.begin()
        path = rig.paths.canary_mark(body.session_id)
        assert path.stat().st_mode & 0o777 == 0o600
        assert rig.paths.canary_script.stat().st_mode & 0o777 == 0o600
        recorder = rig.mark(body).recorder
        assert recorder is not None
        assert living(recorder[0], str(recorder[1])) == recorder
        assert living(recorder[0], str(recorder[1] + 1)) is None


async def test_without_its_script_or_tmux_nothing_fails_but_the_state() -> None:
    async with open_rig() as rig:
        body = await rig.begin(armed=False)
        broken = Canaries(rig.paths, "/nonexistent/tmux")
        # A look may fall between the start of the script and its finding no tmux.
        async with asyncio.timeout(30):
            while await broken.ensure(body.watched) is not CanaryState.FAILED:
                pass
        off = Canaries(rig.paths, rig.tmux, enabled=False)
        assert await off.ensure(body.watched) is CanaryState.SKIPPED
        await until(lambda: not recorders(rig.base))
        rig.canaries.prepare()


@pytest.mark.slow
@pytest.mark.requirement("forensics:recorder:silent")
async def test_forty_wanted_ends_in_a_crowd_leave_no_record() -> None:
    """`scripts/wanted_ends.py` does 200 under load."""
    async with open_rig() as rig:

        async def once(number: int) -> None:
            body = await rig.begin(identity=f"demo-p{number}")
            await rig.end(body)

        for start in range(0, 40, 8):
            await asyncio.gather(*(once(start + n) for n in range(8)))
        await rig.silent()
