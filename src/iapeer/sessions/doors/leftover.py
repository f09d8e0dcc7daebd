"""A folded paste that stays in the composer although the program has taken the message.

Measured with Claude Code 2.1.197, nine at once on two cores, in 10 of 72 conversations of nine
messages: the model reads the message, and its placeholder stands in the composer for good, like a
person's draft, the cursor behind it or before it. It is erased when it is, to the letter, what
stood there when the door gave up waiting, and the program itself has told that it has the message:
then nobody wrote it.
"""

from __future__ import annotations

from iapeer.sessions.model import TmuxSession
from iapeer.sessions.screen import Composer
from iapeer.sessions.tmux.options import LEFT


async def note(session: TmuxSession, marker: str, composer: Composer) -> None:
    """Remember what stands in the composer after Enter, here and for a later daemon.

    Raises SessionGone, TmuxError.
    """
    if session.spec.submit.erase_keys and composer.kind == "paste_chip":
        await _keep(session, f"{marker} {composer.text}")


async def look(session: TmuxSession, composer: Composer) -> bool:
    """Erase the placeholder if it is one of a message that was read; whether keys were pressed.

    They are pressed once: what still stands there then is a person's. A composer without a draft
    ends it too: a placeholder that comes back was called back by somebody.

    Raises SessionGone, TmuxError.
    """
    if not session.left:
        return False
    if composer.kind in ("empty", "ghost"):
        await _keep(session, "")
        return False
    marker, _, shown = session.left.partition(" ")
    if composer.text != shown or message_of(marker) not in session.proven:
        return False
    if await session.tmux.unread():
        # Somebody is typing: the keys would take theirs along.
        return False
    await _keep(session, "")
    await session.tmux.keys(*session.spec.submit.erase_keys)
    return True


async def resume(session: TmuxSession) -> str:
    """Take over what an earlier daemon remembered; the message's id, empty without one.

    Raises SessionGone, TmuxError.
    """
    session.left = await session.tmux.option(LEFT) or ""
    return message_of(session.left.partition(" ")[0])


def message_of(marker: str) -> str:
    """Return the id of the message that an attempt's marker is of."""
    return marker.rpartition("-")[0]


async def _keep(session: TmuxSession, left: str) -> None:
    session.left = left
    await session.tmux.set_option(LEFT, left)
