"""The channel of a session whose runtime is a Codex app-server.

It subscribes to the threads that the attached terminal talks in, reports what happens there, and
carries the door's requests. It connects again by itself, and then reads again what it may have
missed: an acknowledgement is never lost with a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from iapeer.sessions.channel import Report
from iapeer.sessions.evidence import Fact

from . import past, requests
from .frames import ItemTold, LimitsTold, StatusTold, ThreadNamed, ThreadTold, TurnTold
from .line import Line
from .link import Link
from .nudge import Nudge
from .past import Held
from .reading import RUNNING, Reader, message_id_of
from .requests import Whereabouts
from .terminal import Terminal
from .wire import REQUEST_S, NotSent, Refused, Wire, WireError, decode

LOOK_S = 0.5
"""Between two looks for a thread that nobody told of."""
AUDIT_S = 5.0
"""Between two looks for a first turn that nobody told of; a notification is the rule."""
EAGER_S = 0.02
"""The same while it runs: its record is made some 15 to 70 ms after its start (measured)."""
AGAIN_S = 1.0
"""Between two looks whether a message arrived: nothing is in flight longer than that."""
REFUSED_S = 5.0
"""A server that has refused a message is not asked again for so long."""


class ChannelStatus(msgspec.Struct, frozen=True):
    """What can be told of a channel; `trouble` are the last connection's last words."""

    connected: bool
    native_id: str
    subscribed: bool
    busy: bool
    trouble: str


