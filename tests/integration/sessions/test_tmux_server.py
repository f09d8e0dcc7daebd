from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from iapeer.core.errors import SessionGone, StorageError, TmuxError
from iapeer.sessions import process
from iapeer.sessions.tmux import control as tmux_control
from iapeer.sessions.tmux import exec as tmux_exec
from iapeer.sessions.tmux import server as tmux_server
from iapeer.sessions.tmux.server import TmuxServer, attach_argv, require_tmux, tmux_version

from .conftest import ENV, Rig, processes_with, shown, until, until_async, until_dead, until_facts

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


async def test_a_birth_names_server_and_program_by_pid_and_start_time(rig: Rig) -> None:
    birth = await rig.record()
    assert process.is_alive(birth.server_pid, birth.server_start)
    assert birth.pane_start is not None
    assert process.is_alive(birth.pane_pid, birth.pane_start)
    argv = Path(f"/proc/{birth.pane_pid}/cmdline").read_bytes().split(b"\0")
    assert argv[0].decode() == sys.executable
    facts = await rig.server.facts()
    assert facts is not None
    assert (facts.server_pid, facts.server_start) == (birth.server_pid, birth.server_start)
    assert (facts.pane_id, facts.pane_pid) == (birth.pane_id, birth.pane_pid)
    assert facts.session_id.startswith("$")
    assert (facts.pane_dead, facts.dead_status, facts.dead_signal) == (False, None, None)
    assert facts.humans == 0


