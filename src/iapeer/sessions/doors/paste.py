"""The `paste` door: bracketed paste, then Enter, with tmux as a second journal.

The server's own options say how far an attempt got even when we are killed in between:
`@iap_pasted` is set in the same command as the paste, `@iap_entered` in the same as the Enter.
A composer that holds a person's draft is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from iapeer.core.envelope import Envelope
from iapeer.core.settings import Settings
from iapeer.core.states import HoldReason
from iapeer.sessions.busy import told_busy
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.screen import Composer, Marks, Screen, read_screen
from iapeer.sessions.tmux.options import ENTERED, PASTED
from iapeer.storage.faults import fault

from . import leftover
from .port import HandOver
from .text import handed_text, wire_text

POLL_S = 0.005
"""Between two looks at a screen; one look costs 0.15 ms through the control client (measured)."""
RE_ENTER_S = 0.5
"""An Enter that was read and changed nothing for this long was swallowed; it is pressed again after
a look. One that was not read yet is late, and what the program has told to have read is only not
drawn yet: a second Enter would give the text to the model twice (measured: Claude Code 2.1.197 on a
busy machine)."""

_BEGINNING = 20
"""Characters of a preface that are looked for: a terminal wraps and shortens what follows."""
_FILLED = frozenset({"text", "paste_chip"})


def is_only_ours(composer: Composer, marks: Marks, preface: str = "") -> bool:
    """Whether a filled composer holds our paste and nothing that a person typed beside it.

    An unfolded paste begins with the open tag, or the preface before it, and ends with the close
    tag; a folded one is a single chip. Texts are not compared: a terminal does not show every
    character.
    """
    text = composer.text
    if composer.kind == "paste_chip":
        starts = any(text.startswith(pattern) for pattern in marks.paste_patterns)
        return starts and text.find("]") == len(text) - 1
    begins = text.startswith("<iap ") or bool(preface and text.startswith(preface[:_BEGINNING]))
    return begins and text.endswith("</iap>")


def _is_text(composer: Composer, text: str) -> bool:
    """Whether a filled composer holds this text and nothing else; a folded paste is a chip."""
    if composer.kind == "paste_chip":
        return composer.text.find("]") == len(composer.text) - 1
    return "".join(composer.text.split()) == "".join(text.split())


class PasteDoor:
    """Types for the sender, as a person would, and looks at what came of it."""

    name = "paste"
    acks = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def probe(self, session: TmuxSession) -> HoldReason | None:
        """Hold while somebody types, and while a dialog covers the composer."""
        screen = await self._look(session)
        if screen.dialog is not None:
            return HoldReason.BUSY
        if not session.marks.prompt_glyphs:
            return None
        if await leftover.look(session, screen.composer):
            return HoldReason.BUSY
        if screen.composer.kind in _FILLED:
            return HoldReason.COMPOSER
        # No composer on the screen: a menu or a picker that would swallow the paste.
        return HoldReason.BUSY if screen.composer.kind == "none" else None

    async def is_busy(self, session: TmuxSession) -> bool:
        """By the program's own word where it has one, else by its busy marks on the screen."""
        told = told_busy(session)
        return (await self._look(session)).busy if told is None else told

    async def hand_over(self, session: TmuxSession, envelope: Envelope, marker: str) -> HandOver:
        """Paste, let it settle, press Enter, see the composer clear."""
        text = self._text(session, envelope)
        fault("paste.before_paste")
        # The journal's fsync stands between the lane's look and this: somebody may type by now.
        if await self.probe(session) is not None:
            return HandOver.NOT_HANDED
        # What an earlier attempt came to proves nothing of this one.
        session.proven.clear()
        pasted = await session.tmux.paste(
            text.encode("utf-8"), buffer=f"iap-{marker}", marker=marker
        )
        if not pasted:
            return HandOver.NOT_HANDED
        fault("paste.after_paste")
        await self._settle(session)
        return await self._submit(session, marker)

    async def type_line(self, session: TmuxSession, line: str, marker: str) -> HandOver:
        """Type one line that is no message, such as a command of the program, and send it off.

        Nothing is typed beside what somebody else is writing.
        """
        if await self.probe(session) is not None:
            return HandOver.NOT_HANDED
        if not await session.tmux.paste(line.encode(), buffer=f"iap-{marker}", marker=marker):
            return HandOver.NOT_HANDED
        await self._settle(session)
        return await self._submit(session, marker, lambda composer: composer.text == line)

    async def say(self, session: TmuxSession, text: str, marker: str) -> HandOver:
        """Type a text that is no message, once for each marker, and send it off.

        Where an earlier call, or an earlier daemon, has pasted it already, that is completed.
        """
        if await session.tmux.option(PASTED) != marker:
            if await self.probe(session) is not None:
                return HandOver.NOT_HANDED
            if not await session.tmux.paste(text.encode(), buffer=f"iap-{marker}", marker=marker):
                return HandOver.NOT_HANDED
            await self._settle(session)
        elif (await self._look(session)).composer.kind not in _FILLED:
            entered = await session.tmux.option(ENTERED) == marker
            return HandOver.LANDED if entered else HandOver.UNSHOWN
        return await self._submit(session, marker, lambda composer: _is_text(composer, text))

    def _text(self, session: TmuxSession, envelope: Envelope) -> str:
        return handed_text(session, envelope)

    async def finish(self, session: TmuxSession, marker: str) -> HandOver:
        """Go by the two options in the server, and by what the composer holds."""
        if await session.tmux.option("@iap_pasted") != marker:
            return HandOver.NOT_HANDED
        entered = await session.tmux.option("@iap_entered") == marker
        screen = await self._look(session)
        if not session.marks.prompt_glyphs:
            # Nothing to look at: an Enter that was never sent is sent now.
            return HandOver.LANDED if entered else await self._submit(session, marker)
        if screen.composer.kind in _FILLED:
            return await self._submit(session, marker, entered=entered)
        return HandOver.LANDED if entered else HandOver.UNSHOWN

    async def _settle(self, session: TmuxSession) -> None:
        """Wait until the paste is visible, at most the runtime's settle time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + session.spec.submit.settle_ms / 1000
        while loop.time() < deadline:
            readable = bool(session.marks.prompt_glyphs)
            if readable and (await self._look(session)).composer.kind in _FILLED:
                return
            await asyncio.sleep(min(POLL_S, max(0.0, deadline - loop.time())))

    async def _submit(
        self,
        session: TmuxSession,
        marker: str,
        is_ours: Callable[[Composer], bool] | None = None,
        *,
        entered: bool = False,
    ) -> HandOver:
        """Press Enter until the composer is clear, each time only after a look at it.

        `entered` says that an earlier call has pressed it. An Enter that comes with the paste is
        swallowed by real programs, so there is none before the text is shown: a program that hangs
        would keep it in its composer for good. When a person has typed beside our text, the Enter
        is theirs: nothing is pressed.
        """
        is_ours = is_ours or (lambda c: is_only_ours(c, session.marks, session.preface))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.submit_ms / 1000
        key = session.spec.submit.key
        if not session.marks.prompt_glyphs:
            entered = await session.tmux.enter(marker, key)
            fault("paste.after_enter")
            return HandOver.LANDED if entered else HandOver.UNCERTAIN
        composer = Composer("none")
        shown, press_at = False, loop.time() + (RE_ENTER_S if entered else 0)
        while loop.time() < deadline:
            composer = (await self._look(session)).composer
            if composer.kind in _FILLED and not is_ours(composer):
                return HandOver.BLOCKED
            shown = shown or composer.kind in _FILLED
            if entered and composer.kind not in _FILLED:
                return HandOver.LANDED
            is_late = entered and loop.time() >= press_at - RE_ENTER_S / 2
            if is_late and (
                leftover.message_of(marker) in session.proven or await session.tmux.unread()
            ):
                press_at = loop.time() + RE_ENTER_S
            if shown and loop.time() >= press_at:
                if not await session.tmux.enter(marker, key):
                    return HandOver.UNCERTAIN
                fault("paste.after_enter")
                entered, press_at = True, loop.time() + RE_ENTER_S
            await asyncio.sleep(POLL_S)
        if not entered:
            return HandOver.UNSHOWN
        await leftover.note(session, marker, composer)
        await leftover.look(session, composer)
        return HandOver.UNCERTAIN

    async def _look(self, session: TmuxSession) -> Screen:
        return read_screen(await session.tmux.capture(styled=True), session.marks)


class PaneDoor(PasteDoor):
    """The same hands for a router that reads raw lines: the wire form, nothing to look at."""

    name = "pane"

    def _text(self, _session: TmuxSession, envelope: Envelope) -> str:
        return wire_text(envelope)
