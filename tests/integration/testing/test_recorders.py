"""Recorders of a throw-away root are cleared away; the kill run tells who may run at its end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iapeer.sessions.process import is_alive, start_time
from iapeer.testing.chaos import remains as remains_module
from iapeer.testing.chaos.fleet import Fleet
from iapeer.testing.chaos.history import History, Stray, read_history
from iapeer.testing.chaos.options import ChaosOptions
from iapeer.testing.chaos.remains import Remains
from iapeer.testing.chaos.sampler import Sampler
from iapeer.testing.daemon import TestDaemon, wait_until
from iapeer.testing.recorders import Recorder, end_recorders, recorders

pytestmark = pytest.mark.real_tmux

AGENT = "agent0"
SMALL = ChaosOptions(agents=1, inboxes=0, senders=1, command_senders=0, mcp_senders=0)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """One agent's session lives, its recorder watches, and the daemon has ended."""
    made = Fleet(SMALL, TestDaemon.make())
    try:
        made.prepare()
        made.start()
        made.daemon.ask("POST", f"/api/v1/peers/{AGENT}/start", {})
        sent = made.daemon.send(AGENT, "hello", "api-sender0")
        made.daemon.wait_state(sent["message_id"], "seen")
        wait_until(lambda: list(recorders(made.daemon.root)), reason="the recorder to watch")
        made.kill(signal.SIGTERM)
        yield made
    finally:
        made.daemon.clean_up()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong here stays wrong."""
    monkeypatch.setattr(remains_module, "LEAVE_S", 0.2)


def _strays(fleet: Fleet, *, recorders_left: int = 1) -> list[str]:
    """What the look with the daemon gone and the session alive finds."""
    remains, history = _remains(fleet)
    remains.at_rest()
    assert remains.recorders_left == recorders_left
    return _found(history)


def _strays_at_the_end(fleet: Fleet) -> list[str]:
    remains, history = _remains(fleet)
    remains.at_end()
    return _found(history)


def _remains(fleet: Fleet) -> tuple[Remains, History]:
    history = History(fleet.daemon.base / "history.jsonl")
    return Remains(fleet, Sampler(fleet, history), history), history


def _found(history: History) -> list[str]:
    history.close()
    return [e.detail for e in read_history(history.path) if isinstance(e, Stray)]


def _only(fleet: Fleet) -> Recorder:
    (found,) = recorders(fleet.daemon.root)
    return found


@contextmanager
def _one_more(fleet: Fleet, pid: int) -> Iterator[None]:
    """Let one more recorder watch, whatever process it be told to wait for."""
    (row,) = fleet.live_sessions()
    assert row.socket
    words = ["watch", "iap-canary-more", row.socket, str(pid), str(start_time(pid)), "demo-x", "x"]
    script = str(fleet.paths.canary_script)
    with subprocess.Popen(["/bin/sh", script, *words, "", "0"]) as process:
        try:
            wait_until(fleet.paths.canary_mark("x").exists, reason="one more recorder to watch")
            yield
        finally:
            process.terminate()


def test_a_recorder_whose_server_lives_is_known_and_goes_when_that_goes(fleet: Fleet) -> None:
    recorder = _only(fleet)
    assert _strays(fleet) == []
    assert recorder.is_running()
    assert _strays_at_the_end(fleet) == []
    assert not recorder.is_running()
    assert list(fleet.paths.server_deaths.iterdir()), "its server's end was recorded"


def test_a_second_recorder_of_one_server_is_found(fleet: Fleet, quick: None) -> None:
    server = _only(fleet).server
    assert server is not None
    with _one_more(fleet, server[0]):
        first, second = _strays(fleet, recorders_left=2)
    assert first != second
    assert all(str(fleet.paths.canary_script) in text for text in (first, second))


def test_a_recorder_without_a_server_of_the_ledger_is_found(fleet: Fleet, quick: None) -> None:
    with _one_more(fleet, os.getpid()):
        recorder, client = _strays(fleet)
    assert str(fleet.paths.canary_script) in recorder
    assert "wait-for iap-canary-more" in client


def test_a_recorder_that_outlives_its_server_is_found(fleet: Fleet, quick: None) -> None:
    recorder = _only(fleet)
    os.kill(recorder.pid, signal.SIGSTOP)
    (stray,) = [text for text in _strays_at_the_end(fleet) if "after the end" in text]
    assert str(fleet.paths.canary_script) in stray
    os.kill(recorder.pid, signal.SIGCONT)


def test_clearing_a_root_away_ends_its_recorders_and_they_report_nothing(fleet: Fleet) -> None:
    recorder = _only(fleet)
    end_recorders(fleet.daemon.root)
    assert not recorder.is_running()
    assert not list(fleet.paths.server_deaths.iterdir())
    (row,) = fleet.live_sessions()
    assert row.server_pid is not None
    assert row.server_start is not None
    assert is_alive(row.server_pid, int(row.server_start)), "the session is not touched"


def test_a_test_daemon_leaves_no_recorder(fleet: Fleet) -> None:
    recorder, base = _only(fleet), fleet.daemon.base
    left = fleet.daemon.clean_up()
    assert recorder.pid not in left
    assert not recorder.is_running()
    assert not Path(base).exists()