async def test_the_server_has_the_given_environment_and_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMON_SECRET", "s")
    birth = await rig.record()
    given = sorted(f"{name}={value}" for name, value in ENV.items())
    server = Path(f"/proc/{birth.server_pid}/environ").read_text(encoding="utf-8")
    assert sorted(server.strip("\0").split("\0")) == given
    program = Path(f"/proc/{birth.pane_pid}/environ").read_text(encoding="utf-8")
    names = {line.partition("=")[0] for line in program.strip("\0").split("\0")}
    own = {"TMUX", "TMUX_PANE", "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "PWD", "SHELL"}
    assert names - own == set(ENV)


@pytest.mark.requirement("launch:tmux:own-config")
async def test_the_users_own_configuration_is_not_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = f'run-shell "touch {rig.folder}/poisoned"\nset -g @poison yes\nset -g status on\n'
    for name in (".tmux.conf", ".config/tmux/tmux.conf"):
        path = rig.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(poison, encoding="utf-8")
    monkeypatch.setenv("HOME", str(rig.folder))
    env = {**ENV, "HOME": str(rig.folder), "XDG_CONFIG_HOME": f"{rig.folder}/.config"}
    await rig.server.start("claude-iap", ["sleep", "60"], cwd=rig.folder, env=env)
    assert await rig.raw("show-options", "-gqv", "@poison") == []
    assert await rig.raw("show-options", "-gqv", "status") == ["off"]
    assert await rig.raw("show-options", "-sv", "escape-time") == ["0"]
    assert await rig.raw("show-options", "-gv", "update-environment") == []
    size = ["display-message", "-p", "-t", "=claude-iap:", "#{pane_width}x#{pane_height}"]
    assert await rig.raw(*size) == ["160x50"]
    assert not (rig.folder / "poisoned").exists()
    (rig.folder / ".tmux.conf").unlink()
    (rig.folder / ".config/tmux/tmux.conf").unlink()
    (rig.folder / ".config/tmux").rmdir()
    (rig.folder / ".config").rmdir()


async def test_preset_hooks_run_when_the_program_dies(rig: Rig) -> None:
    mark = rig.folder / "died"
    command = f"run-shell 'echo \"#{{pane_dead_status}} $HOME\" > {mark}'"
    rig.server = TmuxServer(rig.folder / "s.sock", mode=rig.mode, hooks={"pane-died": command})
    await rig.start(["sh", "-c", "exit 5"])
    await until_dead(rig.server)
    await until(lambda: mark.exists() and mark.stat().st_size > 0)
    assert mark.read_text(encoding="utf-8").startswith("5")


async def test_a_program_that_exits_at_once_leaves_its_status(rig: Rig) -> None:
    for _ in range(10):
        await rig.start(["sh", "-c", "exit 7"])
        facts = await until_dead(rig.server)
        assert (facts.dead_status, facts.dead_signal) == (7, None)
        await rig.server.kill()


async def test_a_program_that_was_killed_leaves_the_signal(rig: Rig) -> None:
    for _ in range(5):
        birth = await rig.start(["sleep", "60"])
        os.kill(birth.pane_pid, signal.SIGKILL)
        facts = await until_dead(rig.server)
        assert (facts.dead_status, facts.dead_signal) == (None, 9)
        await rig.server.kill()


async def test_a_lone_last_word_is_found_after_tmux_moved_it_up(rig: Rig) -> None:
    await rig.record()
    # It ends only when tmux has its words: tmux 3.3a loses those of 1 to 3 in 100 that end at once.
    command = "echo broken; while [ ! -e go ]; do sleep 0.02; done; exit 1"
    await rig.server.add("aux", ["sh", "-c", command], cwd=rig.folder)

    async def told() -> bool:
        return "broken" in await rig.server.text_of("aux")

    async def noticed() -> bool:
        await rig.raw("run-shell", "true")
        return await rig.raw("list-panes", "-t", "=aux:", "-F", "#{pane_dead}") == ["1"]

    await until_async(told)
    (rig.folder / "go").touch()
    await until_async(noticed)
    (rig.folder / "go").unlink()
    assert await told()


@pytest.mark.requirement("launch:tmux:relaunch")
async def test_a_start_right_after_a_kill_succeeds(rig: Rig) -> None:
    for _ in range(20):
        await rig.start(["sleep", "60"])
        await rig.server.kill()
    first = await rig.start(["sleep", "60"])
    await rig.server.close()
    last = first
    for _ in range(20):
        await rig.raw("kill-server")
        last = await rig.start(["sleep", "60"])
        facts = await rig.server.facts()
        assert facts is not None
        assert facts.server_pid == last.server_pid
        await rig.server.close()
    assert last.server_pid != first.server_pid


@pytest.mark.requirement("launch:tmux:relaunch")
async def test_a_stale_socket_file_is_cleared(rig: Rig) -> None:
    birth = await rig.start(["sleep", "60"])
    os.kill(birth.server_pid, signal.SIGKILL)
    assert await process.wait_gone(birth.server_pid, birth.server_start, 5)
    assert (rig.folder / "s.sock").exists()
    os.kill(birth.pane_pid, signal.SIGKILL)
    await rig.record()


async def test_a_living_server_is_not_replaced(rig: Rig) -> None:
    birth = await rig.record()
    other = rig.twin(rig.mode)
    with pytest.raises(TmuxError, match="already runs") as caught:
        await other.start("claude-iap", ["sleep", "60"], cwd=rig.folder, env=ENV)
    assert caught.value.code == "server_running"
    assert process.is_alive(birth.server_pid, birth.server_start)
    assert await rig.server.facts() is not None


async def test_death_of_the_server_is_told_and_seen(rig: Rig) -> None:
    birth = await rig.record()
    assert await rig.server.facts() is not None
    told = asyncio.Event()
    watch = process.DeathWatch()
    watch.watch(birth.server_pid, birth.server_start, told.set)
    os.kill(birth.server_pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await told.wait()
    rig.may_fall_back = True
    assert await rig.server.facts() is None
    assert await rig.twin(rig.mode).facts() is None
    with pytest.raises(SessionGone):
        await rig.server.paste(b"x", buffer="b", marker="m")
    with pytest.raises(SessionGone):
        await rig.server.capture()


async def test_a_server_that_does_not_answer_is_unknown_not_dead(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tmux_exec, "EXEC_TIMEOUT_S", 0.3)
    monkeypatch.setattr(tmux_control, "REPLY_TIMEOUT_S", 0.3)
    birth = await rig.record()
    rig.may_fall_back = True
    await rig.server.facts()
    os.kill(birth.server_pid, signal.SIGSTOP)
    try:
        for server in (rig.server, rig.server, rig.twin(rig.mode), rig.twin(rig.mode)):
            with pytest.raises(TmuxError) as caught:
                await server.facts()
            assert not isinstance(caught.value, SessionGone)
        left = processes_with(str(rig.folder))
        assert not [line for line in left if "list-clients" in line or "attach-session" in line]
    finally:
        os.kill(birth.server_pid, signal.SIGCONT)
    assert await rig.server.facts() is not None


async def test_a_hung_server_is_ended_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tmux_exec, "EXEC_TIMEOUT_S", 0.3)
    monkeypatch.setattr(tmux_server, "KILL_WAIT_S", 0.3)
    birth = await rig.record()
    os.kill(birth.server_pid, signal.SIGSTOP)
    await rig.server.kill()
    assert not process.is_alive(birth.server_pid, birth.server_start)


async def test_a_removed_socket_file_does_not_make_a_server_dead(rig: Rig) -> None:
    birth = await rig.record()
    await rig.server.close()
    (rig.folder / "s.sock").unlink()
    rig.may_fall_back = True
    with pytest.raises(SessionGone):
        await rig.server.facts()
    os.kill(birth.server_pid, signal.SIGUSR1)  # tmux binds its socket again
    await until((rig.folder / "s.sock").exists)
    assert await rig.server.facts() is not None


async def test_a_kill_can_be_repeated_and_nothing_is_left(rig: Rig) -> None:
    birth = await rig.record()
    await rig.server.kill()
    assert not process.is_alive(birth.server_pid, birth.server_start)
    assert not (rig.folder / "s.sock").exists()
    await rig.server.kill()
    assert await rig.server.facts() is None


async def test_a_person_counts_and_the_control_client_does_not(rig: Rig) -> None:
    await rig.record()
    await until_facts(rig.server, lambda facts: facts.humans == 0)
    await rig.server.option("@x")
    assert (rig.server.control_pid is not None) == (rig.mode == "auto")
    pid, terminal = pty.fork()
    if pid == 0:
        argv = attach_argv(rig.folder / "s.sock", "claude-iap", binary="/usr/bin/tmux")
        os.execve(argv[0], argv, {"TERM": "xterm", "LANG": "C.UTF-8"})  # noqa: S606 - the person's own shell would do the same
    try:
        await until_facts(rig.server, lambda facts: facts.humans == 1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(pid, 0)
    await until_facts(rig.server, lambda facts: facts.humans == 0)


async def test_closing_ends_the_control_client_only(rig: Rig) -> None:
    await rig.record()
    await rig.server.facts()
    client = rig.server.control_pid
    await rig.server.close()
    assert rig.server.control_pid is None
    if client is not None:
        assert process.start_time(client) is None
    assert await rig.server.facts() is not None


async def test_argv_and_folder_are_taken_word_for_word(rig: Rig) -> None:
    folder = rig.folder / "#{pid} $HOME ;"
    folder.mkdir()
    hostile = ["$HOME", "a;", "\\;", "", "#{pid}", "'\"", "x\ny", "é~", "-d", ";", "{ }"]
    argv = ["sh", "-c", 'pwd > "$0"; for a; do printf "%s\\0" "$a"; done >> "$0"; exec sleep 60']
    argv += [str(rig.log), *hostile]
    await rig.server.start("claude-iap", argv, cwd=folder, env=ENV)
    await until(lambda: rig.log.exists() and rig.log.read_bytes().endswith(b"{ }\0"))
    first, _, rest = rig.log.read_bytes().partition(b"\n")
    assert first.decode() == str(folder)
    assert rest.decode().split("\0")[:-1] == hostile
    folder.rmdir()


async def test_a_single_argument_sees_no_shell_and_keeps_the_pid(rig: Rig) -> None:
    program = rig.folder / "a b;touch pwned;$(touch pwned)"
    program.write_text(
        f"#!/bin/sh\necho $$ > {rig.log}.tmp\nmv {rig.log}.tmp {rig.log}\nsleep 60\n",
        encoding="utf-8",
    )
    program.chmod(0o700)
    birth = await rig.start([str(program)])
    await until(rig.log.exists)
    assert int(rig.log.read_text(encoding="utf-8")) == birth.pane_pid
    assert not (rig.folder / "pwned").exists()


async def test_captures_have_styles_history_and_joined_lines(rig: Rig) -> None:
    script = (
        "printf '\\033[2mfaint\\033[0m\\n'; printf 'w%.0s' $(seq 200); echo; seq 60; exec sleep 60"
    )
    await rig.start(["bash", "-c", script])
    await shown(rig.server, "\n60")
    assert "faint" not in await rig.server.capture()
    assert "faint" in await rig.server.capture(history_lines=100)
    styled = await rig.server.capture(styled=True, history_lines=100)
    assert "\x1b[2mfaint" in styled
    assert "w" * 200 not in styled
    assert "w" * 200 in await rig.server.capture(join_wrapped=True, history_lines=100)


async def test_both_ways_give_the_same_answers(short: Path) -> None:
    rig = Rig(short, "auto", TmuxServer(short / "s.sock"))
    script = (
        "printf '%%end 1 2 1\\n%%begin 1 2 1\\n\\033[31m\\303\\251 \\345\\214\\227\\033[0m  \\n\\n'"
    )
    try:
        await rig.start(["bash", "-c", f"{script}; seq 80; {script}; echo LAST; exec sleep 60"])
        by_exec, by_control = rig.twin("exec"), rig.server
        await shown(by_exec, "LAST")
        for options in (
            {},
            {"styled": True},
            {"join_wrapped": True},
            {"styled": True, "join_wrapped": True, "history_lines": 100},
        ):
            expected = await by_exec.capture(**options)
            assert await by_control.capture(**options) == expected
            assert "%end 1 2 1" in expected
        assert await by_control.facts() == await by_exec.facts()
        await by_exec.set_option("@x", "1")
        assert await by_control.option("@x") == await by_exec.option("@x") == "1"
        assert await by_control.option("@no") is None
        assert await by_exec.option("@no") is None
        assert by_control.fallbacks == 0
    finally:
        await rig.server.kill()


@pytest.mark.requirement("names:socket:length")
async def test_the_longest_socket_path_works_and_a_longer_one_is_refused_early(short: Path) -> None:
    longest = short / ("s" * (107 - len(str(short)) - 1))
    assert len(str(longest)) == 107
    server = TmuxServer(longest)
    try:
        await server.start("claude-iap", ["sleep", "60"], cwd=short, env=ENV)
        assert await server.facts() is not None
    finally:
        await server.kill()
    with pytest.raises(TmuxError, match="108 bytes long, at most 107") as caught:
        TmuxServer(short / ("s" * (108 - len(str(short)) - 1)))
    assert "IAPEER_SOCK_DIR" in caught.value.hint


async def test_a_socket_folder_others_can_write_is_refused(short: Path) -> None:
    folder = short / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StorageError, match="others"):
        await TmuxServer(folder / "s").start("a-b", ["sleep", "9"], cwd=short, env=ENV)


async def test_what_can_not_start_says_why(short: Path) -> None:
    server = TmuxServer(short / "s.sock")
    with pytest.raises(TmuxError, match="argv is empty"):
        await server.start("a-b", [], cwd=short, env=ENV)
    with pytest.raises(TmuxError, match="does not exist"):
        await server.start("a-b", ["sleep", "9"], cwd=short / "no", env=ENV)
    with pytest.raises(TmuxError, match="session name"):
        await server.start("a:b", ["sleep", "9"], cwd=short, env=ENV)
    with pytest.raises(TmuxError, match="too long"):
        await server.start("a-b", ["sleep", "9" * 20_000], cwd=short, env=ENV)
    with pytest.raises(SessionGone):
        await server.capture()
    assert os.listdir(short) == []


async def test_nothing_on_a_socket_is_gone(rig: Rig) -> None:
    rig.may_fall_back = True
    assert await rig.twin(rig.mode).facts() is None


async def test_versions_are_read_and_judged(tmp_path: Path) -> None:
    assert await tmux_version() >= (3, 2)
    assert Path(await require_tmux("tmux")).is_absolute()
    for said, found in (("tmux 3.1c", (3, 1)), ("tmux next-3.6", (3, 6)), ("tmux master", (99, 0))):
        assert await tmux_version(str(fake_tmux(tmp_path, said))) == found
    with pytest.raises(TmuxError, match=r"3\.1 is too old, 3\.2 or newer") as old:
        await require_tmux(str(fake_tmux(tmp_path, "tmux 3.1c")))
    assert "install" in old.value.hint
    with pytest.raises(TmuxError, match="no version"):
        await require_tmux(str(fake_tmux(tmp_path, "what?")))
    with pytest.raises(TmuxError, match="not found") as missing:
        await require_tmux("no-such-tmux")
    assert "install" in missing.value.hint


def fake_tmux(folder: Path, said: str) -> Path:
    path = folder / "tmux"
    path.write_text(f"#!/bin/sh\necho '{said}'\n", encoding="utf-8")
    path.chmod(0o700)
    return path


async def test_control_clients_of_a_killed_daemon_are_detached_and_ours_stays(rig: Rig) -> None:
    await rig.start(rig.recorder())
    assert await rig.server.facts() is not None
    stale = await asyncio.create_subprocess_exec(
        *("tmux", "-C", "-S", str(rig.server.socket), "attach", "-t", "=claude-iap"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env=ENV,
    )
    for _ in range(500):  # bounded: the stranger has not attached yet at the first looks
        if await rig.server.detach_strangers():
            break
        await asyncio.sleep(0.02)
    assert await asyncio.wait_for(stale.wait(), 10) == 0
    assert await rig.server.facts() is not None
    assert rig.server.fallbacks == 0
