"""The installer with an npm of ours, which does what the test wants and notes how it was called."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from iapeer.testing.agents import Installer, install, locate, npm, pin_of
from iapeer.testing.agents.__main__ import main
from iapeer.testing.agents.errors import (
    AgentError,
    DownloadFailed,
    NotForThisMachine,
    NotInstalled,
    WrongContent,
)

FAKE = """\
#!{python} -I
import json, os, pathlib, sys, time
notes = pathlib.Path(os.environ["npm_config_notes"])
call = dict(argv=sys.argv[1:], env=dict(os.environ), pid=os.getpid())
with open(notes, "a", encoding="utf-8") as sink:
    sink.write(json.dumps(call) + chr(10))
said = len(notes.read_text(encoding="utf-8").splitlines())
plan = os.environ["npm_config_plan"].split()
what = plan[min(said, len(plan)) - 1]
if what == "hang":
    time.sleep(60)
if what == "fail":
    sys.exit("npm error code ECONNREFUSED" + chr(10) + "npm error reason: nobody there")
if what == "wrong":
    sys.exit("npm error code EINTEGRITY" + chr(10) + "npm error wanted sha512-a but got sha512-b")
(package,) = json.loads(pathlib.Path("package.json").read_text(encoding="utf-8"))["dependencies"]
lock = json.loads(pathlib.Path("package-lock.json").read_text(encoding="utf-8"))
assert "node_modules/" + package in lock["packages"]
folder = pathlib.Path("node_modules", package)
folder.mkdir(parents=True)
(folder / "README").write_text("words", encoding="utf-8")
if what != "empty":
    (folder / "claude").write_text("#!/bin/sh" + chr(10) + "echo it runs", encoding="utf-8")
