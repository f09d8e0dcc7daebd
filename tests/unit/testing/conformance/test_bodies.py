"""What came through is compared item by item, and only known changes are excused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.draft import MESSAGE_MAX
from iapeer.testing.conformance.bodies import (
    NASTY,
    differences,
    judge,
    long_body,
    nasty_body,
)

ITEMS = len(NASTY) + 1


def test_the_bodies_fit_into_a_message() -> None:
    assert len(nasty_body()) <= MESSAGE_MAX
    assert 15_500 < len(long_body()) <= MESSAGE_MAX


def test_what_came_as_it_was_sent_is_exact() -> None:
    assert differences(nasty_body(), nasty_body()) == []
    assert judge([], ITEMS) == (f"{ITEMS} of {ITEMS} exact", "")


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ("\tone\ttwo", "    one    two", "tabs became blanks"),
        ("\n@also", "\n @also", "the blanks before an @ changed"),
    ],
)
def test_a_known_change_is_named_and_passes(old: str, new: str, known: str) -> None:
    found = differences(nasty_body(), nasty_body().replace(old, new).replace("\t", "    "))
    figure, wrong = judge([d for d in found if d.known == known], ITEMS)
    assert known in figure
    assert wrong == ""


def test_another_change_is_counted_and_shown() -> None:
    (found,) = differences(nasty_body(), nasty_body().replace("👍🏿", "??"))
    assert (found.item, found.characters, found.known) == ("emoji", 2, "")
    figure, wrong = judge([found], ITEMS)
    assert figure == f"{ITEMS - 1} of {ITEMS} exact; changed: emoji (2 characters)"
    assert wrong.startswith("at 24: sent '👍🏿\\n', found '??\\n'")


def test_a_lost_head_line_is_no_excuse() -> None:
    (found,) = differences(nasty_body(), nasty_body().replace("== emoji ==\n", ""))
    assert (found.item, found.known) == ("text", "")


@given(st.text(max_size=60), st.text(max_size=60))
def test_every_difference_is_found(one: str, other: str) -> None:
    found = differences(one, other)
    assert bool(found) == (one != other)
    assert all(d.characters > 0 for d in found)
