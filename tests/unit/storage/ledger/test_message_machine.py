"""The message functions against a model, under any order of calls."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from iapeer.core.states import TRANSITIONS, UNDELIVERED, Event, MessageState
from iapeer.storage.ledger import messages
from iapeer.storage.ledger.rows import MessageRow
from tests.unit.storage.ledger.samples import accepted, open_at

S, E = MessageState, Event
RUNTIMES = st.sampled_from(["claude", "codex"])
SESSIONS = st.sampled_from(["s1", "s2"])
REASONS = st.sampled_from(["busy", "composer", "waking"])
OTHER_EVENTS = st.sampled_from([event for event in E if event is not E.HAND_OVER])


@dataclass
class Model:
    runtime: str
    state: MessageState = S.ACCEPTED
    reason: str = ""
    dup: bool = False
    attempt: int = 0
    session: str = ""
    woke: bool = False
    past: list[tuple[str, MessageState]] = field(default_factory=lambda: [("accept", S.ACCEPTED)])

    def take(self, event: Event, reason: str = "", *, dup: bool = False) -> None:
        after = TRANSITIONS[self.state, event]
        dup = dup or self.dup
        if event is E.HOLD and (self.state, self.reason, self.dup) == (S.HELD, reason, dup):
            return
        self.state, self.reason, self.dup = after, reason, dup
        self.woke |= event is E.HOLD and reason == "waking"
        self.past.append((event, after))


class MessageMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.conn = open_at(Path(self.folder.name) / "ledger.db")
        self.conn.execute("PRAGMA synchronous = OFF")
        self.model: dict[str, Model] = {}
        self.now = 0.0

    def teardown(self) -> None:
        self.conn.close()
        self.folder.cleanup()

    @rule(target=ids, runtime=RUNTIMES)
    def accept(self, runtime: str) -> str:
        row = accepted(self.conn, runtime=runtime, expires_at=500.0)
        self.model[row.id] = Model(runtime)
        return row.id

    @rule(message_id=ids, event=OTHER_EVENTS, reason=REASONS, dup=st.booleans())
    def advance(self, message_id: str, event: Event, reason: str, dup: bool) -> None:
        model = self.model[message_id]
        if (model.state, event) not in TRANSITIONS:
            with pytest.raises(ValueError, match="no transition"):
                messages.advance(self.conn, message_id, event, now=self.now)
            return
        messages.advance(self.conn, message_id, event, now=self.now, reason=reason, mark_dup=dup)
        model.take(event, reason, dup=dup)

    @rule(message_id=ids, session=SESSIONS)
    def begin_attempt(self, message_id: str, session: str) -> None:
        model = self.model[message_id]
        if (model.state, E.HAND_OVER) not in TRANSITIONS:
            with pytest.raises(ValueError, match="no transition"):
                messages.begin_attempt(self.conn, message_id, session, "paste", self.now)
            return
        model.take(E.HAND_OVER)
        model.attempt += 1
        model.session = session
        number = messages.begin_attempt(self.conn, message_id, session, "paste", self.now)
        assert number == model.attempt

    @rule(runtime=RUNTIMES, reason=REASONS)
    def hold_pending(self, runtime: str, reason: str) -> None:
        due = [
            m
            for m in self.model.values()
            if m.runtime == runtime
            and m.state in {S.ACCEPTED, S.HELD}
            and (m.state, m.reason) != (S.HELD, reason)
        ]
        changed = messages.hold_pending(self.conn, "uid-ann", runtime, reason, self.now)
        assert changed == len(due)
        for model in due:
            model.take(E.HOLD, reason)

    @rule(session=SESSIONS, dup=st.booleans())
    def give_back(self, session: str, dup: bool) -> None:
        due = {i: m for i, m in self.model.items() if m.session == session and self.is_out(m)}
        back = messages.give_back(self.conn, session, self.now, "died", dup=dup)
        assert [row.id for row in back] == list(due)
        for model in due.values():
            model.take(E.RETURN, "died", dup=dup)

    @rule()
    def fail_all(self) -> None:
        due = [m for m in self.model.values() if m.state in UNDELIVERED]
        assert len(messages.fail_for_uid(self.conn, "uid-ann", "removed", self.now)) == len(due)
        for model in due:
            model.take(E.FAIL, "removed")

    @rule(seconds=st.integers(1, 300))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        due = [
            m for m in self.model.values() if self.now >= 500.0 and m.state in {S.ACCEPTED, S.HELD}
        ]
        assert len(messages.expire_due(self.conn, self.now)) == len(due)
        for model in due:
            model.take(E.EXPIRE, "ttl")

    @staticmethod
    def is_out(model: Model) -> bool:
        return model.state in {S.IN_FLIGHT, S.LANDED}

    @invariant()
    def every_row_equals_its_model(self) -> None:
        for message_id, model in self.model.items():
            row = messages.get(self.conn, message_id)
            assert row is not None
            assert (
                Model(
                    row.runtime,
                    row.state,
                    row.reason,
                    row.dup,
                    row.attempt,
                    row.session_id,
                    row.woke,
                    [(h.event, h.state) for h in messages.history(self.conn, message_id)],
                )
                == model
            )

    @invariant()
    def every_question_agrees_with_the_model(self) -> None:
        def ids(rows: list[MessageRow]) -> list[str]:
            return [row.id for row in rows]

        for runtime in ("claude", "codex"):
            mine = {i: m for i, m in self.model.items() if m.runtime == runtime}
            assert ids(messages.pending(self.conn, "uid-ann", runtime, 1000)) == [
                i for i, m in mine.items() if m.state in {S.ACCEPTED, S.HELD}
            ]
            assert ids(messages.unresolved(self.conn, "uid-ann", runtime)) == [
                i for i, m in mine.items() if self.is_out(m)
            ]
            assert messages.depth(self.conn, "uid-ann", runtime) == sum(
                m.state in UNDELIVERED for m in mine.values()
            )
        undelivered = [m.runtime for m in self.model.values() if m.state in UNDELIVERED]
        fixed = messages.fixed_runtime(self.conn, "bob@claude", "uid-ann")
        assert fixed == (undelivered[-1] if undelivered else None)


MessageMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestMessages = MessageMachine.TestCase
