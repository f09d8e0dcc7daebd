"""What an event that a runtime tells its hook proves, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iapeer.core.states import TurnEnd
from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.runtimes.spec import Evidence
from iapeer.sessions.evidence import WORDS_MAX, Fact, read_hook, read_line

CLAUDE = load_manifest(SHIPPED / "claude.toml").evidence
QWEN = load_manifest(SHIPPED / "qwen.toml").evidence
OURS = '<iap from="bob" runtime="demo" id="aaaaaaaaaaaa"><msg>x</msg></iap>'
WHERE = {"session_id": "native", "transcript_path": "/t.jsonl"}


def _hook(name: str, **more: Any) -> Fact | None:
    return read_hook({"hook_event_name": name, **WHERE, **more}, CLAUDE)


def _line(**record: Any) -> Fact | None:
    return read_line(json.dumps(record).encode(), CLAUDE.records, "t")


def test_a_prompt_proves_our_ids_and_names_the_conversation() -> None:
    assert _hook("UserPromptSubmit", prompt=OURS) == Fact(
        "user",
        ("aaaaaaaaaaaa",),
        source="hook UserPromptSubmit",
        begins=True,
        native_id="native",
        transcript="/t.jsonl",
    )


def test_a_persons_prompt_is_input_without_ids() -> None:
    fact = _hook("UserPromptSubmit", prompt=f"look at this: '{OURS}'")
    assert fact is not None
    assert fact.kind == "user"


@pytest.mark.parametrize(
    ("name", "more", "status", "error"),
    [
        ("Stop", {}, TurnEnd.DONE, ""),
        ("StopFailure", {"error": "rate_limit"}, TurnEnd.API_ERROR, "rate_limit"),
        ("StopFailure", {"error": {"no": "word"}}, TurnEnd.API_ERROR, ""),
    ],
)
def test_how_a_turn_ended(name: str, more: dict[str, Any], status: str, error: str) -> None:
    fact = _hook(name, last_assistant_message="words " * 200, **more)
    assert fact is not None
    assert (fact.kind, fact.status, fact.error) == ("turn_end", status, error)
    assert len(fact.words) <= WORDS_MAX


@pytest.mark.parametrize(
    ("name", "limits"),
    [("UserPromptSubmit", True), ("StopFailure", True), ("Notification", True), ("Stop", False)],
)
def test_a_hook_that_names_its_time_is_taken_by_it(name: str, limits: bool) -> None:
    told = {"hook_event_name": name, "prompt": OURS, "timestamp": "2026-11-23T04:18:02.251Z"}
    fact = read_hook(told, QWEN)
    assert fact is not None
    assert fact.stamp == 1795407482.251
    # A program waits for its Stop hook: that ends all that ran, whatever its clock says.
    assert fact.at == (fact.stamp if limits else None)


@pytest.mark.parametrize("name", ["UserPromptSubmit", "StopFailure", "Stop"])
def test_where_a_record_tells_of_turns_too_the_times_of_hooks_say_nothing(name: str) -> None:
    fact = _hook(name, prompt=OURS, timestamp="2026-11-23T04:18:02.251Z")
    assert fact is not None
    assert (fact.at, fact.stamp) == (None, None)


@pytest.mark.parametrize("stamp", ["yesterday", 7, None, ["2026-11-23T04:18:02.251Z"]])
def test_a_time_that_is_none_is_left_out(stamp: object) -> None:
    fact = read_hook({"hook_event_name": "Notification", "timestamp": stamp}, QWEN)
    assert fact is not None
    assert (fact.at, fact.stamp) == (None, None)


@pytest.mark.parametrize("name", ["PreToolUse", "PostToolUse", "Notification", "", "stop"])
def test_events_the_manifest_does_not_name_prove_nothing(name: str) -> None:
    assert _hook(name, prompt=OURS, tool_input=OURS) is None


def test_a_runtime_without_names_proves_by_any_prompt() -> None:
    assert read_hook({"prompt": OURS}, Evidence()) == Fact(
        "user", ("aaaaaaaaaaaa",), source="prompt hook"
    )
    assert read_hook({"text": OURS}, Evidence()) is None


@pytest.mark.parametrize("broken", [{}, {"hook_event_name": 3}, {"hook_event_name": "Stop"}])
def test_a_strange_event_does_no_harm(broken: dict[str, Any]) -> None:
    fact = read_hook({**broken, "session_id": 7, "transcript_path": None, "prompt": {}}, CLAUDE)
    assert fact is None or (fact.native_id, fact.transcript) == ("", "")


def test_the_result_of_a_tool_is_no_input_of_the_user() -> None:
    """Claude writes it down as the user's; an envelope in a file that was read proves nothing."""
    block = {"type": "tool_result", "content": OURS}
    assert _line(type="user", message={"role": "user", "content": [block]}) is None


