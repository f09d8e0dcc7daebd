"""What the demo agent does about a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.apps.demo_agent.brain import MESSAGE_LIMIT, Brain, send
from iapeer.apps.demo_agent.inbound import Inbound, read_inbound

WIRE = (
    '<iap from-personality="bob" from-runtime="demo" from-intelligence="artificial"'
    ' topic="a &amp; b">\n'
    "IAP message from known peers. Reply via send_to_peer.\n"
    "<message><![CDATA[{body}]]></message>\n</iap>"
)


def from_bob(body: str, topic: str = "") -> Inbound:
    return Inbound(body, sender="bob", runtime="demo", topic=topic)


def kinds(body: str) -> list[tuple[str, str]]:
    return [(action.kind, action.text) for action in Brain().think(from_bob(body))]


@given(st.text(max_size=200))
def test_any_body_of_the_wire_form_is_read_back(body: str) -> None:
    inbound = read_inbound(WIRE.format(body=body.replace("]]>", "]]]]><![CDATA[>")))
    assert inbound.body == body
    assert (inbound.sender, inbound.runtime, inbound.topic) == ("bob", "demo", "a & b")


@given(st.text(max_size=300))
def test_no_text_upsets_the_reader(text: str) -> None:
    Brain().think(read_inbound(text))
    Brain().think(read_inbound(f"<iap {text}"))


def test_the_short_form_is_read_too() -> None:
    text = '<iap from="bob" runtime="demo" id="abc">\nReply.\n<msg>a < b</msg>\n</iap>'
    inbound = read_inbound(text)
    assert (inbound.sender, inbound.body, inbound.message_id) == ("bob", "a < b", "abc")


def test_a_quoted_close_tag_does_not_end_the_message() -> None:
    assert read_inbound(WIRE.format(body="x </message> y </iap> z")).body.endswith(" z")


def test_a_plain_message_is_answered_once_to_its_sender() -> None:
    (action,) = Brain().think(from_bob("\nhello\nworld", topic="greeting"))
    assert action == send("bob", "got it: hello", "re: greeting", "demo")


@pytest.mark.parametrize(
    "message",
    [
        from_bob("got it: hello"),
        from_bob("fine", topic="re: greeting"),
        from_bob("EXIT 3", topic="Re: x"),
        from_bob("END"),
        from_bob("NOTHING"),
    ],
)
def test_an_answer_is_never_answered(message: Inbound) -> None:
    assert Brain().think(message) == []


@given(st.text(max_size=60))
def test_two_demo_agents_never_talk_for_ever(text: str) -> None:
    alice, bob = Brain(), Brain()
    message = from_bob(text)
    for turn in range(60):
        sends = [a for a in (alice, bob)[turn % 2].think(message) if a.kind == "send"]
        if not sends or sends[0].to != "bob":
            return
        message = Inbound(sends[0].text, sender="bob", runtime="demo", topic=sends[0].topic)
    # Only a PINGPONG with a large number may still be going on.
    assert "PINGPONG" in text


def test_a_question_is_passed_on_and_its_answer_reported() -> None:
    brain = Brain()
    (asked,) = brain.think(Inbound("ASK carol what time is it?", sender="bob", runtime="demo"))
    assert asked == send("carol", "what time is it?")
    answer = Inbound("noon", sender="carol", runtime="demo", topic="re: your message")
    (report,) = brain.think(answer)
    assert report == send("bob", "carol says: noon", "re: your message", "demo")
    assert brain.think(answer) == []


def test_a_ping_is_returned_with_one_less_until_none_is_left() -> None:
    (action,) = Brain().think(from_bob("PINGPONG 2"))
    assert (action.to, action.text) == ("bob", "PINGPONG 1")
    assert kinds("PINGPONG 0") == [("say", "pingpong is over")]


def test_a_ring_moves_the_first_peer_to_the_end() -> None:
    (action,) = Brain().think(from_bob("RING 3 carol dave bob"))
    assert (action.to, action.text) == ("carol", "RING 2 dave bob carol")
    assert kinds("RING 0 carol") == [("say", "the ring is closed")]


def test_directives_are_carried_out_in_order_and_end_stops() -> None:
    body = "SAY one\nnot a directive\nSLOW 2\nHOLD /x y\nSEND al z\nAPIERROR\nEXIT 7\nEND\nSAY no"
    assert [k for k, _ in kinds(body)] == ["say", "wait", "hold", "send", "fail", "exit"]
    assert kinds("HOLD /x y\nHOLD") == [("hold", "/x y"), ("say", "HOLD needs a file")]


def test_what_a_human_types_is_answered_on_the_screen() -> None:
    (action,) = Brain().think(read_inbound("REPLY hello"))
    assert (action.kind, action.text) == ("say", "hello")


def test_notices_of_the_core_are_not_answered() -> None:
    notice = Inbound("still waiting", sender="iapeer", runtime="core")
    assert [action.kind for action in Brain().think(notice)] == ["say"]


def test_a_message_is_never_longer_than_the_tool_takes() -> None:
    (action,) = Brain().think(from_bob("REPLY " + "x" * 20_000))
    assert len(action.input()["message"]) == MESSAGE_LIMIT


def test_forgotten_questions_stay_bounded() -> None:
    brain = Brain()
    for number in range(300):
        brain.think(from_bob(f"ASK peer{number} x"))
    assert sum(map(len, brain._asks.values())) <= 100
