from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.sessions.screen import TAIL_MAX_CHARS, Composer, Dialog, Marks, Screen, read_screen

RULE = "─" * 60
FOOTER = "  ⏵⏵ bypass permissions on (shift+tab to cycle) · ← for agents"
MARKS = Marks(
    prompt_glyphs=("❯", "›", ">"),
    ghost_sgr=("2", "38;5;246"),
    paste_patterns=("[Pasted text", "[Image #"),
    ready=("^❯", "bypass permissions on"),
    not_ready=("Resuming the full session",),
    busy=("esc to interrupt",),
    dialogs=(
        Dialog("Resume from summary", ("Down", "Enter")),
        Dialog("trust this folder", ("Enter",)),
    ),
)


def claude(*composer: str, above: str = "", footer: str = FOOTER) -> str:
    return "\n".join([above, RULE, *composer, RULE, footer, "", ""])


def composer(capture: str) -> Composer:
    return read_screen(capture, MARKS).composer


@pytest.mark.requirement("delivery:composer:reading")
@pytest.mark.parametrize(
    ("row", "kind", "text"),
    [
        ("❯\u00a0", "empty", ""),
        ("❯", "empty", ""),
        ("  ❯  \x1b[7m \x1b[0m", "empty", ""),
        ("❯ half a thought", "text", "half a thought"),
        ("❯ \x1b[2mTry this\x1b[0m", "ghost", ""),
        ("❯ \x1b[0;2mTry this\x1b[0m", "ghost", ""),
        ("❯ \x1b[38;5;246mTry this\x1b[39m", "ghost", ""),
        ("❯ \x1b[38:5:246mTry this\x1b[39m", "ghost", ""),
        ("❯ \x1b[1;38;5;246mTry this\x1b[0m", "ghost", ""),
        ("❯ \x1b[38;5;247mTry this\x1b[0m", "text", "Try this"),
        ("❯ \x1b[38;5;24mTry this\x1b[0m", "text", "Try this"),
        ("❯ \x1b[48;5;246mTry this\x1b[0m", "text", "Try this"),
        ("❯ \x1b[38;2;2;246;2mTry this\x1b[0m", "text", "Try this"),
        ("❯ \x1b[2m\x1b[22mTry this", "text", "Try this"),
        ("❯ \x1b[38;5;246m\x1b[39mTry this", "text", "Try this"),
        ("❯ \x1b[2m\x1b[mTry this", "text", "Try this"),
        ("❯ \x1b[38;5;246m\x1b[31mTry this", "text", "Try this"),
        ("❯ mine \x1b[2mand its ending\x1b[0m", "text", "mine"),
        ("❯ \x1b[7mT\x1b[0;2mry this\x1b[0m", "ghost", ""),
        ("❯ \x1b[7mT\x1b[0mry this", "text", "Try this"),
        ("❯ a\x1b[7mT\x1b[0;2mry this\x1b[0m", "text", "aT"),
        ("❯ [Pasted text #1 +2 lines]", "paste_chip", "[Pasted text #1 +2 lines]"),
        ("❯ see [Image #1]", "paste_chip", "see [Image #1]"),
        ("› codex words", "text", "codex words"),
        ("│ > framed words            │", "text", "framed words"),
        ("│ > \x1b[2mType your message\x1b[0m  │", "ghost", ""),
        ("no prompt here", "none", ""),
    ],
)
def test_a_composer_row_is_judged_by_what_a_person_typed(row: str, kind: str, text: str) -> None:
    found = composer(claude(row))
    assert (found.kind, found.text) == (kind, text)


def test_the_last_row_with_a_glyph_is_the_composer() -> None:
    assert composer("❯ quoted\n❯ \nfoot".replace("\nfoot", "\n\nfoot")) == Composer("empty")
    assert composer("say ❯ inside\n  ❯ queued\n\n❯ mine\n") == Composer("text", "mine")


def test_wrapped_rows_count_down_to_the_rule_and_blank_ones_do_not_end_them() -> None:
    assert composer(claude("❯ one", "  two", "", "  three")).text == "one\ntwo\n\nthree"
    assert composer(claude("❯", "  below")) == Composer("text", "below")
    labelled = claude("❯ one").replace(RULE, f"{RULE} name ──")
    assert composer(labelled) == Composer("text", "one")


