"""When a composer is taken to hold our message alone; as Claude Code 2.1.197 draws it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.sessions.givenback import ends_with, holds_alone
from iapeer.sessions.screen import Marks

MARKS = Marks(prompt_glyphs=("❯",), shortened=("[...Truncated text",))
RULE = "─" * 40
FOOTER = "  paste again to expand          ctrl+g to edit in Vim"
TEXT = '<iap from="op" ts="00:52:18" id="wt7ocinlosmi">\nReply.\n<msg>one\n\n  two  </msg>\n</iap>'
ABOVE = ("❯ <iap from=...>", "  hello", "", "● ok", "")


def _rows(text: str) -> list[str]:
    first, *others = text.split("\n")
    return [f"❯\u00a0{first}", *(f"  {line}" for line in others)]


def _screen(*composer: str) -> str:
    return "\n".join([*ABOVE, RULE, *composer, RULE, FOOTER, "", ""])


def test_our_message_alone_is_known_wherever_the_terminal_breaks_its_lines() -> None:
    assert holds_alone(_screen(*_rows(TEXT)), MARKS, TEXT)
    first, *others = _rows(TEXT)
    assert holds_alone(_screen(first[:20], f"  {first[20:]}", *others), MARKS, TEXT)


def test_the_time_in_the_tag_may_be_told_in_another_way() -> None:
    later = TEXT.replace('ts="00:52:18"', 'ts="11-22 00:52:18" sent="9 h ago"')
    assert holds_alone(_screen(*_rows(TEXT)), MARKS, later)
    in_body = TEXT.replace("one", 'ts="1"')
    assert not holds_alone(_screen(*_rows(in_body)), MARKS, TEXT)


@pytest.mark.parametrize(
    "changed",
    [
        "x" + TEXT,
        TEXT + "x",
        TEXT + "\nand a word",
        TEXT.replace("one", "won"),
        TEXT.replace("one", "one [Pasted text #1 +3 lines]"),
        TEXT.replace("one", "[Pasted text #1 +3 lines]"),
        TEXT.replace("wt7ocinlosmi", "aaaaaaaaaaaa"),
        TEXT.removesuffix("</iap>"),
        "[Pasted text #1 +3 lines]",
        "[...Truncated text #1 +3 lines...]",
        "",
    ],
)
def test_what_anybody_changed_is_theirs(changed: str) -> None:
    assert not holds_alone(_screen(*_rows(changed)), MARKS, TEXT)


@given(st.integers(0, len(TEXT)), st.sampled_from("aЖ日>❯─]\"'</"))
def test_a_character_more_anywhere_is_seen(place: int, character: str) -> None:
    changed = TEXT[:place] + character + TEXT[place:]
    start = TEXT.index('ts="')
    end = TEXT.index('"', start + 4)
    if not start < place <= end:
        assert not holds_alone(_screen(*_rows(changed)), MARKS, TEXT)


def test_an_earlier_prompt_above_is_not_the_composer() -> None:
    for draft in ("", "a draft", "[Pasted text #1 +3 lines]"):
        above = "\n".join([*_rows(TEXT), "", "● ok", RULE, f"❯ {draft}", RULE, FOOTER])
        assert not holds_alone(above, MARKS, TEXT)
        assert not ends_with(above, MARKS, TEXT)


def test_a_body_may_look_like_a_screen() -> None:
    text = TEXT.replace("one", f"{RULE}\n❯ one\n{RULE}")
    assert holds_alone(_screen(*_rows(text)), MARKS, text)
    assert not holds_alone(_screen(*_rows(text + "x")), MARKS, text)


def test_a_long_text_shows_its_two_ends() -> None:
    text = TEXT.replace("one", "many words " * 900)
    shown = f"{text[:300]}[...Truncated text #1 +942 lines...]{text[-300:]}"
    assert holds_alone(_screen(*_rows(shown)), MARKS, text)
    assert not holds_alone(_screen(*_rows(shown + "x")), MARKS, text)
    assert not holds_alone(_screen(*_rows("x" + shown)), MARKS, text)
    assert not holds_alone(_screen(*_rows(shown)), MARKS, TEXT)
    assert not ends_with(_screen(*_rows(shown)), MARKS, text)


def test_of_a_composer_taller_than_the_screen_all_that_is_seen_must_be_the_end() -> None:
    text = TEXT.replace("one", "\n".join(f"row {n}" for n in range(200)))
    rows = _rows(text)[-40:]
    assert ends_with("\n".join([*rows, RULE, FOOTER]), MARKS, text)
    assert not holds_alone("\n".join([*rows, RULE, FOOTER]), MARKS, text)
    assert not ends_with("\n".join([*rows, "  x", RULE, FOOTER]), MARKS, text)
    assert not ends_with("\n".join(["● ok", *rows, RULE, FOOTER]), MARKS, text)
    assert not ends_with("\n".join([*rows, "✽ Hatching…", RULE, "❯ ", RULE]), MARKS, text)
    assert not ends_with(f"{RULE}\n{FOOTER}", MARKS, text)
    long = TEXT.replace("one", "\n".join(f"row {n}" for n in range(2000)))
    shown = f"{long[:500]}[...Truncated text #1 +942 lines...]{long[-500:]}"
    rows = _rows(shown)[-100:]
    assert ends_with("\n".join([*rows, RULE, FOOTER]), MARKS, long)
    assert not ends_with("\n".join([*rows, "  x", RULE, FOOTER]), MARKS, long)


def test_without_a_rule_nothing_is_known() -> None:
    assert not holds_alone("\n".join(_rows(TEXT)), MARKS, TEXT)
    assert not ends_with("\n".join(_rows(TEXT)[1:]), MARKS, TEXT)
