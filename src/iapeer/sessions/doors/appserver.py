"""The `appserver` door: one request puts a message into the runtime's own queue.

Nothing is typed, so a person's draft is never in the way, and a running turn is never cut off:
the queue runs after it. The server does not recognise a repetition, so no request is made twice
without a look whether the first one arrived.
"""

from __future__ import annotations

import asyncio

from iapeer.core.envelope import Envelope
from iapeer.core.states import HoldReason
from iapeer.sessions.appserver import AppServerChannel, Whereabouts
from iapeer.sessions.appserver.channel import AGAIN_S
from iapeer.sessions.appserver.wire import REQUEST_S, NotSent, Refused, WireError
from iapeer.sessions.model import TmuxSession
from iapeer.storage.faults import fault

from .port import HandOver
from .text import handed_text

STEP_S = 1.9
"""All of one call: a lane's step takes 2 s at most."""
ADD_S = 0.5
"""What is left of it for the request itself, after two looks a second apart."""
_THERE = frozenset({Whereabouts.QUEUED, Whereabouts.SHOWN})


class AppServerDoor:
    """Queues messages under the attempt's marker as the client's id; that id is acknowledged."""

    name = "appserver"
    acks = False

    async def probe(self, session: TmuxSession) -> HoldReason | None:
        """Hold until the terminal has a conversation, and while the server can't take anything."""
        channel = _channel(session)
        if channel is None or not channel.native_id:
            return HoldReason.WAKING
        return None if channel.ready else HoldReason.BUSY

    async def is_busy(self, session: TmuxSession) -> bool:
        """As the server told; a lost connection counts as busy, for nobody knows."""
        channel = _channel(session)
        return channel is None or not channel.connected or channel.busy

    async def hand_over(self, session: TmuxSession, envelope: Envelope, marker: str) -> HandOver:
        """Queue the message. One that may be there already is looked for first, twice."""
        channel = _channel(session)
        if channel is None:
            return HandOver.NOT_HANDED
        loop = asyncio.get_running_loop()
        until = loop.time() + STEP_S
        text = handed_text(session, envelope)
        try:
            async with asyncio.timeout_at(until - ADD_S):
                if envelope.dup and envelope.id and await _is_there(channel, envelope.id):
                    await channel.tell_again(envelope.id)
                    return HandOver.LANDED
        except (WireError, TimeoutError):
            # This attempt has handed nothing over.
            return HandOver.NOT_HANDED
        fault("appserver.before_add")
        try:
            await channel.queue_add(text, marker, timeout_s=min(REQUEST_S, until - loop.time()))
        except (NotSent, Refused):
            return HandOver.NOT_HANDED
        except WireError:
            return HandOver.UNCERTAIN
        fault("appserver.after_add")
        return HandOver.LANDED

    async def say(self, session: TmuxSession, text: str, marker: str) -> HandOver:
        """Queue a text that is no message, under the marker; it is looked for first."""
        channel = _channel(session)
        if channel is None or not channel.ready:
            return HandOver.NOT_HANDED
        try:
            async with asyncio.timeout(STEP_S):
                if await channel.look(marker) != Whereabouts.ABSENT:
                    return HandOver.LANDED
                await channel.queue_add(text, marker, timeout_s=ADD_S)
        except (NotSent, Refused):
            return HandOver.NOT_HANDED
        except (WireError, TimeoutError):
            return HandOver.UNCERTAIN
        return HandOver.LANDED

    async def finish(self, session: TmuxSession, marker: str) -> HandOver:
        """Look in conversation and queue, again after a second; only the server can tell."""
        channel = _channel(session)
        if channel is None:
            return HandOver.UNCERTAIN
        try:
            async with asyncio.timeout(STEP_S):
                if await channel.look(marker) != Whereabouts.ABSENT:
                    return HandOver.LANDED
                await asyncio.sleep(AGAIN_S)
                if await channel.look(marker) != Whereabouts.ABSENT:
                    return HandOver.LANDED
        except (WireError, TimeoutError):
            return HandOver.UNCERTAIN
        return HandOver.NOT_HANDED


async def _is_there(channel: AppServerChannel, message_id: str) -> bool:
    """Whether an earlier attempt stands in the conversation or waits in the queue.

    One whose turn was cut off does not count: nothing will answer it any more. Raises WireError.
    """
    first = await channel.look_any(message_id)
    if first != Whereabouts.ABSENT:
        return first in _THERE
    await asyncio.sleep(AGAIN_S)
    return await channel.look_any(message_id) in _THERE


def _channel(session: TmuxSession) -> AppServerChannel | None:
    channel = session.channel
    return channel if isinstance(channel, AppServerChannel) else None
