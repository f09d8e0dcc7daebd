"""The frame holds: the pinned programs run here, alone in their HOME, and talk to the simulator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iapeer.testing.agents import OVERRIDE, AgentDaemon, SimulatedModel, pin_of
from iapeer.testing.leaks import processes_of, wait_for_none

EXTRA = [pytest.param(name, marks=pytest.mark.extra) for name in ("opencode", "qwen")]
ASK = {
    "claude": ("-p",),
    "codex": ("exec", "--skip-git-repo-check"),
    "opencode": ("run",),
    "qwen": ("-p",),
}


def run(program: Path, *words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        env=environ,
        cwd=environ["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("name", ["claude", "codex", *EXTRA])
def test_the_installed_program_is_the_pinned_version(
    name: str, agent_binaries: dict[str, Path], agent_environ: dict[str, str]
) -> None:
    if os.environ.get(OVERRIDE + name.upper()):
        pytest.skip(f"{OVERRIDE}{name.upper()} names another version")
    done = run(agent_binaries[name], "--version", environ=agent_environ)
    assert done.returncode == 0, done.stderr
    assert pin_of(name).version in done.stdout.split()


@pytest.mark.parametrize("name", ["claude", "codex", *EXTRA])
def test_a_question_reaches_the_simulated_model_and_its_answer_comes_back(
    name: str,
    agent_binaries: dict[str, Path],
    agent_environ: dict[str, str],
    model: SimulatedModel,
) -> None:
    done = run(agent_binaries[name], *ASK[name], "How are you, 日本?", environ=agent_environ)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip().endswith("ok")
    texts = [text for request in model.requests for text in request.user_texts]
    assert any("How are you, 日本?" in text for text in texts), texts


def test_a_daemon_starts_in_the_persons_home_with_our_programs_on_path(
    real_daemon: AgentDaemon, agent_home: Path, agent_binaries: dict[str, Path]
) -> None:
    real_daemon.create("dan")
    real_daemon.start()
    assert real_daemon.environ["HOME"] == str(agent_home)
    found = subprocess.run(
        ["/bin/sh", "-c", "command -v claude"],
        env=real_daemon.environ,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.strip()
    assert Path(found).samefile(agent_binaries["claude"])
    assert real_daemon.process is not None
    assert real_daemon.process.pid in {process.pid for process in processes_of(agent_home)}


def test_a_process_that_is_left_is_found_named_and_ended(empty_home: Path) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "forgotten"],
        env={"HOME": str(empty_home / "below")},
    )
    (described,) = wait_for_none(empty_home, timeout_s=0.2)
    assert described.startswith(f"{left.pid}: ")
    assert described.endswith("forgotten")
    assert left.wait(timeout=10) == -signal.SIGKILL
    assert wait_for_none(empty_home) == []
