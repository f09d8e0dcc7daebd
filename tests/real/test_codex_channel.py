"""The app-server door and channel against the real program, with its terminal attached."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from iapeer.core.envelope import Envelope
from iapeer.core.identity import Intelligence
from iapeer.core.ids import new_message_id
from iapeer.core.states import HoldReason, TurnEnd
from iapeer.sessions.appserver import AppServerChannel, Whereabouts
from iapeer.sessions.doors.appserver import AppServerDoor
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.model_server import (
    Call,
    Fail,
    Hold,
    RecordedRequest,
    Rule,
    Say,
    Script,
    Slow,
)

pytestmark = pytest.mark.anyio

NASTY = (
    "/help is no command\n!echo no shell\n@etc/passwd #x\n"
    "Кириллица 日本語 👩‍👩‍👧 e\u0301 \u202bרtl\u202c\t<tab>\n"
    "\"quotes\" 'and' `ticks` ]]> $(id) <system>x</system> \\n\n\n   blanks around   \n"
)
RULES = (
    Rule("SLOWLY", (Slow(0.1), Say("one word after the other, and each takes its time"))),
    Rule("TOOL", (Call("exec_command", {"cmd": "sleep 1.5"}), Say("done"))),
    Rule(r"HELD ([\w/.-]+)", (Say("one moment"), Hold("$1"), Say("done"))),
    Rule("LIMITED", (Fail(status=429),)),
)
UNRESTRICTED = "--dangerously-bypass-approvals-and-sandbox"
DEADLINE_S = 10.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    return RULES


async def until(done: Callable[[], object], what: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not done():
        assert loop.time() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.01)


class Codex:
    """One app-server, its terminal in a tmux server of its own, our channel and the door."""

    def __init__(self, program: Path, environ: dict[str, str], model: SimulatedModel) -> None:
        self.program, self.environ, self.model = program, environ, model
        home = Path(environ["HOME"])
        self.cwd = home / "w"
        self.cwd.mkdir()
        self.endpoint = home / "c.sock"
        self.facts: list[Fact] = []
        self.door = AppServerDoor()
        self.channel = AppServerChannel(str(self.endpoint), self.facts.extend)
        self.session = self.session_with(self.channel)
        self.server: subprocess.Popen[bytes] | None = None

    def session_with(self, channel: AppServerChannel) -> TmuxSession:
        spec = SimpleNamespace(submit=SimpleNamespace(mentions=False))
        fake = SimpleNamespace(channel=channel, preface="", spec=spec, cwd=self.cwd)
        return cast("TmuxSession", fake)

    async def up(self) -> None:
        self.start_server()
        await until(self.endpoint.exists, "the server listens")
        self.tmux("set-option", "-g", "remain-on-exit", "on", ";", *self.terminal())
        await self.channel.start()
        await until(lambda: self.channel.native_id, "the terminal has a conversation")

    def terminal(self, *resume: str) -> tuple[str, ...]:
        words = (str(self.program), *resume, "--remote", f"unix://{self.endpoint}")
        size = ("-x", "160", "-y", "50", "-c", str(self.cwd))
        # A conversation that goes on keeps its permissions; the program refuses to be told them.
        free = () if resume else (UNRESTRICTED,)
        return ("new-session", "-d", "-s", "m", *size, *words, *free)

    def start_server(self) -> None:
        self.server = subprocess.Popen(
            [self.program, "app-server", "--listen", f"unix://{self.endpoint}"],
            env=self.environ,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.endpoint.with_name("t.sock")), "-f", os.devnull, *words]
        return subprocess.run(
            command, env=self.environ, capture_output=True, encoding="utf-8", check=True
        ).stdout

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "=m:")

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-t", "=m:", "-l", text)

    def key(self, name: str) -> None:
        self.tmux("send-keys", "-t", "=m:", name)

    async def down(self) -> None:
        await self.channel.close()
        subprocess.run(
            ["tmux", "-S", str(self.endpoint.with_name("t.sock")), "kill-server"],
            env=self.environ,
            capture_output=True,
            check=False,
        )
        if self.server is not None:
            self.kill_server()

    async def hand(self, body: str, *, dup: str | None = None, again: str = "") -> str:
        """Hand one message over and return its id."""
        found = again or new_message_id()
        envelope = letter(found, body, dup)
        marker = f"{found}-{2 if again else 1}"
        outcome = await self.door.hand_over(self.session, envelope, marker)
        async with asyncio.timeout(20):
            # On a busy machine the answer may come late; a lane looks then, and so do we.
            while outcome == HandOver.UNCERTAIN:
                outcome = await self.door.finish(self.session, marker)
        assert outcome == HandOver.LANDED
        return found

    def ids(self) -> list[str]:
        return [i for fact in self.facts if fact.kind == "user" for i in fact.ids]

    def ends(self) -> list[str]:
        return [fact.status for fact in self.facts if fact.kind == "turn_end"]

    @property
    def asks(self) -> list[RecordedRequest]:
        """The requests of turns; the terminal asks for a title, too, without tools."""
        return [request for request in self.model.requests if request.has_tools]

    def asked(self, words: str) -> int:
        """In how many requests these words stand in the newest user text."""
        return sum(words in (request.user_texts or ("",))[-1] for request in self.asks)

    async def seen(self, message_id: str) -> None:
        await until(lambda: message_id in self.ids(), f"{message_id} is seen")

    async def ended(self, count: int) -> None:
        await until(lambda: len(self.ends()) >= count, f"{count} turns have ended")


def letter(message_id: str, body: str, dup: str | None = None) -> Envelope:
    return Envelope(
        from_personality="ann",
        from_runtime="claude",
        from_intelligence=Intelligence.ARTIFICIAL,
        ts="2026-01-01T12:00:00+00:00",
        body=body,
        id=message_id,
        dup=dup,
    )


@pytest.fixture
async def codex(
    agent_binaries: Mapping[str, Path],
    agent_environ: dict[str, str],
    model: SimulatedModel,
    anyio_backend: str,
) -> AsyncIterator[Codex]:
    running = Codex(agent_binaries["codex"], agent_environ, model)
    try:
        await running.up()
        yield running
    finally:
        await running.down()


async def test_an_idle_agent_is_given_the_exact_text_and_acknowledges_it_by_our_id(
    codex: Codex,
) -> None:
    assert await codex.door.probe(codex.session) is None
    sent = await codex.hand(NASTY)
    await codex.ended(1)
    assert codex.asks[-1].user_texts[-1] == handed_text(codex.session, letter(sent, NASTY))
    kinds = [fact.kind for fact in codex.facts]
    assert kinds == ["session", "turn_start", "user", "turn_end"]
    assert codex.ids() == [sent]
    assert codex.ends() == [TurnEnd.DONE]
    first = codex.facts[0]
    assert first.native_id == codex.channel.native_id
    assert Path(first.transcript).is_file()


async def test_a_message_in_mid_stream_and_in_mid_tool_waits_and_cuts_nothing_off(
    codex: Codex,
) -> None:
    sent = [await codex.hand("SLOWLY")]
    await codex.seen(sent[0])
    assert await codex.door.is_busy(codex.session)
    sent.append(await codex.hand("TOOL"))
    assert await codex.channel.look(f"{sent[1]}-1") == Whereabouts.QUEUED
    await codex.seen(sent[1])
    sent.append(await codex.hand("the last"))
    await codex.ended(3)
    assert codex.ids() == sent
    assert codex.ends() == [TurnEnd.DONE] * 3
    assert not await codex.door.is_busy(codex.session)


async def test_a_persons_draft_is_left_alone_and_what_they_type_is_no_peers(codex: Codex) -> None:
    await until(lambda: "›" in codex.screen(), "the composer")
    codex.type("half a thought")
    await until(lambda: "› half a thought" in codex.screen(), "the draft is shown")
    await codex.hand("polite")
    await codex.ended(1)
    await until(lambda: "› half a thought" in codex.screen(), "the draft is still there")
    codex.key("Enter")
    await codex.ended(2)
    assert codex.asked("half a thought") == 1
    assert [fact.ids for fact in codex.facts if fact.kind == "user"][-1] == ()


async def test_a_queued_message_survives_the_server_and_runs_once(codex: Codex) -> None:
    cut = await codex.hand("SLOWLY")
    await codex.seen(cut)
    queued = await codex.hand("the survivor")
    codex.kill_server()
    await until(lambda: not codex.channel.connected, "the loss is noticed")
    assert await codex.door.probe(codex.session) == HoldReason.BUSY
    assert await codex.door.finish(codex.session, f"{queued}-1") == HandOver.UNCERTAIN
    codex.start_server()
    await codex.seen(queued)
    await codex.ended(2)
    assert codex.ends() == [TurnEnd.INTERRUPTED, TurnEnd.DONE]
    assert await codex.door.finish(codex.session, f"{queued}-1") == HandOver.LANDED
    # A message that may be there already is found, and not handed over again.
    await codex.hand("the survivor", dup="maybe", again=queued)
    assert codex.asked("the survivor") == 1
    # The terminal brought the conversation up again, with its own permissions and not the server's.
    permissions = "".join(codex.asks[-1].system_texts)
    assert "danger-full-access" in permissions
    assert "read-only" not in permissions.partition("<permissions instructions>")[2][:400]


async def test_a_session_that_goes_on_in_new_programs_runs_what_was_queued_once(
    codex: Codex,
) -> None:
    cut = await codex.hand("SLOWLY")
    await codex.seen(cut)
    queued = await codex.hand("the survivor")
    native_id = codex.channel.native_id
    await codex.channel.close()
    codex.kill_server()
    codex.tmux("kill-server")
    codex.start_server()
    facts: list[Fact] = []
    later = AppServerChannel(str(codex.endpoint), facts.extend, native_id=native_id)
    session = codex.session_with(later)
    try:
        await later.start()
        await until(lambda: later.connected, "connected before the terminal")
        codex.tmux(*codex.terminal("resume", native_id))
        await until(lambda: later.ready, "the conversation is loaded")
        assert await codex.door.probe(session) is None
        assert later.native_id == native_id
        # The lane gives it back marked, and the new session is the first to be asked.
        outcome = await codex.door.hand_over(
            session, letter(queued, "the survivor", "maybe"), f"{queued}-2"
        )
        assert outcome == HandOver.LANDED
        await until(lambda: any(queued in fact.ids for fact in facts), "it is seen")
        assert "danger-full-access" in "".join(codex.asks[-1].system_texts)
        await until(lambda: not later.busy and facts[-1].kind == "turn_end", "and answered")
        assert codex.asked("the survivor") == 1
        # The one that was cut off goes round again: its turn does not run any more.
        again = letter(cut, "quickly now", "maybe")
        assert await codex.door.hand_over(session, again, f"{cut}-2") == HandOver.LANDED
        await until(lambda: codex.asked("quickly now") == 1, "it is in a second request")
    finally:
        await later.close()


async def test_a_message_whose_turn_was_cut_off_is_handed_over_again(codex: Codex) -> None:
    cut = await codex.hand("SLOWLY")
    await until(lambda: codex.asked(cut) == 1, "the model is asked")
    await codex.seen(cut)
    codex.kill_server()
    codex.start_server()
    await codex.ended(1)
    assert await codex.channel.look_any(cut) == Whereabouts.CUT
    await codex.hand("SLOWLY", dup="maybe", again=cut)
    await until(lambda: codex.asked(cut) == 2, "it is in a second request")


async def test_what_happens_while_the_connection_is_lost_is_read_afterwards_once(
    codex: Codex,
) -> None:
    sent = [await codex.hand("SLOWLY")]
    await codex.seen(sent[0])
    sent += [await codex.hand("the second")]
    codex.channel._line.wire._connection.transport.abort()
    await until(lambda: not codex.channel.connected, "the loss is noticed")
    await until(lambda: codex.channel.status().subscribed, "the channel is back")
    await codex.seen(sent[1])
    await codex.ended(2)
    assert codex.ids() == sent
    assert codex.ends() == [TurnEnd.DONE, TurnEnd.DONE]


async def test_another_channel_reads_earlier_acknowledgements_again(codex: Codex) -> None:
    sent = [await codex.hand("one"), await codex.hand("two")]
    await codex.ended(2)
    facts: list[Fact] = []
    later = AppServerChannel(str(codex.endpoint), facts.extend, native_id=codex.channel.native_id)
    try:
        await later.start()
        await until(lambda: facts, "it has read the conversation")
        assert [i for fact in facts for i in fact.ids] == sent
        assert [fact.status for fact in facts if fact.kind == "turn_end"] == [TurnEnd.DONE]
        assert await codex.door.finish(codex.session_with(later), f"{sent[0]}-1") == HandOver.LANDED
    finally:
        await later.close()


async def test_whenever_somebody_begins_to_listen_a_turn_is_told_whole_and_once(
    codex: Codex,
) -> None:
    """A turn takes some 80 ms here; the list of turns lags up to 20 ms behind its news."""
    for step in range(16):
        await listen_after(codex, step * 0.006)
        await codex.ended(step + 1)
    assert codex.ends() == [TurnEnd.DONE] * 16


async def listen_after(codex: Codex, delay_s: float) -> None:
    facts: list[Fact] = []
    late = AppServerChannel(
        str(codex.endpoint),
        facts.extend,
        native_id=codex.channel.native_id,
        since=time.time() - 2,
    )
    sent = await codex.hand("hello")
    await asyncio.sleep(delay_s)
    await late.start()
    told = [("user", sent), ("turn_end", TurnEnd.DONE)]
    await until(lambda: story(facts, sent)[-2:] == told, f"listening after {delay_s:g} s")
    assert [story(facts, sent).count(fact) for fact in told] == [1, 1]
    await late.close()


async def test_a_message_that_comes_while_a_person_begins_anew_is_told_to_its_end(
    codex: Codex,
) -> None:
    """It belongs to whichever conversation it reached, and runs there once."""
    for step in range(4):
        codex.type("/new")
        await until(lambda: codex.screen().count("/new") > 1, "the command is shown and offered")
        pressed = asyncio.create_task(asyncio.to_thread(codex.key, "Enter"))
        await asyncio.sleep(step * 0.02)
        sent = await codex.hand(f"number {step}")
        await pressed
        await codex.seen(sent)
        await codex.ended(step + 1)
        assert codex.asked(f"number {step}") == 1
    assert codex.ends() == [TurnEnd.DONE] * 4


async def leave_in_mid_turn(codex: Codex, go: Path) -> str:
    """Begin anew while a message begins a turn that lasts until `go` is made; return its id.

    The terminal refuses `/new` once it knows of a turn (0.169.0). Here it has asked for the new
    conversation before it can know: a server that stands still takes both requests afterwards.
    """
    await codex.hand("hello")
    await codex.ended(1)
    left, before = new_message_id(), codex.channel.native_id
    codex.type("/new")
    await until(lambda: codex.screen().count("/new") > 1, "the command is shown and offered")
    assert codex.server is not None
    codex.server.send_signal(signal.SIGSTOP)
    text = handed_text(codex.session, letter(left, f"HELD {go}"))
    queued = asyncio.create_task(codex.channel.queue_add(text, f"{left}-1", DEADLINE_S))
    await asyncio.to_thread(codex.key, "Enter")
    # It shows nothing of it while it waits for the server.
    await asyncio.sleep(0.5)
    codex.server.send_signal(signal.SIGCONT)
    await queued
    await codex.seen(left)
    await until(lambda: codex.channel.native_id != before, "the new one is followed")
    return left


async def test_a_turn_in_the_conversation_that_was_left_goes_on_and_ends_by_itself(
    codex: Codex, tmp_path: Path
) -> None:
    left = await leave_in_mid_turn(codex, tmp_path / "go")
    await codex.hand("beside it")
    await codex.ended(2)
    assert codex.channel.busy
    (tmp_path / "go").touch()
    await codex.ended(3)
    done = TurnEnd.DONE
    assert told_ends(codex.facts) == [(done, ()), (done, (left,)), (done, ())]
    assert codex.asked(left) == 1


async def test_a_later_channel_hears_the_conversation_that_was_left_too(
    codex: Codex, tmp_path: Path
) -> None:
    left = await leave_in_mid_turn(codex, tmp_path / "go")
    await codex.hand("beside it")
    await codex.ended(2)
    await codex.channel.close()
    facts: list[Fact] = []
    later = AppServerChannel(
        str(codex.endpoint),
        facts.extend,
        native_id=codex.channel.native_id,
        since=time.time() + 2,
    )
    try:
        await later.start()
        await until(lambda: later.status().subscribed, "it goes on")
        await codex.door.hand_over(
            codex.session_with(later), letter(again := new_message_id(), "again"), f"{again}-1"
        )
        done = TurnEnd.DONE
        await until(lambda: told_ends(facts) == [(done, (left,))], "the end of the new turn")
        (tmp_path / "go").touch()
        await until(lambda: told_ends(facts)[1:] == [(done, ())], "and of the one that was left")
    finally:
        await later.close()


def told_ends(facts: list[Fact]) -> list[tuple[str, tuple[str, ...]]]:
    """Return how turns ended, each with what it spared."""
    return [(fact.status, fact.spares) for fact in facts if fact.kind == "turn_end"]


def story(facts: list[Fact], message_id: str) -> list[tuple[str, str]]:
    """Return where a message was seen among the ends of turns."""
    return [
        (fact.kind, fact.status if fact.kind == "turn_end" else message_id)
        for fact in facts
        if fact.kind == "turn_end" or message_id in fact.ids
    ]


async def test_an_attempt_that_never_arrived_is_provably_not_there(codex: Codex) -> None:
    await codex.hand("one")
    await codex.ended(1)
    outcome = await codex.door.finish(codex.session, f"{new_message_id()}-1")
    assert outcome == HandOver.NOT_HANDED


async def test_an_interrupt_ends_the_turn_and_the_next_message_runs_all_the_same(
    codex: Codex,
) -> None:
    assert not await codex.channel.interrupt()
    first = await codex.hand("SLOWLY")
    await codex.seen(first)
    second = await codex.hand("after that")
    assert await codex.channel.interrupt()
    await codex.ended(2)
    assert codex.ends() == [TurnEnd.INTERRUPTED, TurnEnd.DONE]
    assert codex.ids() == [first, second]


async def test_a_turn_that_the_vendor_refuses_says_so_and_the_next_one_runs(codex: Codex) -> None:
    await codex.hand("LIMITED")
    await codex.ended(1)
    (failed,) = [fact for fact in codex.facts if fact.kind == "turn_end"]
    assert (failed.status, failed.error) == (TurnEnd.API_ERROR, "rate_limit")
    assert "429" in failed.words
    await codex.hand("and now")
    await codex.ended(2)
    assert codex.ends()[-1] == TurnEnd.DONE


async def test_compaction_is_told_and_never_begun_in_a_running_turn(codex: Codex) -> None:
    assert not await codex.channel.compact()
    sent = await codex.hand("SLOWLY")
    await codex.seen(sent)
    assert not await codex.channel.compact()
    await codex.ended(1)
    await until(lambda: not codex.channel.busy, "the turn is over")
    assert await codex.channel.compact()
    await until(lambda: any(f.kind == "compacted" for f in codex.facts), "it is done")
    assert codex.ends()[0] == TurnEnd.DONE


async def test_a_conversation_that_a_person_begins_anew_is_followed(codex: Codex) -> None:
    await codex.hand("one")
    await codex.ended(1)
    before = codex.channel.native_id
    codex.type("/new")
    await until(lambda: codex.screen().count("/new") > 1, "the command is shown and offered")
    codex.key("Enter")
    await until(lambda: codex.channel.native_id != before, "the new one is followed")
    sent = await codex.hand("two")
    await codex.seen(sent)
    await codex.ended(2)
    told = [fact.native_id for fact in codex.facts if fact.kind == "session"]
    assert told == [before, codex.channel.native_id]
    # No earlier text is in the new conversation.
    assert "one" not in " ".join(codex.asks[-1].user_texts[:-1])