"""


@dataclass
class Lab:
    cache: Path
    environ: dict[str, str]
    notes: Path
    said: list[str]

    def plan(self, *steps: str) -> Installer:
        self.environ["npm_config_plan"] = " ".join(steps)
        return self.installer()

    def installer(self) -> Installer:
        return Installer(self.cache, self.said.append, self.environ)

    def calls(self) -> list[dict[str, object]]:
        if not self.notes.exists():
            return []
        lines = self.notes.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def left(self) -> set[str]:
        return {path.name for path in self.cache.iterdir()}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(install, "PAUSES_S", (0.0, 0.0))
    fake = tmp_path / "bin" / "npm"
    fake.parent.mkdir()
    fake.write_text(FAKE.format(python=sys.executable), encoding="utf-8")
    fake.chmod(0o755)
    notes = tmp_path / "notes"
    environ = {"PATH": f"{fake.parent}:/usr/bin:/bin", "npm_config_notes": str(notes)}
    return Lab(tmp_path / "cache", environ, notes, [])


FOLDER = f"claude-{pin_of('claude').version}"


def test_an_install_is_found_again_and_not_done_twice(lab: Lab) -> None:
    with pytest.raises(NotInstalled, match="agents install claude"):
        locate("claude", lab.cache)
    program = lab.plan("ok").install("claude")
    assert program == locate("claude", lab.cache)
    assert program.name == "claude"
    assert os.access(program, os.X_OK)
    began = time.monotonic()
    assert lab.installer().install("claude") == program
    assert time.monotonic() - began < 30
    assert len(lab.calls()) == 1
    assert lab.left() == {FOLDER, ".claude.lock"}


def test_npm_sees_its_own_settings_and_nothing_else_of_the_person(lab: Lab, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".npmrc").write_text("strict-ssl=true\n", encoding="utf-8")
    lab.environ |= {
        "HOME": str(home),
        "SECRET": "s",
        "NODE_OPTIONS": "--require evil",
        "NPM_CONFIG_CACHE": str(home / "npm"),
        "npm_config_registry": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:8",
    }
    lab.plan("ok").install("claude")
    (call,) = lab.calls()
    assert call["argv"][:2] == ["ci", "--ignore-scripts"]  # type: ignore[index]
    environ = dict(call["env"])  # type: ignore[call-overload]
    scratch = str(lab.cache / ".new-claude-")
    assert environ.pop("HOME").startswith(scratch)
    assert environ.pop("npm_config_cache").startswith(scratch)
    environ.pop("LC_CTYPE", None)  # Python's own, in a C locale
    assert environ == {
        "PATH": lab.environ["PATH"],
        "npm_config_notes": str(lab.notes),
        "npm_config_plan": "ok",
        "npm_config_userconfig": str(home / ".npmrc"),
        "npm_config_registry": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:8",
    }


def test_two_failures_are_followed_by_a_third_try(lab: Lab) -> None:
    lab.plan("fail", "fail", "ok").install("claude")
    assert len(lab.calls()) == 3
    assert [line for line in lab.said if "failed" in line] == [
        f"claude {pin_of('claude').version}: try {number} of 3 failed: npm ended with status 1: "
        "code ECONNREFUSED; reason: nobody there"
        for number in (1, 2)
    ]


def test_three_failures_are_the_end_and_leave_nothing(lab: Lab) -> None:
    with pytest.raises(DownloadFailed, match="in 3 tries"):
        lab.plan("fail").install("claude")
    assert len(lab.calls()) == 3
    assert lab.left() == {".claude.lock"}


def test_another_content_is_refused_at_once(lab: Lab) -> None:
    with pytest.raises(WrongContent, match="wanted sha512-a but got sha512-b"):
        lab.plan("wrong", "ok").install("claude")
    assert len(lab.calls()) == 1
    assert lab.left() == {".claude.lock"}


def test_a_package_without_the_program_is_no_install(lab: Lab) -> None:
    with pytest.raises(AgentError, match="holds no claude"):
        lab.plan("empty").install("claude")
    assert lab.left() == {".claude.lock"}


def test_a_damaged_install_and_an_older_pin_are_replaced(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = lab.plan("ok").install("claude")
    os.truncate(program, 3)
    with pytest.raises(NotInstalled):
        locate("claude", lab.cache)
    assert lab.installer().install("claude").stat().st_size > 3
    assert len(lab.calls()) == 2
    monkeypatch.setattr(install, "stamp", lambda *_: "of another pin")
    lab.installer().install("claude")
    assert len(lab.calls()) == 3


def test_many_at_once_download_once(lab: Lab) -> None:
    lab.plan("ok")
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: lab.installer().install("claude"), range(8)))
    assert found == {locate("claude", lab.cache)}
    assert len(lab.calls()) == 1


def test_what_a_killed_install_left_is_cleared_by_the_next(lab: Lab) -> None:
    (lab.cache / ".new-claude-killed" / "project").mkdir(parents=True)
    (lab.cache / ".new-codex-running").mkdir()
    lab.plan("ok").install("claude")
    assert lab.left() == {FOLDER, ".claude.lock", ".new-codex-running"}


def test_a_stopped_install_ends_its_npm_and_leaves_nothing(lab: Lab) -> None:
    installer = lab.plan("hang")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(installer.install, "claude")
        deadline = time.monotonic() + 20
        while not lab.calls():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        installer.stop.set()
        with pytest.raises(AgentError, match="stopped"):
            running.result(timeout=20)
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(lab.calls()[0]["pid"])), 0)
    assert lab.left() == {".claude.lock"}


def test_a_try_that_does_not_end_is_a_failed_one(lab: Lab, tmp_path: Path) -> None:
    lab.plan("hang")
    project, scratch = tmp_path / "p", tmp_path / "s"
    project.mkdir()
    scratch.mkdir()
    run = npm.NpmRun(npm.find_npm(lab.environ), project, scratch, lab.environ, threading.Event())
    with pytest.raises(DownloadFailed, match=r"no end after 0\.5 s"):
        run.ci(lambda _size, _seconds: None, try_s=0.5)


def test_progress_is_told_in_megabytes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm, "PROGRESS_S", 0.0)
    monkeypatch.setattr(npm, "_size", lambda _folder: 21_000_000)
    lab.plan("ok").install("claude")
    assert any(": 42 MB on disk after " in line for line in lab.said)


@pytest.mark.parametrize(
    ("plan", "ci", "status", "words"),
    [
        ("ok", "true", 0, ""),
        ("fail", "", 75, "gate not run"),
        ("fail", "true", 75, "gate not run"),
        ("wrong", "true", 1, "not what is pinned"),
        ("none", "", 69, "npm is missing"),
        ("none", "0", 69, "npm is missing"),
        ("none", "true", 75, "gate not run"),
    ],
)
def test_the_exit_status_tells_a_skip_from_a_gate_that_did_not_run(
    plan: str,
    ci: str,
    status: int,
    words: str,
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab.plan(plan)
    if plan == "none":
        lab.environ["PATH"] = "/nonexistent"
    for name, value in {**lab.environ, "CI": ci}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["install", "claude", "--cache", str(lab.cache)]) == status
    out, err = capsys.readouterr()
    assert words in err
    assert ("gate not run" in err) is (status == 75)
    assert "installed in" in out or status


def test_an_installed_agent_needs_no_npm(lab: Lab) -> None:
    program = lab.plan("ok").install("claude")
    lab.environ["PATH"] = "/nonexistent"
    assert lab.installer().install("claude") == program
    shutil.rmtree(lab.cache / FOLDER)
    with pytest.raises(NotForThisMachine, match="npm is missing"):
        lab.installer().install("claude")
