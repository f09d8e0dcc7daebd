"""A real client asks the model server over loopback, in every protocol, streamed and whole."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iapeer.testing.model_server import (
    Call,
    Fail,
    Hold,
    ModelServer,
    Rule,
    Say,
    Script,
    Slow,
    secret_digest,
)
from iapeer.testing.model_server.app import BODY_LIMIT
from iapeer.testing.model_server.asks import Protocol
from tests.integration.testing.model_client import PATHS, PROTOCOLS, Said, ask, read, with_result

pytestmark = pytest.mark.anyio

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])

NASTY = (
    "Привет 你好 👩‍👩‍👧 e\u0301\u2028\u0085 \"'`]]>"
    " $(id) $1 $$ \\n\n\n\tdata: x\n\nevent: y\r\n end "
)


def client(model: ModelServer) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=model.url, timeout=20, trust_env=False)


async def post(model: ModelServer, protocol: Protocol, body: Any, key: str = "k") -> Any:
    async with client(model) as http:
        headers = {"authorization": f"Bearer {key}"}
        return await http.post(PATHS[protocol], json=body, headers=headers)


async def say(model: ModelServer, protocol: Protocol, body: Any, key: str = "k") -> Said:
    return read(protocol, await post(model, protocol, body, key))


@each_protocol
@streamed_or_not
async def test_a_rules_text_comes_whatever_the_protocol(protocol: Protocol, stream: bool) -> None:
    async with ModelServer([Rule("^hello", (Say(NASTY), Say("and more")))]) as model:
        said = await say(model, protocol, ask(protocol, "hello there", stream=stream))
        other = await say(model, protocol, ask(protocol, "well, hello", stream=stream))
    assert said == Said(NASTY + "and more")
    assert other == Said("ok")


@each_protocol
@streamed_or_not
async def test_a_tool_is_called_and_its_result_brings_the_next_step(
    protocol: Protocol, stream: bool
) -> None:
    args = {"to": "$1", "message": "$2", "deep": [{"all": "$0"}], "cost": "$$1", "n": 1}
    steps = (Say("wait"), Call("send_to_peer", args), Call("send_to_peer"), Say("sent"))
    async with ModelServer([Rule(r"(?s)tell (\w+): (.*)", steps)]) as model:
        body = ask(protocol, 'tell bob: "hi"\n🐍', stream=stream)
        first = await say(model, protocol, body)
        body = with_result(protocol, body, first, "delivered")
        second = await say(model, protocol, body)
        body = with_result(protocol, body, second, "again")
        third = await say(model, protocol, body)
        fourth = await say(model, protocol, with_result(protocol, body, second, "too often"))
        last = model.requests[-1]
    names = {
        "messages": ("mcp__iapeer__send_to_peer", ""),
        "responses": ("send_to_peer", "mcp__iapeer"),
        "chat": ("iapeer_send_to_peer", ""),
    }
    assert (first.text, (first.tool, first.namespace)) == ("wait", names[protocol])
    assert first.args == {
        "to": "bob",
        "message": '"hi"\n🐍',
        "deep": [{"all": 'tell bob: "hi"\n🐍'}],
        "cost": "$1",
        "n": 1,
    }
    assert (second.text, second.args) == ("", {})
    assert first.call_id != second.call_id
    assert (third, fourth) == (Said("sent"), Said("ok"))
    assert last.user_texts == ('tell bob: "hi"\n🐍',)
    assert last.tool_results == ("delivered", "again", "too often")


@each_protocol
async def test_a_group_can_be_the_whole_of_the_arguments(protocol: Protocol) -> None:
    async with ModelServer([Rule(r"CALL (\w+) (.*)", (Call("$1", "$2"),))]) as model:
        said = await say(model, protocol, ask(protocol, 'CALL send_to_peer {"a": [1, "$1"]}'))
        bad = await post(model, protocol, ask(protocol, "CALL send_to_peer {nonsense"))
        absent = await post(model, protocol, ask(protocol, "CALL fly {}"))
    assert said.args == {"a": [1, "$1"]}
    assert (bad.status_code, absent.status_code) == (400, 400)
    assert "not offered" in absent.json()["error"]["message"]


@each_protocol
@streamed_or_not
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_an_error_is_given_as_often_as_the_rule_says(
    protocol: Protocol, stream: bool, status: int
) -> None:
    steps = (Fail(status=status, retry_after=3, times=2), Say("better"))
    async with ModelServer([Rule("x", steps), Rule("never", (Fail(status=500),))]) as model:
        body = ask(protocol, "x", stream=stream)
        answers = [await post(model, protocol, body) for _ in range(2)]
        other = await post(model, protocol, body, key="another agent")
        third = await say(model, protocol, body)
    assert [answer.status_code for answer in [*answers, other]] == [status] * 3
    assert answers[0].headers["retry-after"] == "3"
    assert answers[0].json()["error"]["message"] == "the script says so"
    if protocol == "messages":
        assert answers[0].json()["type"] == "error"
    assert third == Said("better")


async def test_errors_are_named_as_their_vendors_name_them() -> None:
    steps = (Fail(status=429),)
    async with ModelServer([Rule("x", steps)]) as model:
        anthropic = (await post(model, "messages", ask("messages", "x"))).json()
        openai = (await post(model, "responses", ask("responses", "x"))).json()
        again = await post(model, "responses", ask("responses", "x"))
    assert anthropic["error"]["type"] == "rate_limit_error"
    assert openai["error"]["code"] == "rate_limit_exceeded"
    assert again.status_code == 429
    assert "retry-after" not in again.headers


@each_protocol
async def test_a_stream_can_break_in_the_middle(protocol: Protocol) -> None:
    steps = (Say("half of it"), Fail(status=529, mid_stream=True, times=1), Say("all of it"))
    async with ModelServer([Rule("x", steps)]) as model:
        broken = await say(model, protocol, ask(protocol, "x"))
        mended = await say(model, protocol, ask(protocol, "x"))
        whole = await post(model, protocol, ask(protocol, "x", stream=False))
    assert (broken.text, broken.ended) == ("half of it", False)
    assert broken.failed in {"overloaded_error", "server_is_overloaded"}
    assert mended == Said("all of it")
    assert whole.status_code == 529


@each_protocol
async def test_a_slow_stream_waits_before_each_chunk_and_begins_at_once(
    protocol: Protocol,
) -> None:
    script = Script(rules=(Rule("x", (Slow(0.1), Say("abc"))),), chunk_chars=1)
    async with ModelServer(script) as model, client(model) as http:
        begun = time.monotonic()
        first_s = 0.0
        body = ask(protocol, "x")
        async with http.stream("POST", PATHS[protocol], json=body) as response:
            async for _part in response.aiter_raw():
                first_s = first_s or time.monotonic() - begun
        streamed_s = time.monotonic() - begun
        begun = time.monotonic()
        await post(model, protocol, ask(protocol, "x", stream=False))
        whole_s = time.monotonic() - begun
    assert streamed_s >= 0.3
    assert first_s <= streamed_s - 0.2
    assert whole_s >= 0.3


@each_protocol
async def test_a_held_answer_goes_on_when_the_file_is_there_that_its_request_names(
    protocol: Protocol, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = Script(
        rules=(Rule(r"HOLD (\S+)", (Say("begun"), Hold("$1"), Say("zzz"))),), chunk_chars=3
    )
    text, shown = f"HOLD {go}", b""
    async with ModelServer(script) as model, client(model) as http:
        whole = asyncio.create_task(say(model, protocol, ask(protocol, text, stream=False)))
        await model.wait_for(lambda request: text in request.user_texts)
        async with http.stream("POST", PATHS[protocol], json=ask(protocol, text)) as response:
            async for part in response.aiter_raw():
                shown += part
                if b'"un"' in shown and not go.exists():
                    assert b"zzz" not in shown
                    assert not whole.done()
                    go.touch()
        assert shown.index(b'"un"') < shown.index(b"zzz")
        assert await whole == Said("begunzzz")


async def test_a_server_that_stops_does_not_wait_for_held_answers(tmp_path: Path) -> None:
    held = Rule("x", (Hold(str(tmp_path / "never")), Say("late")))
    async with ModelServer([held]) as model:
        asked = [
            asyncio.create_task(post(model, "chat", ask("chat", "x", stream=stream)))
            for stream in (True, False)
        ]
        await model.wait_for(lambda request: request.number == 2)
    streamed, whole = [(await answer) for answer in asked]
    assert "late" not in streamed.text
    assert whole.status_code == 503


async def test_stopping_does_not_wait_for_slow_answers() -> None:
    async with ModelServer([Rule("x", (Slow(600), Say("late")))]) as model:
        running = asyncio.create_task(post(model, "chat", ask("chat", "x")))
        whole = asyncio.create_task(post(model, "chat", ask("chat", "x", stream=False)))
        for number in (1, 2):
            await model.wait_for(lambda request, n=number: request.number == n)  # type: ignore[misc]
        begun = time.monotonic()
    # Far from what the answers take.
    assert time.monotonic() - begun < 60
    assert "late" not in (await running).text
    assert (await whole).status_code == 503


async def test_a_client_that_leaves_is_not_written_to_any_more() -> None:
    script = Script(rules=(Rule("x", (Slow(0.02), Say("abc" * 10_000))),), chunk_chars=1)
    async with ModelServer(script) as model:
        async with client(model) as http:
            body = ask("messages", "x")
            async with http.stream("POST", PATHS["messages"], json=body) as response:
                async for _part in response.aiter_raw():
                    break
        assert model._server is not None
        tasks = list(model._server.server_state.tasks)
        _done, left = await asyncio.wait(tasks, timeout=10) if tasks else (set(), set())
        assert not left


async def test_one_slow_agent_holds_up_no_other() -> None:
    async with ModelServer([Rule("x", (Slow(600), Say("late")))]) as model:
        slow = asyncio.create_task(post(model, "chat", ask("chat", "x")))
        await model.wait_for(lambda request: request.user_texts == ("x",))
        asks = [say(model, p, ask(p, f"{n}")) for n in range(10) for p in PROTOCOLS]
        assert set(await asyncio.wait_for(asyncio.gather(*asks), 20)) == {Said("ok")}
        assert not slow.done()
        slow.cancel()
        await asyncio.wait([slow])
    assert len(model.requests) == 31


@each_protocol
@streamed_or_not
async def test_agents_with_their_own_keys_walk_through_a_rule_by_themselves(
    protocol: Protocol, stream: bool
) -> None:
    steps = (Fail(status=500, times=1), Call("send_to_peer", {"n": "$1"}), Say("done"))
    async with ModelServer([Rule(r"go (\d)", steps)]) as model:

        async def agent(number: int) -> tuple[int, Any, Said]:
            key = f"agent {number}"
            body = ask(protocol, f"go {number}", stream=stream)
            failed = await post(model, protocol, body, key)
            called = await say(model, protocol, body, key)
            body = with_result(protocol, body, called, "fine")
            return failed.status_code, called.args, await say(model, protocol, body, key)

        found = await asyncio.gather(*(agent(number) for number in range(8)))
    assert found == [(500, {"n": str(number)}, Said("done")) for number in range(8)]


@each_protocol
async def test_title_requests_get_the_short_answer_and_use_up_no_rule(protocol: Protocol) -> None:
    script = Script(rules=(Rule("x", (Say("the turn"),), times=1),), side="Short")
    async with ModelServer(script) as model:
        title = await say(model, protocol, ask(protocol, "x", with_tools=False))
        turn = await say(model, protocol, ask(protocol, "x"))
        later = await say(model, protocol, ask(protocol, "x"))
        kinds = [request.has_tools for request in model.requests]
    assert (title, turn, later) == (Said("Short"), Said("the turn"), Said("ok"))
    assert kinds == [False, True, True]


async def test_a_title_request_that_wants_a_schema_gets_an_object_of_it() -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "new": {"type": "boolean"}},
    }
    form = {"type": "json_schema", "schema": schema}
    async with ModelServer([Rule("x", (Say("the turn"),))]) as model:
        codex = ask("responses", "x") | {"text": {"format": form}}
        claude = ask("messages", "x") | {"output_config": {"format": form}}
        said = [await say(model, "responses", codex), await say(model, "messages", claude)]
    assert [json.loads(one.text) for one in said] == [{"title": "A title", "new": False}] * 2


async def test_every_request_is_kept_byte_for_byte_and_secrets_as_digests() -> None:
    body = b' {"messages": [{"role": "user", "content": "\\u0416 \xd0\x96"}], "tools": [] }\n'
    secret = {"x-api-key": "sk-ant-secret", "Authorization": "Bearer s3cret", "X-Plain": "seen"}
    async with ModelServer() as model, client(model) as http:
        await http.post("/v1/messages?beta=true", content=body, headers=secret)
        await http.get("/nowhere")
    kept, lost = model.requests
    assert (kept.method, kept.path, kept.query) == ("POST", "/v1/messages", "beta=true")
    assert kept.body == body
    assert kept.user_texts == ("Ж Ж",)
    assert kept.header("X-API-Key") == secret_digest("sk-ant-secret")
    assert kept.credentials == secret_digest("Bearer s3cret")
    assert kept.header("x-plain") == "seen"
    assert "s3cret" not in repr(kept)
    assert "sk-ant-secret" not in repr(kept)
    assert (lost.path, lost.ask, lost.user_texts) == ("/nowhere", None, ())


async def test_token_counts_models_and_the_root_are_answered() -> None:
    async with ModelServer() as model, client(model) as http:
        counted = await http.post("/v1/messages/count_tokens", json=ask("messages", "x" * 400))
        models = await http.get("/v1/models")
        head = await http.head("/")
        short = await http.post("/responses", json=ask("responses", "x"))
    assert counted.json() == {"input_tokens": 101}
    assert models.json()["data"][0]["id"] == "fake-model"
    assert head.status_code == 200
    assert read("responses", short) == Said("ok")


@each_protocol
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b'{"messages": 1, "input": 1}', b"\xff"])
async def test_a_body_that_is_no_request_is_refused(protocol: Protocol, body: bytes) -> None:
    async with ModelServer() as model, client(model) as http:
        answer = await http.post(PATHS[protocol], content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_what_this_server_can_not_read_is_refused() -> None:
    async with ModelServer() as model, client(model) as http:
        zipped = await http.post(
            "/v1/messages", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
        )
        large = await http.post("/v1/messages", content=b"x" * (BODY_LIMIT + 1))
        chained = await http.post(
            "/v1/responses", json=ask("responses", "x") | {"previous_response_id": "resp_1"}
        )
        absent = await http.post("/v1/embeddings", json={})
        bad_count = await http.post("/v1/messages/count_tokens", content=b"{")
    assert zipped.status_code == 415
    assert (large.status_code, large.json()["error"]["type"]) == (413, "request_too_large")
    assert model.requests[1].body == b""
    assert (chained.status_code, absent.status_code, bad_count.status_code) == (400, 404, 400)


async def test_waiting_for_a_request_that_does_not_come_ends() -> None:
    async with ModelServer() as model:
        with pytest.raises(TimeoutError):
            await model.wait_for(lambda _request: True, timeout_s=0.05)


async def test_a_taken_port_is_an_error_and_a_stopped_server_gives_its_port_back() -> None:
    async with ModelServer() as model:
        port = int(model.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await ModelServer(port=port).start()
    async with ModelServer(port=port) as again:
        assert await say(again, "chat", ask("chat", "x")) == Said("ok")


def whole_in_json(text: str) -> bool:
    """Two halves of a pair side by side become one character in any JSON: not ours to keep."""
    return json.loads(json.dumps(text)) == text  # type: ignore[no-any-return]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.text(st.characters(exclude_categories=()), max_size=80).filter(whole_in_json),
    chunk=st.integers(1, 20),
)
def test_any_text_arrives_exactly_through_the_stream(text: str, chunk: int) -> None:
    async def check() -> list[Said]:
        script = Script(rules=(Rule("x", (Say(text),)),), chunk_chars=chunk)
        async with ModelServer(script) as model:
            return [
                await say(model, protocol, ask(protocol, "x", stream=stream))
                for protocol in PROTOCOLS
                for stream in (True, False)
            ]

    assert asyncio.run(check()) == [Said(text)] * 6
