"""Hooks of Qwen Code come in any order, their times tell how each turn ended; measured: 0.15.10."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iapeer.core.states import TurnEnd
from iapeer.routing.lanes import proofs
from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.sessions.evidence import read_hook
from iapeer.storage.ledger import messages, sessions, turns
from tests.unit.storage.ledger.samples import NOW, a_message, a_session, open_at

QWEN = load_manifest(SHIPPED / "qwen.toml").evidence
ONE, TWO, THREE = (letter * 12 for letter in "abc")
IDS = (ONE, TWO, THREE)


@dataclass
class Told:
    """A session whose hooks come in the order of the calls; `fired` are seconds."""

    conn: sqlite3.Connection
    paused: list[str] = field(default_factory=list)

    def hook(self, name: str, fired: float, message_id: str = "") -> None:
        stamp = datetime.fromtimestamp(NOW + fired, UTC).isoformat(timespec="milliseconds")
        fact = read_hook(
            {
                "hook_event_name": name,
                "timestamp": stamp.replace("+00:00", "Z"),
                "prompt": f'<iap from="bob" runtime="demo" id="{message_id}"><msg>x</msg></iap>',
                "error": "invalid_request",
            },
            QWEN,
        )
        assert fact is not None
        taken = proofs.take(self.conn, "s", [fact], NOW + fired + 60, has_turns=True)
        for _, end, ids in taken.ended:
            self.paused += ids if end == TurnEnd.API_ERROR else []

    def prompt(self, fired: float, message_id: str) -> None:
        self.hook("UserPromptSubmit", fired, message_id)

    def ends(self, *message_ids: str) -> list[str]:
        return [turns.turns_of(self.conn, i)[-1].turn_end for i in message_ids]


@contextlib.contextmanager
def _told(path: Path) -> Iterator[Told]:
    with contextlib.closing(open_at(path)) as conn:
        sessions.open_session(conn, a_session(id="s"))
        for message_id in IDS:
            messages.accept(conn, a_message(id=message_id), NOW)
            messages.begin_attempt(conn, message_id, "s", "paste", NOW)
        yield Told(conn)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with _told(tmp_path / "ledger.db") as opened:
        yield opened


def test_a_failure_counts_although_that_the_program_is_idle_came_before_it(told: Told) -> None:
    told.prompt(0.0, ONE)
    told.hook("Notification", 3.251)
    told.hook("StopFailure", 3.177)
    assert told.ends(ONE) == ["api_error"]
    # New messages wait, and the reader is told to carry on with this one.
    assert told.paused == [ONE]


def test_that_it_was_idle_before_a_turn_began_does_not_end_that_turn(told: Told) -> None:
    told.prompt(0.0, ONE)
    told.hook("Stop", 0.3)
    told.prompt(0.45, TWO)
    told.hook("Notification", 0.41)
    assert told.ends(ONE, TWO) == ["done", ""]
    told.hook("StopFailure", 0.9)
    told.hook("Notification", 0.95)
    assert told.ends(ONE, TWO) == ["done", "api_error"]


def test_a_turn_that_is_only_told_to_be_over_was_interrupted(told: Told) -> None:
    told.prompt(0.0, ONE)
    told.hook("Notification", 1.0)
    # A person's own words fail: that is nothing of ours.
    told.hook("UserPromptSubmit", 2.0)
    told.hook("StopFailure", 2.5)
    assert told.ends(ONE) == ["interrupted"]
    assert told.paused == []


def test_what_died_with_its_session_stays_so(told: Told) -> None:
    told.prompt(0.0, ONE)
    turns.end_turn(told.conn, "s", TurnEnd.DIED, NOW + 5.0)
    told.hook("StopFailure", 1.0)
    assert told.ends(ONE) == ["died"]


def test_a_clock_that_is_set_back_leaves_no_turn_open(told: Told) -> None:
    told.prompt(0.0, ONE)
    told.hook("Stop", -3600.0)
    assert told.ends(ONE) == ["done"]


@settings(max_examples=60)
@given(data=st.data())
def test_however_late_the_unawaited_hooks_come_each_turn_ends_as_it_did(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The program goes on only when prompt and Stop were told, and waits for no other hook."""
    kinds = ("done", "api_error", "interrupted")
    truth = [data.draw(st.sampled_from(kinds), label=f"end of turn {n}") for n in range(3)]
    with _told(tmp_path_factory.mktemp("turns") / "ledger.db") as told:
        late: list[tuple[str, float]] = []
        for number, message_id in enumerate(IDS):
            told.prompt(number, message_id)
            if truth[number] == "done":
                told.hook("Stop", number + 0.3)
            elif truth[number] == "api_error":
                late.append(("StopFailure", number + 0.3))
            late.append(("Notification", number + 0.4))
            for _ in range(data.draw(st.integers(0, len(late)), label="hooks that come")):
                told.hook(*late.pop(data.draw(st.integers(0, len(late) - 1), label="which")))
        for name, fired in data.draw(st.permutations(late), label="the rest"):
            told.hook(name, fired)
        assert told.ends(*IDS) == truth
