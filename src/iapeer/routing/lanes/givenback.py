"""A prompt that a program gives back when our interrupt comes before its first word.

Claude Code 2.1.197 puts it into the composer again and writes nothing down (measured). There it
would pass for somebody's draft, and everything behind it would wait for a person. What our own key
has brought there is cleared, while it is that message alone; what a person's key has brought there
is the person's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from iapeer.core.states import TurnEnd
from iapeer.sessions.busy import told_busy
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.evidence import Fact
from iapeer.sessions.givenback import ends_with, holds_alone
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.screen import read_screen
from iapeer.sessions.tmux.options import INTERRUPTED
from iapeer.storage.faults import fault

from .delivery import marker_of
from .envelopes import envelope_of
from .letters import Observed

if TYPE_CHECKING:
    from iapeer.storage.ledger.rows import MessageRow

    from .lane import Lane

PATIENCE_S = 2.0
"""How long nothing is handed over because a prompt may yet come back (measured: it is drawn 0.08 to
0.12 s after the key). Shorter than a sender waits, so that nobody is told of it."""
LIMIT_S = 30.0
"""After this a prompt that comes back is left to a person."""
LOOK_S = 0.05
LATER_LOOK_S = 0.5
"""Between two looks while it is waited for, and afterwards."""
KEY_GAP_S = 3.0
"""Between two keys of ours; for one prompt it is pressed once only. A second `C-c` within 0.8 s
leaves the program, however long both have waited to be read (measured: Claude Code 2.1.197)."""


class _Expected(msgspec.Struct):
    """The message whose prompt may come back, and the forms it may have."""

    message_id: str
    texts: tuple[str, ...]
    since: float
    resumed: bool
    """Whether an earlier daemon pressed the key: nobody knows what was written there since, so all
    of it must be seen."""
    steady: bool = False
    """Whether it stood there alone at the newest look."""
    pressed: bool = False
    """Whether the key that empties the composer was pressed."""


class GivenBack:
    """Looks after the composer of one lane's session when a turn in it was interrupted by us."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._s = lane.services
        self._expected: _Expected | None = None
        self._pressed_at = -KEY_GAP_S

    async def before_key(self, session: TmuxSession) -> None:
        """Note whose prompt may come back; call it before the key of an interrupt is pressed.

        Nothing is expected where somebody is writing already. The note in the tmux server tells a
        later daemon whose key it was. Raises SessionGone, TmuxError.
        """
        self._expected = None
        row = await self._read_now(session)
        if row is None:
            return
        screen = read_screen(await session.tmux.capture(styled=True), session.marks)
        if screen.composer.kind not in ("empty", "ghost"):
            return
        await session.tmux.set_option(INTERRUPTED, marker_of(row))
        self._expect(session, row)

    async def resume(self, session: TmuxSession) -> None:
        """Look after what an earlier daemon has interrupted. Raises SessionGone, TmuxError."""
        self._expected = None
        noted = await session.tmux.option(INTERRUPTED)
        if noted:
            row = await self._read_now(session)
            if row is not None and marker_of(row) == noted:
                self._expect(session, row, resumed=True)

    async def go_on(self, session: TmuxSession) -> float | None:
        """Look, and clear what was given back; returns when to look again before any delivery.

        None: there is nothing to wait for. Raises SessionGone, TmuxError.
        """
        expected = self._expected
        if expected is None:
            return None
        waited = self._s.clock.monotonic() - expected.since
        alone = await self._stands_alone(session, expected)
        if expected.pressed and not alone:
            await self._cleared(session, expected)
            return 0.0
        if waited > LIMIT_S or not (expected.pressed or await self._is_open(session, expected)):
            await self._forget(session)
            return None
        if alone and expected.steady:
            await self._clear(session, expected)
        expected.steady = alone
        if alone or waited < PATIENCE_S:
            return LOOK_S
        self._lane.box.look_in(LATER_LOOK_S)
        return None

    def over(self) -> None:
        """The session has ended."""
        self._expected = None

    async def _read_now(self, session: TmuxSession) -> MessageRow | None:
        """Return what the running turn has read, None where it can't come back."""
        if not (session.spec.submit.empty_key and session.marks.prompt_glyphs):
            return None
        rows = await self._lane.journal.in_turn(session.id)
        return rows[0] if len(rows) == 1 else None

    def _expect(self, session: TmuxSession, row: MessageRow, *, resumed: bool = False) -> None:
        text = handed_text(session, envelope_of(row))
        preface = self._lane.waking.preface()
        texts = (text, f"{preface}\n\n{text}") if preface else (text,)
        now = self._s.clock.monotonic()
        self._expected = _Expected(row.id, texts, now, resumed)

    async def _stands_alone(self, session: TmuxSession, expected: _Expected) -> bool:
        """Whether the composer of an idle program holds the message and nothing else."""
        screen = read_screen(await session.tmux.capture(styled=True), session.marks)
        told = told_busy(session)
        if (screen.busy if told is None else told) or screen.dialog:
            return False
        if screen.composer.kind in ("empty", "ghost"):
            return False
        capture, marks = await session.tmux.capture(), session.marks
        return any(
            holds_alone(capture, marks, text)
            or (not expected.resumed and ends_with(capture, marks, text))
            for text in expected.texts
        )

    async def _is_open(self, session: TmuxSession, expected: _Expected) -> bool:
        """Whether nothing has told of the end of that turn."""
        rows = await self._lane.journal.in_turn(session.id)
        return any(row.id == expected.message_id for row in rows)

    async def _clear(self, session: TmuxSession, expected: _Expected) -> None:
        now = self._s.clock.monotonic()
        if expected.pressed or now - self._pressed_at < KEY_GAP_S:
            return
        fault("givenback.before_key")
        expected.pressed, self._pressed_at = True, now
        await session.tmux.keys(session.spec.submit.empty_key)

    async def _cleared(self, session: TmuxSession, expected: _Expected) -> None:
        """It is away, and so is the turn: the program will never tell how that ended."""
        await self._forget(session)
        self._s.log("given-back", identity=self._lane.identity.address, id=expected.message_id)
        end = Fact("turn_end", status=TurnEnd.INTERRUPTED, source="interrupt")
        self._lane.observe(Observed(session.id, (end,)))

    async def _forget(self, session: TmuxSession) -> None:
        self._expected = None
        await session.tmux.set_option(INTERRUPTED, "")