def test_blocks_of_text_are_input_and_each_is_read_by_itself() -> None:
    split = [{"type": "text", "text": OURS[:20]}, {"type": "text", "text": OURS[20:]}]
    fact = _line(type="user", message={"content": split})
    assert fact is not None
    assert fact.ids == ()
    whole = [{"type": "text", "text": "<system-reminder>"}, {"type": "text", "text": OURS}]
    fact = _line(type="user", message={"content": whole})
    assert fact is not None
    assert fact.ids == ("aaaaaaaaaaaa",)


@pytest.mark.parametrize("mark", ["isMeta", "isCompactSummary"])
def test_what_the_program_itself_put_in_is_no_input(mark: str) -> None:
    assert _line(type="user", message={"content": OURS}, **{mark: True}) is None


def test_a_queued_message_is_landed_first_and_read_later() -> None:
    queued = _line(type="queue-operation", operation="enqueue", content=OURS)
    assert queued is not None
    assert (queued.kind, queued.ids) == ("enqueue", ("aaaaaaaaaaaa",))
    taken = _line(type="attachment", attachment={"type": "queued_command", "prompt": OURS})
    assert taken is not None
    assert (taken.kind, taken.ids) == ("user", ("aaaaaaaaaaaa",))


def test_only_what_is_typed_or_comes_out_of_the_queue_alone_begins_a_turn() -> None:
    typed = _line(type="user", promptSource="typed", message={"content": OURS})
    assert typed is not None
    assert (typed.kind, typed.ids, typed.begins) == ("user", ("aaaaaaaaaaaa",), True)
    joined = _line(type="attachment", attachment={"type": "queued_command", "prompt": OURS})
    note = _line(type="user", message={"content": "<bash-input>echo hi</bash-input>"})
    for fact in (joined, note):
        assert fact is not None
        assert (fact.kind, fact.begins) == ("user", False)


def test_an_interrupt_and_the_end_of_a_turn_with_its_time() -> None:
    cut = _line(type="user", interruptedMessageId="m", message={"content": "[Request interrupted]"})
    assert cut is not None
    assert (cut.kind, cut.status) == ("turn_end", TurnEnd.INTERRUPTED)
    over = _line(type="system", subtype="turn_duration", timestamp="2026-11-22T18:27:36.238Z")
    assert over is not None
    assert (over.kind, over.status, over.at) == ("turn_end", TurnEnd.DONE, 1795372056.238)
    odd = _line(type="system", subtype="turn_duration", timestamp="yesterday")
    assert odd is not None
    assert odd.at is None


def test_an_api_error_has_its_category_and_words() -> None:
    fact = _line(
        type="assistant",
        isApiErrorMessage=True,
        error="rate_limit",
        message={"content": [{"type": "text", "text": "API Error: resets 3pm"}]},
    )
    assert fact is not None
    assert (fact.status, fact.error, fact.words) == (
        TurnEnd.API_ERROR,
        "rate_limit",
        "API Error: resets 3pm",
    )
