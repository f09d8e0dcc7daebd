from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.identity import Intelligence
from iapeer.core.logfmt import format_line


@pytest.mark.requirement("logs:format:line")
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("bare", "bare"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", "back\\slash"),
        ("back\\slash quoted", '"back\\\\slash quoted"'),
        ("a\nb\r\tc", '"a\\nb\\r\\tc"'),
        ("\x1b[0m", '"\\u001b[0m"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("\ud800", '"\\ud800"'),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.5, "1.5"),
        (Intelligence.NATURAL, "natural"),
    ],
)
def test_values_are_quoted_by_the_contract(value: object, written: str) -> None:
    assert format_line([("key", value)]) == f"key={written}"


@pytest.mark.requirement("logs:format:line")
def test_order_is_kept_and_undefined_fields_are_left_out() -> None:
    line = format_line([("ts", "2026-01-01T00:00:00.000Z"), ("ev", "wake"), ("rt", None), ("a", 1)])
    assert line == "ts=2026-01-01T00:00:00.000Z ev=wake a=1"
    assert format_line([]) == ""


def test_a_key_can_not_break_the_record() -> None:
    assert format_line([('a b="\n', "x")]) == "a_b___=x"


@pytest.mark.requirement("logs:format:newline")
@given(st.lists(st.tuples(st.just("k"), st.text(alphabet=st.characters(codec=None))), min_size=1))
def test_a_record_is_one_line_that_any_log_can_hold(pairs: list[tuple[str, str]]) -> None:
    line = format_line(pairs)
    assert line.splitlines() == [line]
    line.encode()
