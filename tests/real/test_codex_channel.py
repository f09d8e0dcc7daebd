"""The app-server door and channel against the real program, with its terminal attached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import pytest

from iapeer.core.ids import new_message_id
from iapeer.core.states import HoldReason, TurnEnd
from iapeer.sessions.appserver import AppServerChannel, Whereabouts
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.evidence import Fact
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.model_server import Rule, Script
from tests.real.codex_rig import RULES, Codex, letter, until

pytestmark = pytest.mark.anyio

NASTY = (
    "/help is no command\n!echo no shell\n@etc/passwd #x\n"
    "Кириллица 日本語 👩‍👩‍👧 e\u0301 \u202bרtl\u202c\t<tab>\n"
    "\"quotes\" 'and' `ticks` ]]> $(id) <system>x</system> \\n\n\n   blanks around   \n"
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    return RULES


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
        await codex.give(session, letter(queued, "the survivor", "maybe"), f"{queued}-2")
        await until(lambda: any(queued in fact.ids for fact in facts), "it is seen")
        assert "danger-full-access" in "".join(codex.asks[-1].system_texts)
        await until(lambda: not later.busy and facts[-1].kind == "turn_end", "and answered")
        assert codex.asked("the survivor") == 1
        # The one that was cut off goes round again: its turn does not run any more.
        again = letter(cut, "quickly now", "maybe")
        await codex.give(session, again, f"{cut}-2")
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
