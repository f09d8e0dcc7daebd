from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from iapeer.registry.memory import command as running
from iapeer.registry.memory.command import Job, Ran, explain, handed_on, run_job

ENVIRON = {"PATH": "/usr/bin:/bin"}


def sh(
    script: str, cwd: Path, *, limit_s: float = 20.0, stop: threading.Event | None = None
) -> Ran:
    job = Job(argv=("/bin/sh", "-c", script), cwd=cwd, environ=ENVIRON, limit_s=limit_s)
    return run_job(job, stop)


def gone(pid_file: Path) -> bool:
    """Wait until the process whose pid a script wrote is gone; bounded."""
    deadline = time.monotonic() + 10
    pid = int(pid_file.read_text(encoding="ascii"))
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_program_that_ends_well_is_ok_with_its_output(tmp_path: Path) -> None:
    ran = sh("pwd; echo careful >&2", tmp_path)
    assert (ran.state, ran.exit, ran.detail) == ("ok", 0, "careful")
    assert ran.output.decode() == f"{tmp_path}\n"


@pytest.mark.requirement("memory:provision:outcomes")
def test_a_failure_has_its_status_and_the_end_of_its_stderr_on_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.stderr.write('x' * 100_000 + '\\nlast \\x1b[31m words\\n'); sys.exit(3)"
    )
    job = Job(argv=(sys.executable, "-c", script), cwd=tmp_path, environ=ENVIRON)
    ran = run_job(job)
    assert (ran.state, ran.exit) == ("failed", 3)
    assert len(ran.detail) <= 400
    assert ran.detail.endswith("x last [31m words")
    assert explain(ran) == f"failed (exit 3): {ran.detail}"


def test_death_by_a_signal_is_a_failure(tmp_path: Path) -> None:
    assert sh("kill -9 $$", tmp_path).exit == -9


@pytest.mark.requirement("memory:provision:outcomes")
@pytest.mark.parametrize("program", ["no-such", "plain", "folder", "bad\0name"])
def test_what_can_not_be_run_is_not_executable(tmp_path: Path, program: str) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    ran = run_job(Job(argv=(f"{tmp_path}/{program}",), cwd=tmp_path, environ=ENVIRON))
    assert (ran.state, ran.exit) == ("not-executable", None)
    assert ran.detail


@pytest.mark.requirement("memory:provision:limit")
def test_at_the_limit_the_whole_group_is_ended(tmp_path: Path) -> None:
    script = (
        "trap '' TERM; (trap '' TERM; exec sleep 300) & echo $! > child; echo $$ > leader;"
        " echo stuck >&2; while :; do sleep 1; done"
    )
    began = time.monotonic()
    ran = sh(script, tmp_path, limit_s=2.0)
    assert (ran.state, ran.exit, ran.detail) == ("timeout", None, "stuck")
    assert time.monotonic() - began < 60
    assert gone(tmp_path / "leader")
    assert gone(tmp_path / "child")


@pytest.mark.requirement("memory:provision:limit")
def test_a_program_is_ended_early_when_its_caller_goes_down(tmp_path: Path) -> None:
    stop = threading.Event()
    caller = threading.Thread(target=_set_when_made, args=(stop, tmp_path / "leader"))
    caller.start()
    began = time.monotonic()
    script = "echo $$ > new; mv new leader; exec sleep 300"
    ran = sh(script, tmp_path, limit_s=300, stop=stop)
    caller.join(10)
    assert ran.state == "timeout"
    assert time.monotonic() - began < 60
    assert gone(tmp_path / "leader")


def _set_when_made(event: threading.Event, path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    event.set()


def test_the_end_of_the_program_counts_not_of_what_it_leaves_behind(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = sh("sleep 300 & echo $! > child; echo said", tmp_path)
    assert (ran.state, ran.output) == ("ok", b"said\n")
    assert time.monotonic() - began < 60
    psutil.Process(int((tmp_path / "child").read_text(encoding="ascii"))).kill()


def test_endless_output_does_not_fill_memory(tmp_path: Path) -> None:
    ran = sh("yes | head -c 5000000; yes e | head -c 5000000 >&2", tmp_path)
    assert ran.state == "ok"
    assert len(ran.output) == running._OUTPUT
    assert len(ran.detail) <= 400


def test_of_what_it_says_only_the_end_is_kept() -> None:
    said = running._Said()
    for number in range(100):
        said.take(b"%04d" % number * 1000, is_error=True)
    assert len(said.errors) == running._TAIL
    assert said.errors.endswith(b"0099")


@pytest.mark.requirement("memory:provision:process")
def test_it_reads_nothing_of_ours_and_has_a_group_of_its_own(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"typed")
    os.close(writer)
    ours = os.dup(0)
    try:
        os.dup2(reader, 0)
        ran = sh("cat; ps -o pgid= -p $$", tmp_path)
    finally:
        os.dup2(ours, 0)
        os.close(ours)
        os.close(reader)
    assert int(ran.output) != os.getpgid(0)


@pytest.mark.requirement("memory:provision:process")
def test_secrets_and_who_we_are_are_not_handed_on() -> None:
    environ = {"PEER_TOKEN": "s", "PEER_IDENTITY": "i", "IAPEER_BEARER_TOKEN": "b"}
    kept = {"PATH": "/bin", "IAPEER_ROOT": "/r", "X_API_KEY": "k", "IAPEER_PEER_CWD": "/c"}
    assert handed_on({**environ, **kept}) == kept
