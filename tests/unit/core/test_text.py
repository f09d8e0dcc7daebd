from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.text import MASK, SafeText, one_line, redact, safe_text

any_text = st.text(alphabet=st.characters(codec=None), max_size=60)
control_text = st.text(alphabet="\r\n\t\x00\x1b\x7f\x85\x9b\ufeff\ud800\udc00 a[~", max_size=30)


@pytest.mark.requirement("delivery:paste:safe-text")
@pytest.mark.parametrize(
    ("text", "safe", "altered"),
    [
        ("plain\n\ttext ü 😀", "plain\n\ttext ü 😀", 0),
        ("a\r\nb", "a\nb", 1),
        ("a\rb\r", "a\nb\n", 2),
        ("a\r\r\nb", "a\n\nb", 2),
        ("\x1b[201~/quit\r", "[201~/quit\n", 2),
        ("a\x9b201~\x7f\x03\x00", "a201~", 4),
        ("\ufeffa\ud800", "a", 2),
        ("a\u2028b", "a\u2028b", 0),
    ],
)
def test_only_what_a_terminal_acts_on_is_altered(text: str, safe: str, altered: int) -> None:
    assert safe_text(text) == SafeText(safe, altered)


@given(any_text | control_text)
def test_safe_text_is_idempotent_and_free_of_forbidden_characters(text: str) -> None:
    safe = safe_text(text)
    assert safe_text(safe.text) == SafeText(safe.text, 0)
    assert (safe.altered == 0) is (safe.text == text)
    for character in safe.text:
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        assert character != "\ufeff"
    safe.text.encode()


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [
        ("  a \n\t b\x1b[0m\u202e ", 20, "a b [0m"),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab  cdefg", 4, "ab…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("a\u2028b\x85c", 9, "a b c"),
    ],
)
def test_one_line_collapses_and_cuts(text: str, limit: int, line: str) -> None:
    assert one_line(text, limit) == line


@given(any_text, st.integers(min_value=0, max_value=20))
def test_one_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    line.encode()


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("token=abc!", ["abc"], f"token={MASK}!"),
        ("abcd", ["abc", "bcd"], MASK),
        ("aaa", ["aa"], MASK),
        ("abcabc", ["abc"], MASK),
        ("abc abc", ["abc"], f"{MASK} {MASK}"),
        ("a.c abc", ["a.c"], f"{MASK} abc"),
        ("nothing", [], "nothing"),
        ("nothing", ["", "x"], "nothing"),
        ("abcdef", ["abcdef", "cd"], MASK),
        ("***", ["*"], MASK),
    ],
)
def test_every_part_of_every_secret_is_masked(text: str, secrets: list[str], shown: str) -> None:
    assert redact(text, secrets) == shown


@given(
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
    st.text(alphabet="abcx", max_size=30),
)
def test_no_secret_survives_redaction(secrets: list[str], text: str) -> None:
    assert not any(secret in redact(text, secrets) for secret in secrets)
