"""The channel of a session whose runtime is opencode: its server runs in the terminal itself.

It makes or finds the session, lets the terminal show it, reports what happens there, and carries
the door's requests. It connects again by itself, and then reads again what it may have missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from iapeer.core.clock import Clock, SystemClock
from iapeer.core.states import TurnEnd
from iapeer.sessions.channel import Report
from iapeer.sessions.evidence import Fact

from .errors import NoAnswer, NotReached
from .frames import Event, Stored
from .history import Found, answers_to, attempts_at, is_end, user_ids, whereabouts
from .ids import marker_of, native_message_id
from .reading import Reader, Reading

if TYPE_CHECKING:
    from .client import Client

_T = TypeVar("_T")

AGENT = "peer"
"""The agent of our configuration file that every message is for."""
BACK_OFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between two tries to connect; the last one repeats."""
REVIVE_S = 0.2
"""After a turn that was cut off or came to its end: until what waited behind it is set going."""
REVIVE_LATE_S = 300.0
"""The same after an error of the vendor that nobody said the end of."""
RUN_AGAIN_S = 1.0
"""Longest wait for the server to take that order."""
COMPACT_S = 600.0
"""Longest time for shortening a context: the model writes a summary."""
COMPACT_LOOK_S = 1.0
"""How long a refusal to shorten it is waited for."""
OTHERS_MAX = 1_000
"""Sessions of subagents that are remembered."""


