"""The key decoder: the same events however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from iapeer.apps.demo_agent.keys import PASTE_BEGIN, PASTE_END, PASTE_LIMIT, Decoder, Event

PIECES = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [PASTE_BEGIN, PASTE_END, b"\x1b", b"\x1b[", b"\x1bOA", b"\x1b[3~", b"\r", b"\n"]
    ),
)
STREAMS = st.lists(PIECES, max_size=12).map(b"".join)
EXACT = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=200)


def merged(events: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in events:
        if event.kind == "text" and joined and joined[-1].kind == "text":
            joined[-1] = Event("text", joined[-1].value + event.value)
        else:
            joined.append(event)
    return joined


def decode(*chunks: bytes) -> list[Event]:
    decoder = Decoder()
    return merged([event for chunk in chunks for event in decoder.feed(chunk)])


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
def test_any_split_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[left:right] for left, right in pairwise(edges)]
    assert decode(*chunks) == decode(stream)


@given(STREAMS)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert decode(*(stream[at : at + 1] for at in range(len(stream)))) == decode(stream)


@given(EXACT)
def test_a_paste_arrives_exactly(text: str) -> None:
    if "\x1b[201~" in text:
        return
    stream = PASTE_BEGIN + text.encode() + PASTE_END
    assert decode(stream) == [Event("paste", text)]


def test_line_ends_of_a_paste_become_newlines() -> None:
    assert decode(PASTE_BEGIN + b"a\r\nb\rc\nd" + PASTE_END) == [Event("paste", "a\nb\nc\nd")]


def test_an_end_marker_inside_a_paste_breaks_out_as_in_the_real_programs() -> None:
    events = decode(PASTE_BEGIN + b"a\x1b[201~\r!cmd\r")
    assert [event.value for event in events] == ["a", "enter", "!cmd", "enter"]


def test_keys_have_names() -> None:
    stream = b"x\r\n\x7f\x15\x03\x04\x1b[A\x1b[99;5u\x1bx"
    names = ["x", "enter", "newline", "backspace", "c-u", "c-c", "c-d", "up", "unknown"]
    assert [event.value for event in decode(stream)] == [*names, "escape", "x"]


def test_a_lone_escape_is_the_key_only_after_a_wait() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x1b") == []
    assert 0 < decoder.wait_s < 0.1
    assert decoder.flush() == [Event("key", "escape")]
    assert decoder.wait_s == 0


def test_half_a_paste_marker_waits_longer_than_an_escape_key() -> None:
    decoder = Decoder()
    assert decoder.feed(PASTE_BEGIN[:3]) == []
    assert decoder.wait_s >= 1
    assert decoder.feed(PASTE_BEGIN[3:] + b"x" + PASTE_END) == [Event("paste", "x")]


def test_waiting_never_ends_a_paste() -> None:
    decoder = Decoder()
    decoder.feed(PASTE_BEGIN + b"half \x1b[2")
    assert decoder.flush() == []
    assert decoder.feed(b"01~") == [Event("paste", "half ")]


def test_broken_utf8_becomes_a_replacement_character() -> None:
    assert decode(b"\xd0", b"\r") == [Event("text", "\ufffd"), Event("key", "enter")]
    assert decode(b"\xd0", b"\xb9") == [Event("text", "\u0439")]


def test_an_endless_paste_is_cut_and_costs_no_memory() -> None:
    decoder = Decoder()
    decoder.feed(PASTE_BEGIN)
    for _ in range(3):
        decoder.feed(b"x" * PASTE_LIMIT)
    (paste,) = decoder.feed(PASTE_END)
    assert len(paste.value) == PASTE_LIMIT


def test_an_endless_sequence_is_dropped() -> None:
    assert decode(b"\x1b[" + b"1" * 40 + b"x")[0] == Event("key", "unknown")
