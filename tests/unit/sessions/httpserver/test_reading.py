"""What opencode's events prove; frames of 1.18.33 without the members that nobody reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from iapeer.sessions.evidence import Fact
from iapeer.sessions.httpserver.frames import Event, Stored
from iapeer.sessions.httpserver.ids import native_message_id
from iapeer.sessions.httpserver.reading import Reader

S = "ses_dfb885f8cffeLCt531L1oO5ELi"
NOW = 1_795_371_279.0
ONE, TWO = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
ID_ONE = native_message_id(f"{ONE}-1", NOW)
ID_TWO = native_message_id(f"{TWO}-1", NOW + 1)
PERSON = "msg_20477a580001DADJXSZQpqTwnRDA"
ANSWER, LATER = "msg_20477a5a5001Qty4KvrLlsmgxK", "msg_20477aaa7000SfTBnskzFgo6GdAB"
UNAUTHORIZED = {"name": "APIError", "data": {"message": "no", "statusCode": 401}}
ABORTED = {"name": "MessageAbortedError", "data": {"message": "Aborted"}}


def user(native: str = ID_ONE, session: str = S, **more: Any) -> dict[str, Any]:
    info = {"id": native, "role": "user", "sessionID": session, "time": {"created": 1}, **more}
    return {"type": "message.updated", "properties": {"sessionID": session, "info": info}}


def answer(native: str, parent: str, *, over: bool = False, **more: Any) -> dict[str, Any]:
    times = {"created": 1} | ({"completed": NOW * 1000} if over else {})
    info = {"id": native, "parentID": parent, "role": "assistant", "sessionID": S, "time": times}
    return {"type": "message.updated", "properties": {"sessionID": S, "info": info | more}}


def part(native: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    found = {"type": kind, "messageID": native, "sessionID": S, "id": "prt_1", **more}
    return {"type": "message.part.updated", "properties": {"sessionID": S, "part": found}}


def status(kind: str, **more: Any) -> dict[str, Any]:
    told = {"sessionID": S, "status": {"type": kind, **more}}
    return {"type": "session.status", "properties": told}


def error(found: dict[str, Any]) -> dict[str, Any]:
    return {"type": "session.error", "properties": {"sessionID": S, "error": found}}


IDLE = [status("idle"), {"type": "session.idle", "properties": {"sessionID": S}}]


def read(reader: Reader, *events: dict[str, Any], now: float = NOW) -> list[Fact]:
    facts = []
    for event in events:
        frame = msgspec.json.decode(msgspec.json.encode(event), type=Event)
        facts += reader.read(frame, now).facts
    return facts


def short(facts: list[Fact]) -> list[tuple[str, Any]]:
    return [(f.kind, f.status if f.kind == "turn_end" else f.ids) for f in facts]


def stored(*events: dict[str, Any]) -> list[Stored]:
    found = [{"info": event["properties"]["info"]} for event in events]
    return msgspec.json.decode(msgspec.json.encode(found), type=list[Stored])


@pytest.fixture
def reader() -> Reader:
    return Reader(S)


def test_a_message_is_stored_then_read_then_answered_each_told_once(reader: Reader) -> None:
    facts = read(
        reader,
        user(),
        part(ID_ONE, text="any"),
        status("busy"),
        answer(ANSWER, ID_ONE),
        user(summary={"diffs": []}),
        status("busy"),
        answer(ANSWER, ID_ONE, over=True, finish="stop"),
        *IDLE,
        user(summary={"diffs": []}),
    )
    assert short(facts) == [("enqueue", (ONE,)), ("user", (ONE,)), ("turn_end", "done")]
    assert not reader.busy


def test_one_that_waits_behind_a_turn_is_read_when_that_one_is_over(reader: Reader) -> None:
    read(reader, user(), status("busy"), answer(ANSWER, ID_ONE))
    assert short(read(reader, user(ID_TWO))) == [("enqueue", (TWO,))]
    assert [*reader.waiting] == [ID_TWO]
    facts = read(
        reader,
        answer(ANSWER, ID_ONE, over=True, finish="stop"),
        answer(LATER, ID_TWO),
        answer(LATER, ID_TWO, over=True, finish="stop"),
        *IDLE,
    )
    assert short(facts) == [("turn_end", "done"), ("user", (TWO,)), ("turn_end", "done")]
    assert [*reader.waiting] == []


def test_one_that_came_after_the_history_was_read_is_not_in_that_turn(reader: Reader) -> None:
    facts = read(reader, user(), status("busy"), user(ID_TWO), answer(ANSWER, ID_ONE))
    assert short(facts)[2:] == [("user", (ONE,))]
    assert [*reader.waiting] == [ID_TWO]


def test_the_steps_of_one_turn_are_one_turn(reader: Reader) -> None:
    facts = read(
        reader,
        user(),
        status("busy"),
        answer(ANSWER, ID_ONE, over=True, finish="tool-calls"),
        answer(LATER, ID_ONE),
        answer(LATER, ID_ONE, over=True, finish="stop"),
        *IDLE,
    )
    assert short(facts)[1:] == [("user", (ONE,)), ("turn_end", "done")]


def test_a_persons_words_are_told_without_ids_and_the_servers_own_not_at_all(
    reader: Reader,
) -> None:
    facts = read(reader, user(PERSON), part(PERSON), status("busy"), answer(ANSWER, PERSON), *IDLE)
    assert short(facts) == [("user", ()), ("turn_end", "done")]
    own = "msg_20477a590001DADJXSZQpqTwnRDA"
    for kind, more in (("compaction", {}), ("text", {"synthetic": True})):
        other = Reader(S)
        facts = read(other, user(own), part(own, kind, **more), status("busy"))
        assert short(facts + read(other, answer(LATER, own))) == []


def test_shortening_the_context_is_no_turn_and_reads_nothing(reader: Reader) -> None:
    summary = answer(ANSWER, ID_TWO, over=True, finish="stop", summary=True)
    compacted = {"type": "session.compacted", "properties": {"sessionID": S}}
    facts = read(reader, user(), status("busy"), summary, compacted, *IDLE)
    assert short(facts) == [("enqueue", (ONE,)), ("compacted", ())]
    assert reader.waiting == (ID_ONE,)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (UNAUTHORIZED, ("api_error", "authentication_failed")),
        ({"name": "APIError", "data": {"statusCode": 503}}, ("api_error", "overloaded")),
        ({"name": "APIError", "data": {"statusCode": 502}}, ("api_error", "server_error")),
        ({"name": "APIError", "data": {"message": "?"}}, ("api_error", "unknown")),
        ({"name": "ProviderAuthError", "data": {}}, ("api_error", "authentication_failed")),
        (ABORTED, ("interrupted", "")),
    ],
)
def test_an_error_ends_the_turn_once_though_idle_is_told_twice(
    reader: Reader, found: dict[str, Any], expected: tuple[str, str]
) -> None:
    facts = read(
        reader,
        user(),
        status("busy"),
        answer(ANSWER, ID_ONE),
        error(found),
        *IDLE,
        answer(ANSWER, ID_ONE, over=True, error=found),
        *IDLE,
    )
    ends = [fact for fact in facts if fact.kind == "turn_end"]
    assert [(end.status, end.error) for end in ends] == [expected]


def test_a_turn_that_is_aborted_while_it_waits_is_interrupted(reader: Reader) -> None:
    facts = read(
        reader,
        user(),
        status("busy"),
        answer(ANSWER, ID_ONE),
        status("retry", attempt=1, message="slow", next=(NOW + 2) * 1000),
        answer(ANSWER, ID_ONE, over=True),
        *IDLE,
    )
    assert short(facts)[-1] == ("turn_end", "interrupted")


@pytest.mark.parametrize(
    ("attempt", "wait_s", "gives_up", "has_reset"),
    [(1, 2, False, False), (3, 8, False, False), (4, 16, True, False), (1, 30, True, True)],
)
def test_waiting_for_the_vendor_has_an_end(
    reader: Reader, attempt: int, wait_s: float, gives_up: bool, has_reset: bool
) -> None:
    until = (NOW + wait_s) * 1000
    read(reader, user(), status("busy"), answer(ANSWER, ID_ONE))
    event = status("retry", attempt=attempt, message="Too Many Requests", next=until)
    frame = msgspec.json.decode(msgspec.json.encode(event), type=Event)
    assert reader.read(frame, NOW).give_up == gives_up
    (end,) = read(reader, answer(ANSWER, ID_ONE, over=True, finish="stop"), *IDLE)
    if not gives_up:
        assert end.status == "done"
        return
    assert (end.status, end.error) == ("api_error", "rate_limit")
    assert end.reset_at == (until / 1000 if has_reset else None)


def test_what_is_refused_before_it_began_is_told_once(reader: Reader) -> None:
    unknown = {"name": "UnknownError", "data": {"message": "Agent not found"}}
    facts = read(reader, error(unknown), error(unknown))
    assert [(f.status, f.words) for f in facts] == [("api_error", "Agent not found")]
    assert read(reader, user(), status("busy"), answer(ANSWER, ID_ONE), *IDLE)[-1].status == "done"


def test_a_new_message_in_another_session_is_pointed_at_once(reader: Reader) -> None:
    event = msgspec.json.encode(user(PERSON, "ses_other"))
    frame = msgspec.json.decode(event, type=Event)
    assert reader.read(frame, NOW).elsewhere == "ses_other"
    reader.move("ses_other")
    # Late news of the session before are no reason to go back.
    read(reader, user(session=S))
    assert reader.read(frame, NOW).facts == []
    reader.move(S)
    assert reader.read(frame, NOW).elsewhere == ""


@pytest.mark.parametrize(
    "event",
    [
        {"type": "plugin.added", "properties": {"id": "x"}},
        {"type": "message.updated", "properties": {"info": 1}},
        {"type": "session.status", "properties": {"sessionID": S, "status": "idle"}},
        {"type": "session.idle", "properties": {"sessionID": "ses_other"}},
        {"type": "session.error", "properties": {"error": UNAUTHORIZED}},
        {"type": "message.removed"},
    ],
)
def test_other_shapes_and_other_sessions_tell_nothing(
    reader: Reader, event: dict[str, Any]
) -> None:
    read(reader, user(), status("busy"), answer(ANSWER, ID_ONE))
    assert read(reader, event) == []
    assert reader.busy


def test_what_was_not_heard_is_read_from_the_history(reader: Reader) -> None:
    done = answer(ANSWER, ID_ONE, over=True, finish="stop")
    facts = reader.recover(stored(user(), done, user(ID_TWO)), NOW, busy=False)
    expected = [("enqueue", (ONE,)), ("user", (ONE,)), ("enqueue", (TWO,)), ("turn_end", "done")]
    assert short(facts) == expected
    assert reader.waiting == (ID_TWO,)
    assert reader.recover(stored(user(), done, user(ID_TWO)), NOW, busy=False) == []


def test_a_running_turn_is_found_and_its_end_is_heard(reader: Reader) -> None:
    running = answer(ANSWER, ID_ONE)
    facts = reader.recover(stored(user(), running), NOW, busy=True)
    assert short(facts) == [("enqueue", (ONE,)), ("user", (ONE,))]
    assert reader.busy
    assert short(read(reader, *IDLE)) == [("turn_end", "done")]


@pytest.mark.parametrize(
    ("last", "later_s", "expected"),
    [
        (answer(ANSWER, ID_ONE, over=True, error=UNAUTHORIZED), 1, "api_error"),
        (answer(ANSWER, ID_ONE, over=True, error=UNAUTHORIZED), 3600, "unknown"),
        (answer(ANSWER, ID_ONE), 1, "unknown"),
        (answer(ANSWER, ID_ONE, over=True), 1, "interrupted"),
    ],
)
def test_how_an_unheard_turn_ended_is_told_as_far_as_it_can_be(
    reader: Reader, last: dict[str, Any], later_s: float, expected: str
) -> None:
    facts = reader.recover(stored(user(), last), NOW + later_s, busy=False)
    assert short(facts)[-1] == ("turn_end", expected)


def test_a_removed_message_waits_no_more(reader: Reader) -> None:
    read(reader, user())
    gone = {"type": "message.removed", "properties": {"sessionID": S, "messageID": ID_ONE}}
    read(reader, gone)
    assert reader.waiting == ()


def test_a_turn_that_is_run_anew_is_told_again(reader: Reader) -> None:
    reader.recover(stored(user(), answer(ANSWER, ID_ONE)), NOW, busy=False)
    reader.expect(ID_ONE)
    facts = read(reader, user(), status("busy"), answer(LATER, ID_ONE), *IDLE)
    assert short(facts) == [("user", (ONE,)), ("turn_end", "done")]
