from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from iapeer.core import env
from iapeer.core.errors import DaemonRunning, IapeerError
from iapeer.core.settings import Settings, make_settings
from iapeer.host import ondemand, run
from iapeer.host.common import check_owner
from iapeer.host.ondemand import (
    OUTPUTS_KEPT,
    Started,
    daemon_environ,
    serve_on_demand,
    start_daemon,
)
from iapeer.storage.atomic import ensure_private_dir
from iapeer.storage.locks import TryLock
from iapeer.storage.paths import Paths


def house(home: Path, root: Path | None = None) -> tuple[Settings, dict[str, str]]:
    environ = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin"}
    if root is not None:
        environ[env.ROOT] = str(root)
    return make_settings(environ), environ


def fake_systemctl(home: Path, environment: str = "", loaded: str = "loaded") -> Path:
    """A systemctl that writes down what it is asked, with what it is asked it."""
    (home / "bin").mkdir()
    program = home / "bin" / "systemctl"
    said = home / "asked"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@ HOME=$HOME PEER=$PEER_IDENTITY" >> {said}\n'
        f"[ $2 = show ] && printf 'LoadState={loaded}\\nEnvironment={environment}\\n'\n"
        "exit 0\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    return said


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """No process is started and nobody answers; what would be is written down."""
    found: list[dict[str, str]] = []

    def spawn(_output: object, environ: dict[str, str]) -> None:
        found.append(environ)

    monkeypatch.setattr(ondemand, "_spawn", spawn)
    monkeypatch.setattr(ondemand, "READY_S", 0.0)
    return found


def test_the_daemon_inherits_what_it_needs_and_nothing_of_the_agent_that_started_it() -> None:
    kept = {
        "PATH": "/bin",
        "HOME": "/h",
        "USER": "u",
        "LANG": "C",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SHELL": "/bin/sh",
        "XDG_RUNTIME_DIR": "/run/user/1",
        "HTTPS_PROXY": "http://proxy",
        "IAPEER_ROOT": "/r",
        "IAPEER_BEARER_TOKEN": "the daemon must demand it",
    }
    dropped = {
        **dict.fromkeys(env.PEER_VARIABLES, "x"),
        "CLAUDECODE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CODEX_HOME": "/c",
        "ANTHROPIC_API_KEY": "secret",
        "GITHUB_TOKEN": "secret",
        "PYTHONPATH": "/x",
        "TMUX": "/tmp/x",
        "PWD": "/somewhere",
        "LD_PRELOAD": "/x.so",
        env.FAULT: "ledger.commit",
    }
    assert daemon_environ({**kept, **dropped}) == kept


def test_the_users_unit_is_started_where_it_serves_this_root(
    tmp_path: Path, spawned: list[dict[str, str]]
) -> None:
    asked = fake_systemctl(tmp_path)
    settings, environ = house(tmp_path)
    assert start_daemon(settings, {**environ, "PEER_IDENTITY": "demo-x"}) is Started.STARTING
    lines = asked.read_text(encoding="utf-8").splitlines()
    assert lines[1] == f"--user start --no-block iapeer.service HOME={tmp_path} PEER="
    assert spawned == []


def test_the_unit_of_another_root_is_left_alone(
    tmp_path: Path, spawned: list[dict[str, str]]
) -> None:
    asked = fake_systemctl(tmp_path)
    settings, environ = house(tmp_path, tmp_path / "other")
    start_daemon(settings, environ)
    assert len(asked.read_text(encoding="utf-8").splitlines()) == 1
    assert len(spawned) == 1


@pytest.mark.parametrize("quote", ['"', '$"'])
def test_a_unit_says_by_its_environment_which_root_it_serves(
    tmp_path: Path, spawned: list[dict[str, str]], quote: str
) -> None:
    other = tmp_path / "the other"
    asked = fake_systemctl(tmp_path, f'A=1 {quote}IAPEER_ROOT={other}"')
    start_daemon(*house(tmp_path, other))
    assert "start" in asked.read_text(encoding="utf-8").splitlines()[1]
    start_daemon(*house(tmp_path))
    assert len(spawned) == 1


@pytest.mark.parametrize("loaded", ["not-found", "masked", "error"])
def test_a_unit_that_is_not_there_is_not_started(
    tmp_path: Path, spawned: list[dict[str, str]], loaded: str
) -> None:
    fake_systemctl(tmp_path, loaded=loaded)
    start_daemon(*house(tmp_path))
    assert len(spawned) == 1


