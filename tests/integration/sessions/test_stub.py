from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iapeer.core.errors import InvalidInput
from iapeer.sessions import stub
from iapeer.sessions.handoff import stub_argv, sweep_handoffs, write_handoff

SHOW = (
    "import json,os,sys;print(json.dumps([sys.argv[1:],dict(os.environ),os.getcwd(),os.getpid()]))"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path


def run(argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/nowhere", "LEAK": "yes", **env}
    return subprocess.run(
        argv, env=environ, cwd="/", capture_output=True, encoding="utf-8", timeout=20, check=False
    )


def test_the_stub_becomes_the_program_with_exactly_what_it_was_told(folder: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-c", SHOW, "a b", "", "é北", "x\ny", "--", ";"]
    env = {"PATH": "/usr/bin:/bin", "TOKEN": "s3cret '\"$", "EMPTY": "", "LC_ALL": "C.UTF-8"}
    path = write_handoff(folder, argv, env, folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with subprocess.Popen(
        stub_argv(path), env={"LEAK": "1"}, cwd="/", stdout=subprocess.PIPE
    ) as child:
        out, _ = child.communicate(timeout=20)
    words, environ, cwd, pid = json.loads(out)
    assert words == argv[5:]
    assert environ == env
    assert cwd == str(folder)
    assert pid == child.pid
    assert child.returncode == 0
    assert os.listdir(folder) == []


def test_the_program_is_found_in_its_own_path(folder: Path) -> None:
    path = write_handoff(folder, ["sh", "-c", "echo $0 found"], {"PATH": "/usr/bin:/bin"}, folder)
    assert run(stub_argv(path)).stdout == "sh found\n"


def test_bytes_that_are_no_utf8_survive_any_locale(folder: Path) -> None:
    odd = os.fsdecode(b"\xff\xc3")
    argv = ["sh", "-c", 'printf %s "$0$X" | od -An -tx1', odd]
    path = write_handoff(folder, argv, {"PATH": "/usr/bin:/bin", "X": odd}, folder)
    assert run(stub_argv(path), LC_ALL="POSIX").stdout.split() == ["ff", "c3", "ff", "c3"]


def test_the_program_ignores_no_signal(folder: Path) -> None:
    argv = ["grep", "SigIgn", "/proc/self/status"]
    path = write_handoff(folder, argv, {"PATH": "/usr/bin:/bin"}, folder)
    ignored = int(run(stub_argv(path)).stdout.split()[1], 16)
    # 32 and 33 belong to the C library: no program can set them, and some shells pass one on.
    assert ignored & ~(0b11 << 31) == 0


def test_signals_that_a_script_made_the_daemon_ignore_work_in_the_program(folder: Path) -> None:
    path = write_handoff(folder, ["grep", "SigIgn", "/proc/self/status"], {"PATH": "/bin"}, folder)
    deaf = ["/bin/sh", "-c", 'trap "" INT QUIT HUP TERM; exec "$@"', "sh", *stub_argv(path)]
    ignored = int(run(deaf).stdout.split()[1], 16)
    assert ignored & ~(0b11 << 31) == 0


@pytest.mark.requirement("launch:secrets")
def test_no_argument_shows_what_the_program_gets(folder: Path) -> None:
    path = write_handoff(folder, ["prog", "secret"], {"TOKEN": "secret"}, folder)
    assert "secret" not in " ".join(stub_argv(path))
    assert stub_argv(path)[1:3] == ["-I", "-S"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"argv": [], "env": {}, "cwd": "/"}', '{"argv": [1], "env": {}, "cwd": "/"}',
     '{"argv": ["true"], "env": [], "cwd": "/"}', '{"argv": ["true"], "env": {}}', "[" * 100_000,
     '{"argv": ["tr\\u0000ue"], "env": {}, "cwd": "/"}'],
)  # fmt: skip
def test_a_file_that_says_something_else_is_refused_in_one_line(folder: Path, content: str) -> None:
    path = folder / "f"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    assert_refused(run(stub_argv(path)))
    assert not path.exists()


def test_a_missing_program_or_folder_is_named(folder: Path) -> None:
    missing = write_handoff(folder, ["no-such-prog", "private"], {"PATH": "/usr/bin"}, folder)
    found = run(stub_argv(missing))
    assert_refused(found)
    assert "private" not in found.stderr
    assert "No such file" in found.stderr
    nowhere = write_handoff(folder, ["true"], {"PATH": "/usr/bin:/bin"}, folder / "gone")
    found = run(stub_argv(nowhere))
    assert_refused(found)
    assert "gone" in found.stderr


def test_a_file_others_can_read_a_link_a_pipe_and_no_file_are_refused(folder: Path) -> None:
    path = write_handoff(folder, ["true"], {"PATH": "/usr/bin:/bin"}, folder)
    path.chmod(0o640)
    assert_refused(run(stub_argv(path)))
    path.chmod(0o600)
    link = folder / "link"
    link.symlink_to(path)
    assert_refused(run(stub_argv(link)))
    pipe = folder / "pipe"
    os.mkfifo(pipe, 0o600)
    assert_refused(run(stub_argv(pipe)))
    assert_refused(run(stub_argv(folder / "none")))
    assert_refused(run(stub_argv(path)[:-1]))
    assert run(stub_argv(path)).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_file_of_another_user_is_refused(folder: Path) -> None:
    path = write_handoff(folder, ["true"], {"PATH": "/usr/bin:/bin"}, folder)
    os.chown(path, 65534, 65534)
    found = run(stub_argv(path))
    assert_refused(found)
    assert "not ours" in found.stderr


def test_what_no_exec_could_take_is_refused_before(folder: Path) -> None:
    for argv, env in (([], {}), (["a\0"], {}), (["a"], {"X": "\0"}), (["a"], {"A=B": "c"})):
        with pytest.raises(InvalidInput):
            write_handoff(folder, argv, env, folder)
    with pytest.raises(InvalidInput):
        write_handoff(folder, ["a" * (5 * 1024 * 1024)], {}, folder)
    assert os.listdir(folder) == []


def test_the_sweep_takes_old_handoffs_and_nothing_else(folder: Path) -> None:
    old = write_handoff(folder, ["true"], {}, folder)
    young = write_handoff(folder, ["true"], {}, folder)
    foreign = folder / "other"
    foreign.touch()
    for path in (old, foreign):
        os.utime(path, (time.time() - 3600,) * 2)
    assert sweep_handoffs(folder) == 1
    assert {path.name for path in folder.iterdir()} == {young.name, "other"}
    assert sweep_handoffs(folder / "none") == 0


def assert_refused(found: subprocess.CompletedProcess[str]) -> None:
    assert found.returncode == stub.FAILED
    assert found.stdout == ""
    assert found.stderr.startswith("iapeer: can't start the program: ")
    assert found.stderr.count("\n") == 1
