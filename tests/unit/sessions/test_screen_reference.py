"""The screen reader against the plain one it replaced, on screens nobody would draw."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.sessions.model import marks_of
from iapeer.sessions.screen import Dialog, Marks, read_screen
from iapeer.sessions.sgr import Capture, plain
from tests.unit.sessions import reference_screen as reference

RULE = "─" * 20
CLAUDE, CODEX, DEMO, QWEN = (
    marks_of(load_manifest(SHIPPED / f"{name}.toml"))
    for name in ("claude", "codex", "demo", "qwen")
)

codes = (
    st.sampled_from(["", "0", "1", "2", "2", "7", "22", "27", "31", "39", "38;5;246", "48;5;246"])
    | st.sampled_from(["00", "002", "0:1", "2:", ":", "10;;2", "4:3", "4:0", "38:5:246", "58;5;2"])
    | st.sampled_from(["38;5;24", "038;5;0246", "38;2;1;2;3", "38:2::1:2:3", "48;2;9;9"])
    | st.sampled_from(["38", "38;5", "38;2;1", "38;9", "\u0663"])
    | st.integers(0, 120).map(str)
)
sgr = st.lists(codes, min_size=1, max_size=4).map(lambda found: f"\x1b[{';'.join(found)}m")
renderings = st.one_of(
    st.sampled_from(["\x1b[0m", "\x1b[m", "\x1b[2m", "\x1b[7m", "\x1b[0;2m", "\x1b[38;5;246m"]), sgr
)
cursors = st.sampled_from(
    ["\x1b[7mT\x1b[0;2mry", "\x1b[7m \x1b[0m", "\x1b[7m \x1b[0m\u200b", "\x1b[7;2m x\x1b[27my"]
) | st.sampled_from(
    [" \x1b[7mT\x1b[K\x1b[0m\x1b[38;5;246mry", "a\x1b[7mT\x1b[0;2mry", "\x1b[7mTr\x1b[0;2my"]
)
sequences = (
    st.sampled_from(["\x1b[K", "\x1b[2;3H", "\x1b[?25l", "\x1b[>4;2m", "\x1b[1 q", "\x1b[3!m"])
    | st.sampled_from(
        [
            "\x1b(B",
            "\x1b)0",
            "\x1b7",
            "\x1bc",
            "\x1b=",
            "\x1b#8",
            "\x1b\\",
            "\x1b]0;t\x07",
            "\x1b]8;;http://x\x1b\\",
        ]
    )
    | st.sampled_from(
        [
            "\x1b]8;;\x1b\\",
            "\x1bP$q\n\x1b[2mq\x1b\\",
            "\x1bXa\x0eb\nc\x07",
            "\x1b^\n❯ \n\x1b[0m\x07",
        ]
    )
    | st.sampled_from(["\x1b_\x1b]\x07", "\x1b]1\x1b[0m\x1b\\"])
)
torn = (
    st.sampled_from(
        [
            "\x1b",
            "\x1b[",
            "\x1b[3",
            "\x1b[38;5",
            "\x1b[0;",
            "\x1b]",
            "\x1b]8;;http://x",
            "\x1bP",
            "\x1b(",
        ]
    )
    | st.sampled_from(
        ["\x1b[?", "\x1b[ ", "\x1b  ", "\x07", "\x9b2m", "\x1b\x1b", "\x1b[0\x1bm", "\x1b\n", "[0m"]
    )
    | st.sampled_from(["m", "0", ";2m", "]", "\\"])
)
shifts = st.sampled_from(["\x0e", "\x0f", "\x0elqk\x0f", "\x0ex\x0f > ", "\x0eqqqq\x0f", "\x0e\nx"])
words = st.one_of(
    st.sampled_from(["a", "half a thought", "  ", "\t", "\r", "\u00a0", "\u3000", "\x1c", "\u200b"])
    | st.sampled_from(["漢字", "e\u0301", "👩\u200d💻", "\ufeff", "\x85", "\u2028", "lqkxjmtuwvn"])
    | st.sampled_from(["[Pasted text #1]", "[Image #2]", "esc to interrupt", "trust this folder"])
    | st.sampled_from(["bypass permissions on", "Pane is dead", "Pane is dead (status 3, x)", '"']),
    st.text(max_size=12),
)
furniture = st.sampled_from(
    ["❯", "❯ ", "❯\u00a0", "› ", "> ", "* ", "  ❯", "│", "│ > ", " │", "┃", "║❯", "║", RULE, "───"]
) | st.sampled_from(["──", "╭──╮", "╰──╯", f"{RULE} name ──", " ─ ─ ─", "▀▀▀", "── ", "··"])
pieces = st.one_of(
    words, words, furniture, renderings, renderings, cursors, sequences, torn, shifts
)
lines = st.lists(pieces, max_size=6).map("".join)
screens = st.lists(lines | st.just(""), max_size=12).map("\n".join)


@st.composite
def framed(draw: st.DrawFn) -> str:
    """A screen as agents draw it: talk, rules, a composer, a footer, each of them a bit off."""
    edge = draw(st.sampled_from(["", "\x1b[2m", "\x1b[38;5;246m", "\x1b[7m"]))
    glyph = draw(st.sampled_from(["❯ ", "❯\u00a0", "> ", "› ", "* ", "│ > ", "│ ❯ "]))
    drafts = draw(st.lists(st.one_of(words, renderings, cursors, st.just("\n"), furniture)))
    side = "│" if glyph.startswith("│") else ""
    composer = glyph + "".join(drafts).replace("\n", f"{side}\n{side}") + side
    rule = draw(st.sampled_from([RULE, f"{edge}{RULE}\x1b[0m", "", f"{RULE} a label"]))
    below = draw(
        st.sampled_from(["", "  bypass permissions on", "\x1b[2m? for shortcuts\x1b[0m\n"])
    )
    return "\n".join([draw(screens), rule, composer, draw(st.sampled_from([rule, ""])), below])


@st.composite
def long(draw: st.DrawFn) -> str:
    """Thousands of characters of few pieces."""
    few = draw(st.lists(pieces | st.just("\n"), min_size=1, max_size=12))
    order = draw(st.randoms(use_true_random=False))
    return "".join(order.choices(few, k=draw(st.integers(200, 800)))) + draw(framed())


captures = st.one_of(screens, framed(), framed(), st.text(max_size=200))

expressions = st.sampled_from(
    ["^❯", "bypass permissions on", "esc to interrupt", "^$", "\\S\\Z", "^ *a|b$", "trust[^\\n]*$"]
) | st.sampled_from(["half(.|\\n)*❯ ", "^[·❯] [^\\n]*(…|a)", "\\n\\n", " $", "─$", "Pane is dead$"])
several = st.lists(expressions, max_size=2).map(tuple)
made_up = st.builds(
    Marks,
    prompt_glyphs=st.lists(
        st.sampled_from(["❯", "›", ">", "> ", "│", "", "❯ half", "*", " >", "─", "a"]), max_size=3
    ).map(tuple),
    ghost_sgr=st.lists(
        st.sampled_from(["2", "38;5;246", "", "0", "7", "2;7", "38:5:24"]), max_size=2
    ).map(tuple),
    paste_patterns=st.sampled_from([(), ("[Pasted text", "[Image #"), ("",)]),
    ready=several,
    not_ready=several,
    busy=several,
    dialogs=st.lists(st.builds(Dialog, expressions), max_size=2).map(tuple),
)
all_marks = st.one_of(st.sampled_from([CLAUDE, CODEX, DEMO, QWEN]), made_up)


# No deadline anywhere here: the plain reader is slow, and a machine may be busy.
@settings(deadline=None)
@given(captures, all_marks)
@example("\x1b]" * 40 + "❯ \x1b[2mx\x07❯ \x1b[0my", CLAUDE)
@example("❯ \x1b\x1b]8;;\x1b\\[2mno rendering", CLAUDE)
@example("❯ \x1b[2;7mT\x1b[0mry", CLAUDE)
@example("❯ \x1b[7mTr\x1b[0;2my", CLAUDE)
@example("❯ \x1b[7m T\x1b[0;2mry", CLAUDE)
@example("❯ \x1b[2m\x1b[0Kghost", CLAUDE)
@example("❯ one\n│ two │\n\nfoot", CLAUDE)
@example("│ ❯ open at its end", CLAUDE)
@example("❯ said\n" * 60 + f"\x1b[2m{RULE}\n❯ one\n\x1b[0mtwo\n{RULE}", CLAUDE)
def test_every_field_is_what_the_plain_reader_says(capture: str, marks: Marks) -> None:
    assert read_screen(capture, marks) == reference.read_screen(capture, marks)


@settings(deadline=None, max_examples=40)
@given(long(), all_marks)
def test_thousands_of_characters_are_read_as_the_plain_reader_does(
    capture: str, marks: Marks
) -> None:
    assert read_screen(capture, marks) == reference.read_screen(capture, marks)


@settings(deadline=None)
@given(captures, st.integers(0, 30), st.integers(0, 30))
def test_every_character_has_the_renderings_the_plain_reader_gives(
    text: str, start: int, length: int
) -> None:
    capture, rows = Capture(text), reference.styled_rows(text)
    assert capture.texts == ["".join(cell.char for cell in row) for row in rows]
    assert plain(text).split("\n") == [reference.plain(row) for row in rows]
    for number, row in enumerate(rows):
        found = [(char, run.style) for run in capture.runs(number) for char in run.text]
        assert found == [tuple(cell) for cell in row]
        part = capture.runs(number, start, start + length)
        assert [(char, run.style) for run in part for char in run.text] == [
            tuple(cell) for cell in row[start : start + length]
        ]
        assert all(run.text for run in part)


@pytest.mark.parametrize(
    ("rows", "looked_at"),
    [
        (["❯ said", "", "no prompt", RULE, "❯ one", "  two", RULE, "foot"], [4, 5]),
        (["› one", "", "foot"], [0]),
        (["nothing here", "> quoted"], []),
    ],
)
def test_renderings_are_worked_out_for_the_rows_of_the_composer_alone(
    rows: list[str], looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    runs = Capture.runs

    def noted(
        capture: Capture, number: int, start: int = 0, end: int | None = None
    ) -> list[object]:
        numbers.append(number)
        return [*runs(capture, number, start, end)]

    monkeypatch.setattr(Capture, "runs", noted)
    coloured = "\n".join(f"\x1b[31m{row}\x1b[0m" for row in rows)
    found = read_screen(coloured, Marks(prompt_glyphs=("❯", "›")))
    assert numbers == looked_at
    assert (found.composer.kind == "none") is (not looked_at)
