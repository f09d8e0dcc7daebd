"""The channel to opencode's server: a session, what happens in it, and nothing lost in between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from iapeer.sessions.evidence import Fact
from iapeer.sessions.httpserver import Found, HttpChannel, NoAnswer, NotReached, channel, client
from iapeer.sessions.httpserver.ids import native_message_id
from tests.unit.sessions.httpserver.fake_opencode import FakeOpencode, until

pytestmark = pytest.mark.anyio

ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


class Heard:
    """What a channel reported."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def __call__(self, facts: Sequence[Fact]) -> None:
        self.facts += facts

    @property
    def short(self) -> list[tuple[str, Any]]:
        told = [fact for fact in self.facts if fact.kind != "session"]
        return [(f.kind, f.status if f.kind == "turn_end" else f.ids) for f in told]

    @property
    def sessions(self) -> list[str]:
        return [fact.native_id for fact in self.facts if fact.kind == "session"]


@contextlib.asynccontextmanager
async def talking(
    server: FakeOpencode, native_id: str = ""
) -> AsyncIterator[tuple[HttpChannel, Heard]]:
    heard = Heard()
    line = HttpChannel(server.address, heard, native_id=native_id, title="ours")
    await line.start()
    try:
        await until(lambda: line.ready)
        yield line, heard
    finally:
        await line.close()


async def test_a_fresh_session_is_made_shown_and_told(server: FakeOpencode) -> None:
    async with talking(server) as (line, heard):
        assert [*server.sessions] == server.shown == heard.sessions == [line.native_id]
        assert server.sessions[line.native_id]["title"] == "ours"
        assert line.trouble == ""


@pytest.mark.parametrize("wanted", ["ses_gone", "6f0a8b1e-0000-4000-8000-000000000000"])
async def test_a_session_nobody_knows_is_replaced(server: FakeOpencode, wanted: str) -> None:
    async with talking(server, wanted) as (line, _heard):
        assert line.native_id in server.sessions


async def test_a_resumed_session_is_shown_with_what_happened_in_it(server: FakeOpencode) -> None:
    before = server.add_session()
    native = native_message_id(f"{ONE}-1", time.time())
    server.store(before, native, "earlier", tells=False)
    server.begin(before, native, tells=False)
    server.finish(before, tells=False)
    async with talking(server, before) as (line, heard):
        assert (line.native_id, server.shown, [*server.sessions]) == (before, [before], [before])
        assert heard.short == [("enqueue", (ONE,)), ("user", (ONE,)), ("turn_end", "done")]


async def test_without_the_secret_there_is_no_connection(server: FakeOpencode) -> None:
    line = HttpChannel(server.address.replace("a-word", "another"), Heard())
    await line.start()
    await until(lambda: line.trouble)
    assert not line.ready
    assert "401" in line.trouble
    await line.close()
    assert server.asked == []


async def test_a_message_is_stored_read_and_answered(server: FakeOpencode) -> None:
    async with talking(server) as (line, heard):
        assert await line.post(f"{ONE}-1", "the text\n\ttab", 1.0)
        await until(lambda: len(heard.short) == 3)
        assert heard.short == [("enqueue", (ONE,)), ("user", (ONE,)), ("turn_end", "done")]
        (prompt,) = server.prompts
        assert (prompt["agent"], prompt["parts"]) == (
            "peer",
            [{"type": "text", "text": "the text\n\ttab"}],
        )
        assert await line.look(f"{ONE}-1") == await line.look_any(ONE) == Found.READ
        assert await line.look(f"{ONE}-2") == await line.look_any(TWO) == Found.ABSENT


