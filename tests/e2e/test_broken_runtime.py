"""A bad update breaks the program of twenty peers: few boots, one notice, nothing lost."""

from __future__ import annotations

import json
import shlex
import sys
import time
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from iapeer.core.envelope import decode
from iapeer.core.states import MessageState
from iapeer.registry.admin import BirthRules, CreateSpec, create
from iapeer.registry.index import Registry
from iapeer.storage.ledger import queries
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import MessageRow
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon, run_all, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.real_tmux, pytest.mark.slow]

PEERS = tuple(f"p{n:02}" for n in range(20))
EACH = 10
WATCHED_S = 8.0
MOST_BOOTS = 10
"""Three prove that the program is broken and three more have begun by then; the rest are probes,
after 2, 4 and 8 s at these settings."""
SETTINGS = {
    "boot_limit": 4,
    "boot_backoff_s": 0.2,
    "boot_backoff_max_s": 10.0,
    "wait_live_s": 0.0,
    "wait_waking_s": 0.0,
    "audit_s": 2.0,
}
BROKEN = "#!/bin/sh\necho 'tool: cannot find module' >&2\nsleep 0.2\nexit 1\n"
MENDED = f'#!/bin/sh\nexec {sys.executable} -P -m iapeer.apps.demo_agent "$@"\n'


def _install(program: Path, text: str) -> None:
    """Put a program in its place as an update does: whole, at once."""
    fresh = program.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o700)
    fresh.replace(program)


@pytest.fixture
def fleet(iapeer_daemon: TestDaemon) -> TestDaemon:
    root, paths = iapeer_daemon.root, Paths(iapeer_daemon.root)
    root.mkdir(mode=0o700)
    lines = [f"{name} = {value}" for name, value in SETTINGS.items()]
    (root / "iapeer.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _install(_program(iapeer_daemon), BROKEN)
    shipped = resources.files("iapeer.runtimes").joinpath("manifests/demo.toml")
    text = shipped.read_text(encoding="utf-8").replace('id = "demo"', 'id = "tool"')
    text = text.replace(
        '["{python}", "-P", "-m", "iapeer.apps.demo_agent"', f'["{_program(iapeer_daemon)}"'
    )
    (root / "runtimes").mkdir(mode=0o700)
    (root / "runtimes" / "tool.toml").write_text(text, encoding="utf-8")
    registry, rules = Registry(paths, sandbox=True), BirthRules(known_runtimes=frozenset({"tool"}))
    for name in PEERS:
        create(paths, registry, CreateSpec(name=name, runtime="tool"), rules)
    iapeer_daemon.create("op", runtime="api")
    iapeer_daemon.start()
    return iapeer_daemon


def _program(daemon: TestDaemon) -> Path:
    return daemon.base / "tool"


def _messages(fleet: TestDaemon) -> list[MessageRow]:
    with offline_read(Paths(fleet.root).ledger) as conn:
        return queries.select(conn, "runtime = ?", ("tool",))


def _boots(fleet: TestDaemon) -> int:
    """Count the boots that were really made."""
    with offline_read(Paths(fleet.root).ledger) as conn:
        return len(rows.all_sessions(conn))


def _log(fleet: TestDaemon, ev: str, **wanted: str) -> list[dict[str, str]]:
    text = Paths(fleet.root).lifecycle_log.read_text(encoding="utf-8")
    found = [dict(word.split("=", 1) for word in shlex.split(line)) for line in text.splitlines()]
    return [line for line in found if line["ev"] == ev and wanted.items() <= line.items()]


def _problems(fleet: TestDaemon) -> list[str]:
    status: dict[str, Any] = json.loads(fleet.run("status", "--json").stdout)["daemon"]
    return list(status["problems"])


def _held(fleet: TestDaemon) -> None:
    """Everything waits, and says why; the peer that probes is being woken."""
    messages = _messages(fleet)
    assert len(messages) == len(PEERS) * EACH
    assert {row.state for row in messages} == {MessageState.HELD}
    assert {row.reason for row in messages} <= {"broken", "waking"}
    assert sum(row.reason != "broken" for row in messages) <= EACH


@pytest.mark.requirement("lifecycle:crash-loop", "lifecycle:host-budget")
def test_a_broken_update_of_a_whole_fleet_costs_few_boots_and_no_message(
    fleet: TestDaemon,
) -> None:
    def send(peer: str) -> None:
        for n in range(EACH):
            fleet.send(peer, f"NOTHING\n{n}", "api-op")

    run_all([partial(send, peer) for peer in PEERS])
    wait_until(lambda: _log(fleet, "runtime-broken"), 60, "the host to find out")
    broke_at = time.monotonic()
    wait_until(lambda: time.monotonic() - broke_at > WATCHED_S, WATCHED_S + 5)
    boots = _boots(fleet)
    assert boots <= MOST_BOOTS
    assert len(_log(fleet, "wake", mode="fail")) in (boots - 1, boots)
    _held(fleet)
    # The operator is told once, in the log and in the status, with what to do about it.
    (told,) = _log(fleet, "runtime-broken")
    assert told["runtime"] == "tool"
    (problem,) = _problems(fleet)
    assert "cannot find module" in problem
    assert "iapeer start --all" in problem

    # A daemon that is killed does not begin the same misery anew.
    killed_at = time.monotonic()
    fleet.kill()
    fleet.start()
    time.sleep(1.0)
    # One that was under way, one that begins, and probes, which are 2 s apart and more.
    assert _boots(fleet) <= boots + 2 + (time.monotonic() - killed_at) / 2
    assert len(_problems(fleet)) == 1
    _held(fleet)

    _install(_program(fleet), MENDED)
    fleet.run("start", "--all")
    wait_until(lambda: all(row.state == "seen" for row in _messages(fleet)), 60, "all to be read")
    for peer in PEERS:
        records = fleet.records(peer, "tool")
        bodies = [decode(str(r["text"])).body for r in records if r["type"] == "user"]
        assert bodies == [f"NOTHING\n{n}" for n in range(EACH)], peer
    assert _problems(fleet) == []
    assert [row.id for row in _messages(fleet) if row.dup] == []
