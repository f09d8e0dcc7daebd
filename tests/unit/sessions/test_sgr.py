from __future__ import annotations

import pytest

from iapeer.sessions.sgr import Capture, Run, plain, rendering


@pytest.mark.parametrize(
    ("parameters", "on"),
    [
        ("", set()),
        ("0", set()),
        ("2", {"2"}),
        ("0;2", {"2"}),
        ("2;0", set()),
        ("00;02", {"2"}),
        ("1;2;22", set()),
        ("1;2;3;23", {"1", "2"}),
        ("38;5;246", {"38;5;246"}),
        ("38;5;246;2", {"38;5;246", "2"}),
        ("38:5:246", {"38;5;246"}),
        ("38;2;1;2;3", {"38;2;1;2;3"}),
        ("38:2::1:2:3", {"38;2;1;2;3"}),
        ("38:2:1:2:3", {"38;2;1;2;3"}),
        ("38;2;1;2;3;39", set()),
        ("31;38;5;7", {"38;5;7"}),
        ("38;5;7;91", {"91"}),
        ("48;5;2", {"48;5;2"}),
        ("48;5;2;49", set()),
        ("58;5;2;4:3;59;24", set()),
        ("4:0", set()),
        ("38;5", set()),
        ("38;2;1", set()),
        ("38;9;1", {"1"}),
        ("7;27", set()),
    ],
)
def test_parameters_turn_renderings_on_and_off(parameters: str, on: set[str]) -> None:
    assert rendering(parameters) == on


def test_text_keeps_its_characters_and_loses_all_sequences() -> None:
    text = "a\x1b[31mb\x1b]8;;http://x\x1b\\c\x1b]0;t\x07d\x1b[2Ke\x1b(Bf  \n\x0eqx\x0fq\x1b"
    assert plain(text).split("\n") == ["abcdef", "─│q"]


def test_a_rendering_lasts_over_the_end_of_a_row() -> None:
    capture = Capture("\x1b[2ma\nb\x1b[0m\nc")
    assert [capture.runs(number)[0].style for number in range(3)] == [{"2"}, {"2"}, set()]


def test_a_part_of_a_row_has_its_characters_and_their_renderings() -> None:
    capture = Capture("a\n0\x1b[2m1\x1b[K2\x1b[1m\x0eq\x0f4 ")
    assert capture.texts == ["a", "012─4 "]
    both = frozenset({"1", "2"})
    assert capture.runs(1, 2, 5) == [Run("2", frozenset({"2"})), Run("─", both), Run("4", both)]
    assert capture.runs(1, 6) == capture.runs(1, 3, 3) == []