class HttpChannel:
    """One session's line to the server at `address`, an http URL with name and password.

    `native_id` is the session to go on in; one that is no id of the server, or that it does not
    have any more, is replaced by a new one called `title`.
    """

    def __init__(
        self,
        address: str,
        report: Report,
        *,
        native_id: str = "",
        title: str = "iapeer",
        clock: Clock | None = None,
    ) -> None:
        self._address = address
        self._report = report
        self._title = title
        self._clock = clock or SystemClock()
        self._reader = Reader(native_id if native_id.startswith("ses_") else "")
        self._client: Client | None = None
        self._ready = False
        self._shown = False
        self._trouble = ""
        self._others: dict[str, None] = {}
        self._stored = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._side: set[asyncio.Task[Any]] = set()
        self._revival: asyncio.Task[None] | None = None
        self._closed = False

    # --- what the lane and the door ask -------------------------------------------------------

    @property
    def native_id(self) -> str:
        """The session that the terminal shows, as far as is known; empty before the first."""
        return self._reader.session_id

    @property
    def ready(self) -> bool:
        """Whether a session is there and what happens in it is heard."""
        return self._ready

    @property
    def busy(self) -> bool:
        """Whether something runs in the session, as far as was told."""
        return self._reader.busy

    @property
    def trouble(self) -> str:
        """Why there is no connection, in the last try's words; empty while there is one."""
        return self._trouble

    async def start(self) -> None:
        """Begin to connect, in the background, and go on for ever."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_tell_defect)

    async def close(self) -> None:
        """Disconnect; nothing is reported afterwards."""
        self._closed, self._ready = True, False
        tasks = [task for task in (self._task, self._revival, *self._side) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def post(self, marker: str, text: str, timeout_s: float) -> bool:
        """Hand a message over under the attempt's marker; True when it is seen to be stored.

        While a turn runs the server keeps it and takes it up after the running step.

        Raises:
            NotReached: the server does not have it.
            NoAnswer: nobody knows.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        native_id = native_message_id(marker, self._clock.now())
        body = {
            "agent": AGENT,
            "messageID": native_id,
            "parts": [{"type": "text", "text": text}],
        }
        status = await self._connection().prompt(self.native_id, body, timeout_s)
        if status == 404:
            # A person deleted the session: the next attempt finds a new one.
            _task = self._spawn(self._begin_again())
        if status != 204:
            raise NotReached(f"refused with status {status}")
        # The server says 204 before it stores, and stores nothing when its agent is unknown.
        while not self._reader.has(native_id):
            self._stored.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._stored.wait()
            except TimeoutError:
                return False
        return True

    async def look(self, marker: str) -> Found:
        """Look for exactly this attempt; raises NotReached, NoAnswer."""
        messages, busy = await self._history()
        attempts = [native for native in user_ids(messages) if marker_of(native) == marker]
        return whereabouts(messages, attempts, busy=busy)

    async def look_any(self, message_id: str) -> Found:
        """Look for the newest attempt at this message; raises NotReached, NoAnswer."""
        messages, busy = await self._history()
        attempts = attempts_at(messages, message_id)
        found = whereabouts(messages, attempts, busy=busy)
        if found == Found.READ and self._will_be_told(messages, attempts[-1]):
            return Found.BEGUN
        return found

    def _will_be_told(self, messages: Sequence[Stored], native: str) -> bool:
        """Whether events that tell of this message's turn have still to come."""
        answers = answers_to(messages, native)
        if any(not self._reader.has(answer.id) for answer in answers):
            return True
        # All of them are from before it was set going again.
        return native in self._reader.waiting and not any(map(is_end, answers))

    async def run_again(self, message_id: str) -> None:
        """Let the server begin the turn of a message that stands in its history already.

        The model is given it once: nothing is added, an unfinished answer stays before the new one
        (measured). Raises NotReached, NoAnswer.
        """
        messages, _busy = await self._history()
        attempts = attempts_at(messages, message_id)
        if attempts:
            await self._run_again(attempts[-1])

    def confirm(self, message_id: str) -> None:
        """Tell of a message from an earlier life of the session that its turn runs or has run.

        Right after a look that found it read: what events will still tell is not told here.
        """
        facts = [Fact("user", ids=(message_id,), source=f"session {self.native_id}")]
        if not self.busy:
            end = Fact("turn_end", status=TurnEnd.DONE, source=f"session {self.native_id}")
            facts.append(end)
        self._tell(facts)

    async def interrupt(self) -> bool:
        """Stop the running turn; False when there is none or it can't be told."""
        if not self.busy:
            return False
        try:
            return await self._connection().abort(self.native_id)
        except (NotReached, NoAnswer):
            return False

    async def compact(self) -> bool:
        """Shorten the context; False when there is none or the server refuses.

        That it is done is told by a `compacted` fact.
        """
        try:
            client = self._connection()
            messages = await client.messages(self.native_id)
        except (NotReached, NoAnswer):
            return False
        models = [stored.info.model for stored in messages if stored.info.model is not None]
        if not models or self.busy:
            return False
        model = {"providerID": models[-1].provider_id, "modelID": models[-1].model_id}
        request = client.summarize(self.native_id, model, COMPACT_S)
        task = self._spawn(_forgiving(request))
        done, _running = await asyncio.wait({task}, timeout=COMPACT_LOOK_S)
        return not done or task.result()

    # --- connection ---------------------------------------------------------------------------

    async def _run(self) -> None:
        # An import of 67 ms that most daemons never need, and not in the loop's time.
        self._client = await asyncio.to_thread(_make_client, self._address)
        tries = 0
        while True:
            try:
                async with self._client.events() as events:
                    async for event in events:
                        await self._hear(event)
                        tries = 0
                self._trouble = "the server ended the stream"
            except (NotReached, NoAnswer) as error:
                self._trouble = str(error)
            self._ready = False
            await asyncio.sleep(BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)])
            tries += 1

    async def _hear(self, event: Event) -> None:
        if not self._ready:
            # The stream is open, so nothing is missed from here on.
            await self._take_up()
        reading = self._reader.read(event, self._clock.now())
        await self._carry_out(reading)

    async def _take_up(self) -> None:
        """Find or make the session, show it, and read what happened unheard."""
        client = self._connection()
        wanted = self.native_id
        if not wanted or await client.session(wanted) is None:
            made = await client.create_session(self._title)
            self._reader, self._shown = Reader(made.id), False
        if not self._shown:
            self._shown = await client.show(self.native_id)
        await self._recover()
        self._ready, self._trouble = True, ""

    async def _recover(self) -> None:
        messages, busy = await self._history()
        moved = Fact("session", native_id=self.native_id, source="server")
        self._tell([moved, *self._reader.recover(messages, self._clock.now(), busy=busy)])

    async def _begin_again(self) -> None:
        """Find the session again, or make another one."""
        self._ready = False
        with contextlib.suppress(NotReached, NoAnswer):
            await self._take_up()

    async def _history(self) -> tuple[list[Stored], bool]:
        client = self._connection()
        busy = await client.is_busy(self.native_id)
        return await client.messages(self.native_id), busy

    async def _carry_out(self, reading: Reading) -> None:
        self._tell(reading.facts)
        if reading.give_up:
            await self._connection().abort(self.native_id)
        if reading.elsewhere and reading.elsewhere not in self._others:
            await self._follow(reading.elsewhere)

    async def _follow(self, session_id: str) -> None:
        """Move on when a person talks in another session of the same terminal (`/new`)."""
        found = await self._connection().session(session_id)
        if found is None or found.parent_id:
            self._others[session_id] = None
            if len(self._others) > OTHERS_MAX:
                del self._others[next(iter(self._others))]
            return
        self._reader.move(session_id)
        await self._recover()

    def _tell(self, facts: Sequence[Fact]) -> None:
        if self._closed:
            return
        self._stored.set()
        if facts:
            self._report(facts)
        for fact in facts:
            if fact.kind == "turn_end":
                self._revive_after(fact)

    # --- what waits behind a turn that was cut off --------------------------------------------

    def _revive_after(self, end: Fact) -> None:
        """Plan to set going what waits and nothing else would.

        The server leaves a message alone that waited behind a turn which failed or was stopped: it
        would be read with the next one only (measured).
        """
        if self._revival is not None:
            self._revival.cancel()
        wait_s = REVIVE_S
        if end.status == TurnEnd.API_ERROR:
            until = end.reset_at
            wait_s = REVIVE_LATE_S if until is None else max(REVIVE_S, until - self._clock.now())
        self._revival = self._spawn(self._revive(wait_s))

    async def _revive(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        with contextlib.suppress(NotReached, NoAnswer):
            if self._ready and not self.busy and self._reader.waiting:
                # The newest: older ones are read with it.
                await self._run_again(self._reader.waiting[-1])

    async def _run_again(self, native_id: str) -> None:
        self._reader.expect(native_id)
        body = {"agent": AGENT, "messageID": native_id, "parts": []}
        status = await self._connection().prompt(self.native_id, body, RUN_AGAIN_S)
        if status != 204:
            raise NotReached(f"refused with status {status}")

    def _connection(self) -> Client:
        if self._client is None:
            raise NotReached("not connected yet")
        return self._client

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._side.add(task)
        task.add_done_callback(self._side.discard)
        task.add_done_callback(_tell_defect)
        return task


def _make_client(address: str) -> Client:
    from .client import Client  # noqa: PLC0415 - see the caller

    return Client(address)


async def _forgiving(request: Coroutine[Any, Any, bool]) -> bool:
    """Await a request that nobody may wait for; one that comes to nothing is refused."""
    try:
        return await request
    except (NotReached, NoAnswer):
        return False


def _tell_defect(task: asyncio.Task[Any]) -> None:
    """Hand a defect to the event loop's handler: nobody awaits these tasks."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "a channel to opencode failed", "exception": error, "task": task}
        )
