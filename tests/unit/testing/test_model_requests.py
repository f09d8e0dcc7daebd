"""What agent CLIs send is understood: who said what, which tools, where a turn stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iapeer.core.errors import InvalidInput
from iapeer.testing.model_server import (
    Call,
    Fail,
    RecordedRequest,
    Rule,
    Say,
    Script,
    secret_digest,
)
from iapeer.testing.model_server.asks import Ask, Entry, Protocol, Tool, read_ask
from iapeer.testing.model_server.director import Answer, Director
from iapeer.testing.model_server.record import Recorder, clean_headers


def read(protocol: Protocol, body: dict[str, Any]) -> Ask:
    return read_ask(protocol, json.dumps(body).encode())


def test_claude_puts_its_notes_around_the_users_text() -> None:
    def text(value: str) -> dict[str, str]:
        return {"type": "text", "text": value}

    ask = read(
        "messages",
        {
            "model": "claude-x",
            "stream": True,
            "system": [text("billing"), text("You are alice.")],
            "tools": [{"name": "Bash"}, {"name": "mcp__iapeer__send_to_peer"}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        text("<system-reminder>CLAUDE.md</system-reminder>"),
                        text("<iap from='bob'>\nhello"),
                        text("<system-reminder>a hook</system-reminder>"),
                    ],
                },
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": [text("out")]},
                        text("<system-reminder>todo</system-reminder>"),
                    ],
                },
                {"role": "system", "content": "The user sent a new message while you worked"},
            ],
        },
    )
    assert (ask.model, ask.stream, ask.rounds) == ("claude-x", True, 1)
    assert ask.tools == (Tool("Bash"), Tool("mcp__iapeer__send_to_peer"))
    assert ask.texts("user") == ("<iap from='bob'>\nhello",)
    assert ask.texts("result") == ("out",)
    assert ask.texts("system")[:2] == ("billing", "You are alice.")
    assert ask.texts("system")[-1] == "The user sent a new message while you worked"


def test_texts_that_were_queued_come_one_by_one_and_the_last_one_counts() -> None:
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    ask = read("messages", {"messages": [{"role": "user", "content": blocks}]})
    assert ask.texts("user") == ("one", "two")
    assert ask.last_user_text == "two"


def test_codex_wraps_tools_in_a_namespace_and_speaks_as_developer() -> None:
    def item(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    ask = read(
        "responses",
        {
            "tools": [
                {"type": "function", "name": "exec"},
                {"type": "namespace", "name": "mcp__iapeer", "tools": [{"name": "send_to_peer"}]},
                {"type": "web_search"},
            ],
            "input": [
                item("developer", "You are bob."),
                item("user", "<environment_context>cwd</environment_context>"),
                item("user", "go"),
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "exec", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "done"},
            ],
        },
    )
    assert ask.tools == (Tool("exec"), Tool("send_to_peer", "mcp__iapeer"), Tool("web_search"))
    assert ask.entries == (
        Entry("system", "You are bob."),
        Entry("system", "<environment_context>cwd</environment_context>"),
        Entry("user", "go"),
        Entry("result", "done"),
    )
    assert ask.rounds == 1


def test_a_plain_string_is_a_users_text() -> None:
    ask = read("responses", {"instructions": "be brief", "input": "hi"})
    assert ask.entries == (Entry("system", "be brief"), Entry("user", "hi"))


@pytest.mark.parametrize("item", [None, 1, "x", [], {"role": 1}, {"role": "user", "content": 1}])
def test_items_of_no_known_shape_say_nothing(item: Any) -> None:
    body = {"messages": [item], "tools": [item], "response_format": item, "stream_options": item}
    assert read("chat", body).entries == ()


def test_a_body_nested_without_end_is_refused_or_read_but_never_breaks() -> None:
    nested = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidInput):
        read_ask("chat", nested)
    deep = b'{"messages": [{"role": "user", "content": ' + b"[" * 400 + b"]" * 400 + b"}]}"
    assert read_ask("chat", deep).entries == ()


def turn(*texts: str, results: int = 0) -> Ask:
    entries = tuple(Entry("user", text) for text in texts)
    return Ask(
        protocol="chat",
        model="m",
        stream=False,
        tools=(Tool("x_send"), Tool("send", "ns")),
        entries=entries + (Entry("result", "r"),) * results,
    )


def test_errors_before_a_call_are_not_given_again_after_it() -> None:
    steps = (Fail(status=500, times=2), Call("x_send"), Fail(status=429, times=1), Say("end"))
    director = Director(Script(rules=(Rule("a", steps),)))
    assert director.answer(turn("a"), "k").fail == steps[0]
    used = director.answer(turn("a", results=1), "k")
    assert used.fail == steps[2]
    assert director.answer(turn("a", results=1), "k") == Answer(("end",))


def test_the_same_text_said_again_begins_a_new_turn() -> None:
    rule = Rule("a", (Fail(status=500, times=1), Say("end")))
    director = Director(Script(rules=(rule,)))
    for asked in (turn("a"), turn("a"), turn("a", "a")):
        assert director.answer(asked, "k").fail is not None
        assert director.answer(asked, "k").texts == ("end",)


def test_a_rule_that_is_used_up_leaves_the_text_to_the_next() -> None:
    rules = (Rule("a", (Say("first"),), times=2), Rule("a|b", (Say("second"),)))
    director = Director(Script(rules=rules))
    said = [director.answer(turn("a"), f"agent {n}").texts[0] for n in range(4)]
    assert said == ["first", "first", "second", "second"]


def test_a_tool_is_found_by_its_exact_name_before_its_last_part() -> None:
    def used(name: str) -> Tool | None:
        director = Director(Script(rules=(Rule("a", (Call(name),)),)))
        use = director.answer(turn("a"), "k").use
        return use.tool if use is not None else None

    assert used("send") == Tool("send", "ns")
    assert used("ns__send") == Tool("send", "ns")
    assert used("x_send") == Tool("x_send")
    with pytest.raises(InvalidInput, match="not offered"):
        used("end")


def test_rules_can_be_followed_without_tools() -> None:
    bare = Ask(protocol="chat", model="m", stream=False, tools=(), entries=(Entry("user", "a"),))
    rules = (Rule("a", (Say("turn"),)),)
    assert Director(Script(rules=rules)).answer(bare, "").texts == ("A title",)
    director = Director(Script(rules=rules, rules_without_tools=True))
    assert director.answer(bare, "").texts == ("turn",)


def test_forgotten_turns_keep_memory_bounded() -> None:
    director = Director(Script())
    for number in range(1_100):
        director.answer(turn(str(number)), "k")
    assert len(director._turns) == 1_000


def request(number: int, body: bytes = b"") -> RecordedRequest:
    return RecordedRequest(
        number=number,
        method="POST",
        path="/",
        query="",
        headers=(),
        body=body,
        protocol=None,
    )


def test_the_recorder_drops_the_oldest_by_number_and_by_size() -> None:
    few = Recorder(keep=3)
    small = Recorder(keep_bytes=10)
    for number in range(5):
        few.add(request(number))
        small.add(request(number, b"12345"))
    assert [kept.number for kept in few] == [2, 3, 4]
    assert [kept.number for kept in small] == [3, 4]
    small.add(request(5, b"x" * 11))
    assert [kept.number for kept in small] == [5]


@pytest.mark.parametrize("name", [b"Authorization", b"X-Api-Key", b"cookie", b"API-KEY"])
def test_secrets_in_headers_become_digests(name: bytes) -> None:
    ((found, value),) = clean_headers([(name, b"s3cret \xff")])
    assert found == name.decode().lower()
    assert value == secret_digest("s3cret \xff")
    assert "s3cret" not in value
