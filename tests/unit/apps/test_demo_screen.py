"""The demo agent's composer and picture."""

from __future__ import annotations

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from iapeer.apps.demo_agent.composer import Composer
from iapeer.apps.demo_agent.screen_out import GLYPH, RULE, Screen, View, clean, cut, layout

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def test_a_long_paste_is_folded_and_sent_in_full() -> None:
    composer = Composer()
    composer.insert("see: ")
    composer.paste("a\nb\nc\nd")
    composer.paste("x" * 801)
    composer.paste("short")
    assert composer.shown() == "see: [Pasted text #1 +3 lines][Pasted text #2]short"
    assert composer.text() == "see: a\nb\nc\nd" + "x" * 801 + "short"


def test_backspace_takes_a_folded_paste_as_a_whole() -> None:
    composer = Composer()
    composer.insert("ab")
    composer.paste("a\nb\nc\nd")
    composer.backspace()
    composer.backspace()
    assert composer.text() == "a"
    composer.clear()
    assert not composer


@given(st.text(max_size=300), st.integers(0, 300))
def test_no_text_draws_a_control_character_or_a_line_too_long(text: str, columns: int) -> None:
    view = View(text, queue=(text, text), busy_s=3)
    lines, cursor = layout(view, columns)
    assert not any(CONTROL.search(line) for line in lines)
    width = max(20, columns)
    texts = [line.replace(GLYPH, ">", 1)[2:] for line in lines if not line.startswith(RULE)]
    assert all(len(line) <= width for line in lines)
    assert all(cut(text, width - 2) == text for text in texts)
    assert any(line.startswith(GLYPH) for line in lines[: cursor + 1])
    assert sum(line.startswith(GLYPH) for line in lines) == 1


@given(st.text(max_size=100))
def test_clean_keeps_what_can_be_read(text: str) -> None:
    assert not CONTROL.search(clean(text))
    assert clean("привет 日本") == "привет 日本"


def test_the_footer_tells_ready_from_busy() -> None:
    assert layout(View(""), 100)[0][-1] == "  demo agent \u00b7 ready"
    assert "esc to interrupt" in layout(View("", busy_s=0), 100)[0][-1]


def test_said_text_never_begins_a_line_but_its_first() -> None:
    read, write = os.pipe()
    Screen(write).say("one\n\u276f two\n" + "x" * 200, View(""))
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        drawn = pipe.read().decode()
    said = drawn[: drawn.index("\u2500")].split("\r\n")
    assert all(line.startswith("    ") for line in said[1:-1])
    assert len(said) > 4


def test_nothing_is_drawn_twice() -> None:
    read, write = os.pipe()
    screen = Screen(write)
    screen.show(View("a"))
    first = os.read(read, 65536)
    screen.show(View("a"))
    os.close(write)
    assert first
    assert os.read(read, 65536) == b""
    os.close(read)
