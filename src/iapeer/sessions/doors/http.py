"""The `http` door: one request to the runtime's own server puts a message into its session.

Nothing is typed, so a person's draft is never in the way, and a running turn is never cut off: the
server takes the message up after it.
"""

from __future__ import annotations

import asyncio

from iapeer.core.envelope import Envelope
from iapeer.core.states import HoldReason
from iapeer.sessions.httpserver import Found, HttpChannel, NoAnswer, NotReached
from iapeer.sessions.model import TmuxSession
from iapeer.storage.faults import fault

from .port import HandOver
from .text import handed_text

STEP_S = 1.9
"""All of one call: a lane's step takes 2 s at most."""
POST_S = 0.8
"""The part of it that is kept for the message itself."""
AGAIN_S = 0.5
"""Between two looks whether a message arrived."""


class HttpDoor:
    """Stores messages under an id that holds the attempt's marker; that id is acknowledged."""

    name = "http"
    acks = False

    async def probe(self, session: TmuxSession) -> HoldReason | None:
        """Hold until the server has a session for us, and while there is no connection."""
        channel = _channel(session)
        if channel is None or not channel.native_id:
            return HoldReason.WAKING
        return None if channel.ready else HoldReason.BUSY

    async def is_busy(self, session: TmuxSession) -> bool:
        """As the server told; a lost connection counts as busy, for nobody knows."""
        channel = _channel(session)
        return channel is None or not channel.ready or channel.busy

    async def hand_over(self, session: TmuxSession, envelope: Envelope, marker: str) -> HandOver:
        """Store the message. One that may be there already is looked for, never stored twice."""
        channel = _channel(session)
        if channel is None:
            return HandOver.NOT_HANDED
        loop = asyncio.get_running_loop()
        until = loop.time() + STEP_S
        text = handed_text(session, envelope)
        try:
            async with asyncio.timeout_at(until - POST_S):
                if envelope.dup and envelope.id and await _is_there(channel, envelope.id):
                    return HandOver.LANDED
        except (NotReached, NoAnswer, TimeoutError):
            # This attempt has handed nothing over.
            return HandOver.NOT_HANDED
        fault("http.before_post")
        try:
            async with asyncio.timeout_at(until):
                stored = await channel.post(marker, text, until - loop.time())
        except NotReached:
            return HandOver.NOT_HANDED
        except (NoAnswer, TimeoutError):
            return HandOver.UNCERTAIN
        fault("http.after_post")
        return HandOver.LANDED if stored else HandOver.UNCERTAIN

    async def say(self, session: TmuxSession, text: str, marker: str) -> HandOver:
        """Store a text that is no message, under the marker; it is looked for first."""
        channel = _channel(session)
        if channel is None or not channel.ready:
            return HandOver.NOT_HANDED
        try:
            async with asyncio.timeout(STEP_S):
                if await channel.look(marker) != Found.ABSENT:
                    return HandOver.LANDED
                stored = await channel.post(marker, text, POST_S)
        except NotReached:
            return HandOver.NOT_HANDED
        except (NoAnswer, TimeoutError):
            return HandOver.UNCERTAIN
        return HandOver.LANDED if stored else HandOver.UNCERTAIN

    async def finish(self, session: TmuxSession, marker: str) -> HandOver:
        """Look for this attempt, twice; only the server can tell."""
        channel = _channel(session)
        if channel is None:
            return HandOver.UNCERTAIN
        try:
            async with asyncio.timeout(STEP_S):
                if await channel.look(marker) != Found.ABSENT:
                    return HandOver.LANDED
                await asyncio.sleep(AGAIN_S)
                if await channel.look(marker) != Found.ABSENT:
                    return HandOver.LANDED
        except (NotReached, NoAnswer, TimeoutError):
            pass
        # A server that is slow may still hold the request of an attempt that was cut off.
        return HandOver.UNCERTAIN


async def _is_there(channel: HttpChannel, message_id: str) -> bool:
    """Whether an earlier attempt is in the history; one that nothing runs is set going.

    Raises NotReached, NoAnswer.
    """
    found = await channel.look_any(message_id)
    if found == Found.READ:
        channel.confirm(message_id)
    elif found == Found.CUT or (found == Found.WAITING and not channel.busy):
        await channel.run_again(message_id)
    return found != Found.ABSENT


def _channel(session: TmuxSession) -> HttpChannel | None:
    channel = session.channel
    return channel if isinstance(channel, HttpChannel) else None