class AppServerChannel:
    """One session's line to its app-server at the unix socket `endpoint`.

    `native_id` is the thread a resumed session goes on in; empty, the terminal's new one is
    found. `since` (wall time): how turns ended before it is not told again.
    """

    def __init__(
        self, endpoint: str, report: Report, *, native_id: str = "", since: float = 0.0
    ) -> None:
        self._line = Line(endpoint, serve=self._serve, heard=self._heard, lost=self._lost)
        self._report = report
        self._reader = Reader(since)
        self._link = Link()
        self._terminal = Terminal(native_id, self._moved)
        self._read_before: set[str] = set()
        self._refused_until = 0.0
        self._announced = ""
        self._stir = asyncio.Event()
        self._nudge = Nudge(self._line, self._idle)
        self._closed = False

    # --- what the lane and the door ask -------------------------------------------------------

    @property
    def native_id(self) -> str:
        """The thread the terminal talks in; resumable only after its first turn."""
        return self._terminal.current

    @property
    def connected(self) -> bool:
        """Whether requests can be made now."""
        return self._line.connected

    @property
    def ready(self) -> bool:
        """Whether the server can take a message for the terminal's thread now."""
        paused = asyncio.get_running_loop().time() < self._refused_until
        is_certain = self._link.surveyed and self.native_id in self._link.loaded
        return self.connected and not paused and is_certain

    @property
    def busy(self) -> bool:
        """Whether a turn runs in a conversation of this terminal, as far as was told."""
        return any(self._link.active.get(thread) for thread in self._terminal.threads)

    def status(self) -> ChannelStatus:
        """Return what is known without asking anybody."""
        return ChannelStatus(
            connected=self.connected,
            native_id=self.native_id,
            subscribed=self.connected and self._link.subscribed == self.native_id != "",
            busy=self.busy,
            trouble=self._line.trouble,
        )

    async def start(self) -> None:
        """Begin to connect, in the background, and go on for ever."""
        self._line.start()

    async def close(self) -> None:
        """Disconnect; nothing is reported afterwards."""
        self._closed = True
        await self._nudge.close()
        await self._line.close()

    async def queue_add(self, text: str, client_id: str, timeout_s: float = REQUEST_S) -> None:
        """Queue a text: it starts at once when nothing runs, else after the running turn.

        Raises:
            NotSent, Refused: the server does not have it.
            WireError: nobody knows; the server does not recognise a repetition.
        """
        thread = self.native_id
        if not thread:
            raise NotSent("the terminal has no conversation yet")
        params: dict[str, Any] = {
            "threadId": thread,
            "clientUserMessageId": client_id,
            "input": [{"type": "text", "text": text}],
        }
        wire = self._line.wire
        self._nudge.owe(thread)
        try:
            await wire.call("thread/queue/add", params, msgspec.Raw, timeout_s)
        except Refused as error:
            self._line.trouble = str(error)
            self._refused_until = asyncio.get_running_loop().time() + REFUSED_S
            raise
        self._nudge.soon()

    async def look(self, client_id: str) -> Whereabouts:
        """Look for the message with exactly this client id; raises WireError."""
        return await self._find(lambda found: found == client_id)

    async def look_any(self, message_id: str) -> Whereabouts:
        """Look for any attempt at this message; raises WireError."""
        return await self._find(lambda found: message_id_of(found) == message_id)

    async def tell_again(self, message_id: str) -> None:
        """Report once more what the conversations prove about a message; raises WireError.

        What was told when it was read first was told of a message that nobody waited for.
        """
        wire = self._line.wire
        for thread in reversed(self._terminal.threads):
            for turn in await requests.shown_in(wire, thread, message_id):
                is_over = not self._link.active.get(thread)
                self._tell(self._reader.told_again(turn, message_id, is_over=is_over))
                return

    async def has_message(self, message_id: str) -> bool:
        """Whether any attempt at this message arrived: looks twice; raises WireError."""
        if await self.look_any(message_id) != Whereabouts.ABSENT:
            return True
        await asyncio.sleep(AGAIN_S)
        return await self.look_any(message_id) != Whereabouts.ABSENT

    async def interrupt(self) -> bool:
        """Stop what runs, also in a conversation that the terminal has left.

        False when nothing does or it can't be told.
        """
        stopped = False
        for thread in reversed(self._terminal.threads):
            if thread == self.native_id or self._link.active.get(thread):
                stopped |= await self._interrupt_in(thread)
        return stopped

    async def _interrupt_in(self, thread: str) -> bool:
        try:
            turn = self._link.turns.get(thread, "")
            return await requests.interrupt(self._line.wire, thread, turn)
        except WireError:
            return False

    async def compact(self) -> bool:
        """Shorten the context; False when it is refused or something runs or waits.

        That it is done is told by a `compacted` fact.
        """
        has_turns = self._link.subscribed == self.native_id != ""
        if not has_turns or self.busy:
            return False
        try:
            return await requests.compact(self._line.wire, self.native_id)
        except WireError:
            return False

    # --- connection ---------------------------------------------------------------------------

    def _lost(self) -> None:
        """Forget what was only true of a connection."""
        self._link = Link()

    async def _serve(self, wire: Wire) -> None:
        """Greet, then follow the terminal from thread to thread. Ends by WireError only."""
        await requests.greet(wire)
        while True:
            self._stir.clear()
            await self._terminal.meet_strangers(wire, self._link)
            is_new = self._link.subscribed != self.native_id or not self.native_id
            if is_new or self._vanished():
                await self._terminal.find(wire, self._link)
                self._settle_vanished()
            for thread in self._unheard():
                # One that the terminal has not loaded yet would come up with our settings.
                if thread in self._link.loaded:
                    await self._subscribe(wire, thread)
            await self._until_stirred(self.native_id)

    def _unheard(self) -> list[str]:
        """Return the terminal's thread, if its news don't come, after those left with our work."""
        left = [
            thread
            for thread in self._terminal.left
            if thread not in self._link.heard and self._is_at_work(thread)
        ]
        is_new = self._link.subscribed != self.native_id != ""
        return [*left, self.native_id] if is_new else left

    def _is_at_work(self, thread: str) -> bool:
        """Whether something of ours, or unknown, goes on in a thread that was left."""
        is_active = self._link.active.get(thread, False)
        return is_active or self._nudge.owes(thread) or self._reader.runs(thread)

    def _vanished(self) -> list[str]:
        """Return threads that were left at work and are not in the server's memory any more."""
        unloaded = (found for found in self._terminal.left if found not in self._link.loaded)
        return [thread for thread in unloaded if self._reader.runs(thread)]

    def _settle_vanished(self) -> None:
        """Tell that turns were cut off, of a server that lives: one that ends closes all threads.

        What it then had not answered is the lane's to give back.
        """
        if self.native_id in self._link.loaded:
            for thread in self._vanished():
                self._tell(self._reader.cut_off(thread))

    async def _until_stirred(self, thread: str) -> None:
        wait_s: float | None = None
        unheard = [found for found in self._unheard() if found in self._link.loaded]
        if thread not in self._link.loaded:
            wait_s = LOOK_S
        elif unheard:
            wait_s = EAGER_S if any(self._link.active.get(found) for found in unheard) else AUDIT_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stir.wait()

    def _moved(self) -> None:
        """The terminal talks in another conversation; those before it are still listened to."""
        self._let_go()
        self._stir.set()

    async def _subscribe(self, wire: Wire, thread: str) -> None:
        """Ask for a thread's news, and read what has happened in it. Refused until a first turn."""
        self._link.reading = thread
        with contextlib.suppress(Refused):
            await self._read_past(wire, thread)
        self._link.reading = ""
        self._let_go()

    async def _read_past(self, wire: Wire, thread: str) -> None:
        link = self._link
        wants = {"threadId": thread, "excludeTurns": True}
        told = await wire.call("thread/resume", wants, ThreadTold)
        # What a notification has told meanwhile is newer.
        link.active.setdefault(thread, told.thread.status.type == "active")
        held = link.held.setdefault(thread, Held())
        turns = await past.settled(wire, thread, held, lambda: link.active.get(thread, False))
        if turns and turns[-1].status == RUNNING and turns[-1].id not in held.over:
            link.turns[thread] = turns[-1].id
        facts = self._reader.caught_up(thread, turns, first=thread not in self._read_before)
        self._read_before.add(thread)
        link.heard.add(thread)
        if thread == self.native_id:
            link.subscribed = thread
            if self._announced != thread:
                self._announced = thread
                path = told.thread.path or ""
                source = "app-server thread"
                facts.insert(0, Fact("session", native_id=thread, transcript=path, source=source))
        self._tell(facts)
        self._nudge.owe(thread)
        self._nudge.soon()

    # --- notifications ------------------------------------------------------------------------

    def _heard(self, method: str, params: msgspec.Raw) -> None:
        match method:
            case "item/completed":
                self._item_completed(decode(params, ItemTold))
            case "turn/started":
                self._turn_started(decode(params, TurnTold))
            case "turn/completed":
                self._turn_completed(decode(params, TurnTold))
            case "thread/status/changed":
                status = decode(params, StatusTold)
                self._status_changed(status.thread_id, active=status.status.type == "active")
            case "thread/started":
                self._terminal.took(self._link, decode(params, ThreadTold).thread)
            case "thread/closed" | "thread/deleted":
                self._thread_closed(decode(params, ThreadNamed).thread_id)
            case "account/rateLimits/updated":
                self._reader.limits(decode(params, LimitsTold).rate_limits)

    def _turn_started(self, begun: TurnTold) -> None:
        thread, turn = begun.thread_id, begun.turn
        self._link.turns[thread] = turn.id
        held = self._news(thread, lambda: self._reader.started(thread, turn))
        if held is not None:
            held.begun.add(turn.id)

    def _turn_completed(self, over: TurnTold) -> None:
        if self._link.turns.get(over.thread_id) == over.turn.id:
            del self._link.turns[over.thread_id]
        held = self._news(over.thread_id, lambda: self._reader.ended(over.turn))
        if held is not None:
            held.over.add(over.turn.id)

    def _item_completed(self, told: ItemTold) -> None:
        is_user = told.item.type == "userMessage"
        is_typed = is_user and not message_id_of(told.item.client_id)
        if is_typed and told.thread_id in self._terminal.left:
            # A person has gone back to an earlier conversation.
            self._terminal.follow(told.thread_id)
        held = self._news(told.thread_id, lambda: self._reader.item(told.item, told.turn_id))
        if held is not None and is_user:
            held.said.add(told.turn_id)

    def _news(self, thread: str, read: Callable[[], list[Fact]]) -> Held | None:
        """Report one thing of a thread, but never before what came before it.

        What has to wait is kept in what is returned.
        """
        if self._link.waits(thread, self.native_id):
            return self._link.hold(thread, read)
        self._tell(read())
        return None

    def _let_go(self) -> None:
        self._tell(self._link.let_go(self.native_id))

    def _status_changed(self, thread: str, *, active: bool) -> None:
        if thread in self._terminal.threads:
            self._link.active[thread] = active
        if active:
            # Also one that a server that was started anew had not loaded before.
            self._link.loaded.add(thread)
            self._terminal.stranger(thread)
        if self._nudge.owes(thread) and not active:
            self._nudge.soon()
        self._stir.set()

    def _thread_closed(self, thread: str) -> None:
        self._link.closed(thread)
        self._stir.set()

    def _tell(self, facts: list[Fact]) -> None:
        if facts and not self._closed:
            self._report(facts)

    # --- where a message is -------------------------------------------------------------------

    def _idle(self) -> list[str]:
        return [thread for thread in self._terminal.threads if not self._link.active.get(thread)]

    async def _find(self, is_it: Callable[[str], bool]) -> Whereabouts:
        """Look in every conversation of this terminal, the newest first. Raises WireError.

        What is not in the server's memory can't be looked into for certain: after its restart the
        queue's list was empty, and yet the message ran by itself (measured).
        """
        wire = self._line.wire
        if self.native_id not in self._link.loaded:
            raise NotSent("the terminal's conversation is not loaded")
        return await requests.find_in(wire, reversed(self._terminal.threads), is_it)