async def test_what_may_have_arrived_is_told_from_what_has_not(
    server: FakeOpencode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(server) as (line, _heard):
        server.deaf = True
        assert not await line.post(f"{ONE}-1", "never stored", 0.2)
        server.refuse = 400
        with pytest.raises(NotReached):
            await line.post(f"{ONE}-2", "refused", 1.0)
        server.refuse = 500
        with pytest.raises(NoAnswer):
            await line.post(f"{ONE}-3", "broken", 1.0)
        server.slow_s = 1.0
        with pytest.raises(NoAnswer):
            await line.post(f"{ONE}-4", "slow", 0.2)
        monkeypatch.setattr(channel, "BACK_OFF_S", (30.0,))
        await server.stop()
        with pytest.raises(NotReached):
            await line.post(f"{ONE}-5", "nobody", 1.0)


async def test_when_a_person_deleted_the_session_another_one_is_made(server: FakeOpencode) -> None:
    async with talking(server) as (line, heard):
        server.sessions.clear()
        with pytest.raises(NotReached):
            await line.post(f"{ONE}-1", "too late", 1.0)
        await until(lambda: len(heard.sessions) == 2 and line.ready)
        assert server.shown[-1] == line.native_id == heard.sessions[-1]
        assert await line.post(f"{ONE}-2", "again", 1.0)


async def test_what_happened_while_nobody_listened_is_told_once(server: FakeOpencode) -> None:
    server.answers = False
    async with talking(server) as (line, heard):
        await line.post(f"{ONE}-1", "a", 1.0)
        await until(lambda: heard.short[-1:] == [("user", (ONE,))])
        await line.post(f"{TWO}-1", "b", 1.0)
        native = server.messages[line.native_id][-1]["info"]["id"]
        await server.stop()
        await until(lambda: not line.ready)
        server.finish(line.native_id, tells=False)
        server.begin(line.native_id, native, tells=False)
        server.finish(line.native_id, tells=False)
        await server.start()
        await until(lambda: line.ready)
        assert heard.short == [
            ("enqueue", (ONE,)),
            ("user", (ONE,)),
            ("enqueue", (TWO,)),
            ("turn_end", "done"),
            ("user", (TWO,)),
            ("turn_end", "done"),
        ]
        assert len(server.sessions) == len(server.shown) == 1


async def test_what_waits_behind_a_stopped_turn_is_set_going(server: FakeOpencode) -> None:
    server.answers = False
    async with talking(server) as (line, heard):
        await line.post(f"{ONE}-1", "a", 1.0)
        await until(lambda: line.busy)
        await line.post(f"{TWO}-1", "b", 1.0)
        await until(lambda: heard.short[-1] == ("enqueue", (TWO,)))
        server.answers = True
        assert await line.interrupt()
        await until(lambda: heard.short[-1] == ("turn_end", "done"))
        assert heard.short[-3:] == [
            ("turn_end", "interrupted"),
            ("user", (TWO,)),
            ("turn_end", "done"),
        ]
        first, again = server.prompts[1:]
        assert (again["messageID"], again["parts"]) == (first["messageID"], [])


async def test_after_an_error_of_the_vendor_it_is_set_going_when_that_is_over(
    server: FakeOpencode,
) -> None:
    server.answers = False
    async with talking(server) as (line, heard):
        await line.post(f"{ONE}-1", "a", 1.0)
        await until(lambda: line.busy)
        await line.post(f"{TWO}-1", "b", 1.0)
        reset_at = time.time() + 21.0
        found = {"type": "retry", "attempt": 1, "message": "Too Many", "next": reset_at * 1000}
        server.tell("session.status", sessionID=line.native_id, status=found)
        await until(lambda: heard.short[-1] == ("turn_end", "api_error"))
        end = heard.facts[-1]
        assert end.error == "rate_limit"
        assert end.reset_at == pytest.approx(reset_at, abs=0.01)
        assert [path for _, path, _ in server.asked if path.endswith("/abort")]
        await asyncio.sleep(channel.REVIVE_S + 0.1)
        assert len(server.prompts) == 2


async def test_a_person_who_goes_to_another_session_is_followed(server: FakeOpencode) -> None:
    async with talking(server) as (line, heard):
        child = server.add_session(parentID=line.native_id)
        server.store(child, "msg_20477a580001DADJXSZQpqTwnRDA", "from a subagent")
        other = server.add_session()
        server.store(other, "msg_20477a590001DADJXSZQpqTwnRDA", "hello")
        await until(lambda: heard.sessions[1:])
        assert heard.sessions[1:] == [line.native_id] == [other]
        assert await line.post(f"{ONE}-1", "there", 1.0)
        assert server.messages[other][-1]["info"]["role"] == "assistant"


async def test_a_context_is_shortened_when_there_is_one_and_nothing_runs(
    server: FakeOpencode,
) -> None:
    async with talking(server) as (line, heard):
        assert not await line.compact()
        assert not await line.interrupt()
        await line.post(f"{ONE}-1", "a", 1.0)
        await until(lambda: heard.short[-1] == ("turn_end", "done"))
        assert await line.compact()
        await until(lambda: heard.short[-1] == ("compacted", ()))
        said = [said for _, path, said in server.asked if path.endswith("/summarize")]
        assert said == [{"providerID": "p", "modelID": "m"}]


async def test_frames_nobody_understands_and_long_ones_do_not_end_the_line(
    server: FakeOpencode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "EVENT_MAX", 5_000)
    async with talking(server) as (line, heard):
        server.tell("session.status", sessionID=line.native_id, status="idle")
        server.tell("unheard.of", anything=[None])
        server.tell("message.part.updated", part={"text": "x" * 10_000})
        await until(lambda: not line.ready)
        await until(lambda: line.ready)
        await line.post(f"{ONE}-1", "a", 1.0)
        await until(lambda: heard.short[-1:] == [("turn_end", "done")])


async def test_nothing_is_told_after_the_end_and_the_end_comes_at_once(
    server: FakeOpencode,
) -> None:
    async with talking(server) as (line, heard):
        server.slow_s = 600.0
        told = len(heard.facts)
        waiting = asyncio.create_task(line.look_any(ONE))
        # Far from what the answer takes.
        async with asyncio.timeout(30.0):
            await line.close()
            await line.close()
        server.store(line.native_id, native_message_id(f"{ONE}-1", time.time()), "late")
        with pytest.raises((NoAnswer, NotReached)):
            await waiting
        assert len(heard.facts) == told