def test_nothing_is_started_while_somebody_else_is_starting(
    tmp_path: Path, spawned: list[dict[str, str]]
) -> None:
    settings, environ = house(tmp_path, tmp_path / "r")
    paths = Paths(settings.root)
    ensure_private_dir(paths.state)
    lock = TryLock(paths.start_lock)
    assert lock.acquire()
    assert start_daemon(settings, environ) is Started.STARTING
    assert spawned == []
    lock.release()
    start_daemon(settings, environ)
    assert len(spawned) == 1


class FakeDaemon:
    """Stands in for `run_daemon`: another daemon holds the root for the first `busy` calls."""

    def __init__(self, busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy = busy
        self.calls = 0
        monkeypatch.setattr(run, "run_daemon", self)

    def __call__(self, _settings: Settings, *, ready: Callable[[str], None]) -> int:
        self.calls += 1
        if self.calls <= self.busy:
            raise DaemonRunning("another daemon owns this root")
        ready("READY")
        return 0


def test_a_daemon_that_is_going_down_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = house(tmp_path, tmp_path / "r")
    daemon, said = FakeDaemon(3, monkeypatch), list[str]()
    assert serve_on_demand(settings, said.append) == 0
    assert (daemon.calls, said) == (4, ["READY"])
    assert TryLock(Paths(settings.root).start_lock).acquire()


def test_a_daemon_that_neither_answers_nor_goes_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = house(tmp_path, tmp_path / "r")
    monkeypatch.setattr(ondemand, "HAND_OVER_S", 0.2)
    daemon = FakeDaemon(10**6, monkeypatch)
    with pytest.raises(DaemonRunning):
        serve_on_demand(settings, lambda _line: None)
    assert daemon.calls > 1


def test_a_daemon_that_answers_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = house(tmp_path, tmp_path / "r")
    daemon = FakeDaemon(10**6, monkeypatch)
    monkeypatch.setattr(ondemand, "_answers", lambda _settings: daemon.calls == 2)
    assert serve_on_demand(settings, lambda _line: None) == 0
    assert daemon.calls == 2


def test_who_comes_second_ends_quietly_before_anything_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = house(tmp_path, tmp_path / "r")
    daemon = FakeDaemon(0, monkeypatch)
    monkeypatch.setattr(ondemand, "PROBE_S", 0.0)
    ensure_private_dir(Paths(settings.root).state)
    lock = TryLock(Paths(settings.root).start_lock)
    assert lock.acquire()
    assert serve_on_demand(settings, lambda _line: None) == 0
    assert daemon.calls == 0
    lock.release()


def test_what_daemons_print_is_private_and_does_not_pile_up(
    tmp_path: Path, spawned: list[dict[str, str]]
) -> None:
    settings, environ = house(tmp_path, tmp_path / "r")
    logs = Paths(settings.root).logs
    ensure_private_dir(logs)
    (logs / "delivery.log").write_text("x", encoding="utf-8")
    for number in range(OUTPUTS_KEPT + 3):
        start_daemon(settings, environ)
        newest = max(logs.glob("daemon-*.log"))
        newest.write_text(str(number), encoding="utf-8")
    outputs = sorted(logs.glob("daemon-*.log"))
    assert [path.read_text(encoding="utf-8") for path in outputs] == list("34567")
    assert {path.stat().st_mode & 0o777 for path in outputs} == {0o600}
    assert (logs / "delivery.log").exists()


def test_what_losers_leave_does_not_push_out_what_the_daemon_has_said(
    tmp_path: Path, spawned: list[dict[str, str]]
) -> None:
    settings, environ = house(tmp_path, tmp_path / "r")
    logs = Paths(settings.root).logs
    start_daemon(settings, environ)
    (said,) = logs.glob("daemon-*.log")
    said.write_text("READY", encoding="utf-8")
    for _ in range(OUTPUTS_KEPT + 3):
        start_daemon(settings, environ)
    assert said.exists()
    for path in logs.glob("daemon-*.log"):
        os.utime(path, (0, 0))
    start_daemon(settings, environ)
    assert said.exists()
    assert len(list(logs.glob("daemon-*.log"))) == 2


def test_a_root_that_does_not_exist_is_nobodys(tmp_path: Path) -> None:
    check_owner(tmp_path / "missing")
    check_owner(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_accounts_root_is_refused_before_anything_is_made_in_it(
    tmp_path: Path, spawned: list[dict[str, str]]
) -> None:
    root = tmp_path / "r"
    root.mkdir()
    os.chown(root, 65534, 65534)
    settings, environ = house(tmp_path, root)
    with pytest.raises(IapeerError, match="belongs to uid 65534, this is uid 0") as caught:
        start_daemon(settings, environ)
    assert caught.value.code == "foreign_account"
    assert list(root.iterdir()) == []
    assert spawned == []
