"""How hooks and record of Claude Code together tell the end of a turn; shapes measured: 2.1.197."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iapeer.routing.lanes import proofs
from iapeer.routing.lanes.letters import Observed
from iapeer.routing.lanes.order import TurnOrder
from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.sessions.evidence import Fact, read_hook, read_line
from iapeer.storage.ledger import messages, sessions, turns
from tests.unit.storage.ledger.samples import NOW, a_message, a_session, open_at

CLAUDE = load_manifest(SHIPPED / "claude.toml").evidence
CUT, NEXT, JOINED, LAST = (letter * 12 for letter in "abcd")


@dataclass
class Told:
    """A session whose hooks and record tell in the order of the calls; times are seconds."""

    conn: sqlite3.Connection
    order: TurnOrder = field(default_factory=TurnOrder)

    def hook(self, name: str, at: float, message_id: str = "") -> None:
        text = _envelope(message_id) if message_id else ""
        fact = read_hook({"hook_event_name": name, "prompt": text}, CLAUDE)
        assert fact is not None
        if fact.kind == "user":
            fact = msgspec.structs.replace(fact, at=NOW + at)
        self._take(Observed("s", (fact,)), at)

    def record(self, at: float, **line: Any) -> Fact:
        stamp = datetime.fromtimestamp(NOW + at, UTC).isoformat()
        data = json.dumps({"timestamp": stamp, **line}).encode()
        fact = read_line(data, CLAUDE.records, "transcript")
        assert fact is not None
        self._take(Observed("s", (fact,), offset=1), at)
        return fact

    def typed(self, at: float, message_id: str, source: str = "typed") -> None:
        content = _envelope(message_id)
        self.record(at, type="user", promptSource=source, message={"content": content})

    def taken_in(self, at: float, message_id: str) -> None:
        """What was queued goes into the running turn."""
        prompt = _envelope(message_id)
        self.record(at, type="attachment", attachment={"type": "queued_command", "prompt": prompt})

    def interrupted(self, at: float, **more: str) -> None:
        content = [{"type": "text", "text": "[Request interrupted by user]"}]
        self.record(at, type="user", message={"content": content}, **more)

    def over(self, at: float) -> None:
        self.record(at, type="system", subtype="turn_duration")

    def ends(self, *message_ids: str) -> list[list[str]]:
        return [[t.turn_end for t in turns.turns_of(self.conn, i)] for i in message_ids]

    def _take(self, observed: Observed, at: float) -> None:
        facts = self.order.place(observed)
        proofs.take(self.conn, "s", facts, NOW + at, has_turns=True)


def _envelope(message_id: str) -> str:
    return f'<iap from="bob" runtime="demo" id="{message_id}"><msg>x</msg></iap>'


@contextlib.contextmanager
def _told(path: Path) -> Iterator[Told]:
    with contextlib.closing(open_at(path)) as conn:
        sessions.open_session(conn, a_session(id="s"))
        for message_id in (CUT, NEXT, JOINED, LAST):
            messages.accept(conn, a_message(id=message_id), NOW)
            messages.begin_attempt(conn, message_id, "s", "paste", NOW)
        yield Told(conn)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with _told(tmp_path / "ledger.db") as opened:
        yield opened


def test_an_interrupt_before_the_first_byte_of_an_answer_is_one_though_its_record_does_not_say_so(
    told: Told,
) -> None:
    told.hook("UserPromptSubmit", 0.04, CUT)
    told.typed(0.0, CUT)
    told.interrupted(0.8)
    told.typed(0.84, NEXT, "queued")
    told.hook("UserPromptSubmit", 0.88, NEXT)
    told.hook("Stop", 0.98)
    told.over(1.0)
    assert told.ends(CUT, NEXT) == [["interrupted"], ["done"]]


def test_an_interrupt_that_takes_the_prompt_back_is_known_by_the_next_one(told: Told) -> None:
    # Nothing is written at all: the words stand in the composer again.
    told.typed(0.0, CUT)
    told.hook("UserPromptSubmit", 0.04, CUT)
    told.hook("UserPromptSubmit", 4.0, NEXT)
    assert told.ends(CUT, NEXT) == [["interrupted"], [""]]
    told.hook("Stop", 4.1)
    told.typed(3.96, NEXT)
    told.over(4.1)
    assert told.ends(CUT, NEXT) == [["interrupted"], ["done"]]


def test_an_interrupt_that_is_written_after_the_next_turn_has_ended_is_none_of_that_turn(
    told: Told,
) -> None:
    told.hook("UserPromptSubmit", 0.04, CUT)
    told.typed(0.0, CUT)
    told.hook("UserPromptSubmit", 0.77, NEXT)
    told.hook("Stop", 0.84)
    told.interrupted(0.72, interruptedMessageId="m")
    told.typed(0.75, NEXT, "queued")
    told.over(0.86)
    assert told.ends(CUT, NEXT) == [["interrupted"], ["done"]]


def test_an_interrupt_with_a_later_time_than_the_next_prompt_does_not_end_its_turn(
    told: Told,
) -> None:
    told.hook("UserPromptSubmit", 0.04, CUT)
    told.typed(0.0, CUT)
    told.hook("UserPromptSubmit", 0.796, NEXT)
    told.interrupted(0.8, interruptedMessageId="m")
    assert told.ends(CUT, NEXT) == [["interrupted"], [""]]
    told.typed(0.764, NEXT, "queued")
    assert told.ends(NEXT) == [[""]]
    told.hook("Stop", 0.885)
    told.over(0.893)
    assert told.ends(CUT, NEXT) == [["interrupted"], ["done"]]


def test_what_joins_a_running_turn_ends_it_not_and_ends_with_it(told: Told) -> None:
    told.hook("UserPromptSubmit", 0.04, CUT)
    told.typed(0.0, CUT)
    told.taken_in(1.0, JOINED)
    assert told.ends(CUT, JOINED) == [[""], [""]]
    told.hook("Stop", 2.0)
    assert told.ends(CUT, JOINED) == [["done"], ["done"]]


def test_hooks_alone_and_the_record_alone_tell_the_same(told: Told) -> None:
    told.typed(0.0, CUT)
    told.interrupted(0.8)
    told.typed(0.84, NEXT, "queued")
    told.over(1.0)
    told.hook("UserPromptSubmit", 2.0, JOINED)
    told.hook("UserPromptSubmit", 3.0, LAST)
    told.hook("Stop", 4.0)
    assert told.ends(CUT, NEXT, JOINED, LAST) == [
        ["interrupted"],
        ["done"],
        ["interrupted"],
        ["done"],
    ]


@settings(max_examples=40)
@given(data=st.data())
def test_however_far_the_record_is_behind_each_turn_ends_as_it_did(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Three turns, each of which may be cut off; the record's lines come as late as they like."""
    cut = [data.draw(st.booleans(), label=f"turn {n} is interrupted") for n in range(3)]
    with _told(tmp_path_factory.mktemp("turns") / "ledger.db") as told:
        lines: list[Any] = []
        for number, message_id in enumerate((CUT, NEXT, LAST)):
            at = float(number)
            lines.append(lambda at=at, i=message_id: told.typed(at, i))
            _some(lines, data)
            told.hook("UserPromptSubmit", at + 0.01, message_id)
            _some(lines, data)
            if cut[number]:
                # Dated after the next prompt.
                lines.append(lambda at=at: told.interrupted(at + 1.1, interruptedMessageId="m"))
            else:
                told.hook("Stop", at + 0.5)
                lines.append(lambda at=at: told.over(at + 0.5))
            _some(lines, data)
        for line in lines:
            line()
        expected = [["interrupted" if was else "done"] for was in cut]
        assert told.ends(CUT, NEXT, LAST) == expected


def _some(lines: list[Any], data: st.DataObject) -> None:
    """Read some of the lines that have been written."""
    for _ in range(data.draw(st.integers(0, len(lines)), label="lines that are read")):
        lines.pop(0)()


def test_what_was_not_stored_is_placed_again_as_before() -> None:
    told = TurnOrder()
    told.place(Observed("s", (Fact("user", (NEXT,), begins=True),)))
    late = Observed("s", (Fact("turn_end"), Fact("user", (NEXT,), begins=True)), offset=1)
    for _ in range(2):
        assert [fact.spares for fact in told.copy().place(late)] == [(NEXT,), ()]
    assert [fact.spares for fact in told.place(late)] == [(NEXT,), ()]
    assert [fact.spares for fact in told.place(late)] == [(), ()]
