"""The tour's acts, in order: a team, a message, the screens, the answer, the proof."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from iapeer.client.peer import Incoming, Peer

from .house import House, TourFailed
from .keeper import Report
from .leftovers import is_running
from .letters import Letter, Trace, read_letters, rows
from .plan import YOU, Plan
from .stage import Frame, Stage, View, cropped

LOOK_S = 0.1
"""How often the screens are read while things happen."""
SETTLE_S = 5.0
"""How long the last message may take from answered to `seen`."""
_LIVE_LINES = 8
_FINAL_LINES = 14

_WAKING = {
    "booting": "{name} is woken: a terminal of its own starts (tmux)",
    "live": "{name} is awake",
}


class Look(msgspec.Struct, frozen=True):
    """The team at one moment."""

    statuses: dict[str, str]
    letters: tuple[Letter, ...]
    frames: tuple[Frame, ...]


class Story:
    """One tour through one house."""

    def __init__(self, house: House, stage: Stage, plan: Plan) -> None:
        self._house = house
        self._stage = stage
        self._plan = plan
        self._names = [agent.personality for agent in plan.agents]

    async def play(self) -> None:
        """Play all acts. Raises TourFailed, or IapeerError where the API refuses something."""
        await self._make_team()
        answer = await self._ask()
        traces = await self._settled_traces()
        self._stage.step("Their real screens: each one read, asked, answered")
        final = await self._look(_FINAL_LINES)
        self._stage.frames(final.frames)
        self._stage.step("The answer is in your inbox")
        self._stage.answer(_name(answer.sender), answer.body)
        self._stage.step("The way of every message (one of them: iapeer trace <message>)")
        self._stage.table(rows(traces))
        self._stage.note("`seen` is proven by the reader's own record, not by hope.")
        self._stage.step("Who is there now")
        self._stage.command("list")
        self._stage.output((await self._house.run("list")).out)

    async def _make_team(self) -> None:
        stage, house = self._stage, self._house
        stage.step(f"A team on a throw-away root, {house.base}; your own is not touched")
        stage.command("daemon", "--port", "0")
        await house.start_daemon()
        stage.note(f"One process (pid {house.daemon_pid}) carries all mail, on disk before its ok.")
        for agent in self._plan.agents:
            words = ("create", agent.personality, "--runtime", agent.runtime)
            stage.command(*words)
            await house.run(*words)
            house.log_in(agent)
        person = ("create", YOU.personality, "--runtime", YOU.runtime, "--intelligence", "natural")
        stage.command(*person)
        await house.run(*person)
        stage.note("Nobody runs yet: an agent sleeps in its folder until somebody writes to it.")

    async def _ask(self) -> Incoming:
        """Send the question and show what it sets off, until the answer is there."""
        stage, plan = self._stage, self._plan
        first = plan.alice.personality
        stage.step(f"You write to {first}, who is asleep")
        words = ("send", first, plan.question, "--from", YOU.address)
        stage.command(*words)
        if plan.is_scripted:
            stage.note("ASK and REPLY are the words of the demo agent, which plays a model.")
        sent = asyncio.create_task(self._house.run(*words))
        answer = asyncio.create_task(self._answer())
        try:
            with stage.watching() as view:
                await asyncio.wait_for(self._watch(view, sent, answer), plan.limit_s)
            return await answer
        except TimeoutError:
            raise TourFailed(f"no answer came within {plan.limit_s:g} s") from None
        finally:
            await end(sent, answer)

    async def _watch(
        self, view: View, sent: asyncio.Task[object], answer: asyncio.Task[Incoming]
    ) -> None:
        """Tell each change once; raises what `sent` or `answer` raised."""
        start = time.monotonic()
        before = Look(dict.fromkeys(self._names, "asleep"), (), ())
        while True:
            over = answer.done()
            now = await self._look(_LIVE_LINES)
            view.update(now.frames)
            for text in changes(before, now):
                self._stage.event(time.monotonic() - start, text)
            before = now
            if sent.done():
                sent.result()
            if over:
                answer.result()
                self._stage.event(time.monotonic() - start, "the answer is here")
                return
            await asyncio.wait((answer,), timeout=LOOK_S)

    async def _answer(self) -> Incoming:
        """Return the first message for the person, acknowledged."""
        me = Peer(YOU.address, socket=self._house.socket, token="")
        async with aclosing(me.inbox(auto_ack=False)) as inbox:
            async for message in inbox:
                await message.ack()
                return message
        raise TourFailed("the inbox ended")

    async def _look(self, lines: int) -> Look:
        """Read delivery log, statuses and screens; in this order: who got mail is awake by then."""
        letters = tuple(self._letters())
        peers = (await self._house.get("peers"))["peers"]
        statuses = {
            peer["personality"]: peer["statuses"].get(peer["default_runtime"], "unknown")
            for peer in peers
            if peer["personality"] in self._names
        }
        frames = []
        for agent in self._plan.agents:
            screen = cropped(await self._house.screen(agent), lines)
            if screen:
                frames.append(Frame(f" {agent.personality} ({agent.runtime}) ", screen))
        return Look(statuses, letters, tuple(frames))

    async def _settled_traces(self) -> list[Trace]:
        """Return the traces of all messages, once all of them have arrived for good.

        After `SETTLE_S` they are returned as they are: the table then tells what is missing.
        """
        until = time.monotonic() + SETTLE_S
        while True:
            answers = [await self._house.get(f"messages/{one.id}") for one in self._letters()]
            traces = msgspec.convert([answer["message"] for answer in answers], list[Trace])
            known = {trace.recipient for trace in traces}
            if YOU.address in known and all(trace.is_settled for trace in traces):
                return traces
            if time.monotonic() > until:
                return traces
            await asyncio.sleep(LOOK_S)

    def _letters(self) -> list[Letter]:
        try:
            text = self._house.delivery_log.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return read_letters(text.splitlines())


def changes(before: Look, now: Look) -> list[str]:
    """Return what happened between two looks, one sentence each."""
    told = [
        _WAKING[status].format(name=name)
        for name, status in now.statuses.items()
        if status != before.statuses.get(name) and status in _WAKING
    ]
    known = {letter.id for letter in before.letters}
    told += [_sentence(letter) for letter in now.letters if letter.id not in known]
    return told


def farewell(stage: Stage, report: Report) -> bool:
    """Tell what was ended, after looking at each pid once more; False when something is left."""
    left = sorted({*report.left, *(seen for seen in report.ended if is_running(seen))})
    for seen in left:
        stage.bad(f"still running: {seen.what} (pid {seen.pid})")
    if not report.removed:
        stage.bad("the throw-away folder could not be removed")
    if left or not report.removed:
        return False
    stage.note("ended: " + _listed([f"{seen.what} {seen.pid}" for seen in report.ended]))
    stage.good("nothing left running, and the throw-away root is removed")
    return True


def _sentence(letter: Letter) -> str:
    way = f"{_name(letter.caller)} → {letter.to}"
    return f"{way}: {letter.state} in {letter.ms} ms" + (", waking included" if letter.woke else "")


def _name(address: str) -> str:
    return address.partition("-")[2] or address


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "nothing had been started"


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for them; what they raise is no news any more.

    A signal may reach a command before its program runs in a session of its own: it then fails
    just when nobody waits for it any more.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