def test_without_a_rule_the_first_blank_row_ends_the_composer() -> None:
    screen = "› one\n  two\n\n  gpt · 100% context left"
    assert composer(screen) == Composer("text", "one\ntwo")
    assert composer("› \n\n  gpt · 100% context left") == Composer("empty")


def test_a_rendering_goes_on_in_the_next_row() -> None:
    assert composer(claude("❯ \x1b[2mghost over", "  two rows\x1b[0m")).kind == "ghost"


@pytest.mark.requirement("launch:ready")
def test_ready_needs_all_marks_and_no_bar_and_no_dialog() -> None:
    assert read_screen(claude("❯ "), MARKS).ready
    assert not read_screen(claude("❯ ", footer=""), MARKS).ready
    assert not read_screen(claude("", footer=FOOTER), MARKS).ready
    assert not read_screen(claude("❯ ", above="Resuming the full session"), MARKS).ready
    found = read_screen(claude("❯ ", above="Do you trust this folder?"), MARKS)
    assert not found.ready
    assert found.dialog == MARKS.dialogs[1]


@pytest.mark.requirement("launch:dialogs")
def test_the_first_dialog_that_matches_counts() -> None:
    text = "trust this folder\nResume from summary"
    assert read_screen(text, MARKS).dialog == MARKS.dialogs[0]
    assert read_screen("nothing", MARKS).dialog is None


def test_marks_are_found_in_coloured_text() -> None:
    found = read_screen(claude("❯ ", footer="  \x1b[2mesc \x1b[1mto\x1b[0m interrupt"), MARKS)
    assert found.busy
    assert not read_screen(claude("❯ "), MARKS).busy


@pytest.mark.requirement("launch:failure:never-ready")
def test_the_tail_is_the_last_two_lines_flat_and_short() -> None:
    found = read_screen('one\n\n \x1b[31mtwo   "x"\x1b[0m\n  three\t!\n\n', MARKS)
    assert found.tail == "two 'x' ⏎ three !"
    dead = read_screen("one\ntwo\n\nPane is dead (status 3, Sun Nov 22 15:22:16 2026)", MARKS)
    assert dead.tail == "one ⏎ two"
    assert read_screen("Pane is dead\nlast words", MARKS).tail == "Pane is dead ⏎ last words"
    assert len(read_screen("x" * 500, MARKS).tail) == TAIL_MAX_CHARS
    assert read_screen("", MARKS) == Screen(
        composer=Composer("none"), busy=False, ready=False, dialog=None, tail=""
    )


def test_without_marks_everything_is_unknown_and_nothing_breaks() -> None:
    found = read_screen(claude("❯ text"), Marks())
    assert (found.composer.kind, found.busy, found.ready) == ("none", False, True)


@given(st.text(st.sampled_from("❯ ab\n\x1b[];:m0123245689\x07\\─│\x0e\x0f\t"), max_size=80))
def test_any_capture_can_be_read(capture: str) -> None:
    assert len(read_screen(capture, MARKS).tail) <= TAIL_MAX_CHARS


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40))
def test_a_plain_draft_is_never_taken_for_nothing(draft: str) -> None:
    assert composer(claude(f"❯ {draft}")).kind in ("text", "paste_chip")


def test_a_cursor_drawn_as_a_blank_and_a_zero_width_space_is_no_text() -> None:
    assert composer(claude("❯ \x1b[7m \x1b[0m\u200b")) == Composer("empty")
    assert composer(claude("❯ mine\x1b[7m \x1b[0m\u200b")) == Composer("text", "mine")
    assert composer(claude("❯ one", "  two \u200b")) == Composer("text", "one\ntwo")
    assert composer(claude("❯ a\u200bb")) == Composer("text", "a\u200bb")


def test_a_draft_whose_later_line_begins_with_the_glyph_is_read_whole() -> None:
    assert composer(claude("❯ one", "  ❯ two", "", "❯ three")).text == "one\n❯ two\n\n❯ three"
    assert composer(claude("❯ ", "  > quoted")) == Composer("text", "> quoted")


def test_what_was_said_above_the_rules_of_the_composer_is_not_in_it() -> None:
    assert composer(claude("❯ mine", above="❯ said\n  ❯ queued")) == Composer("text", "mine")
    # A lone rule higher up, as under a table or after a turn, closes no block.
    assert composer(f"{RULE}\n❯ said\n\n❯ mine\n") == Composer("text", "mine")
