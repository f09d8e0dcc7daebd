from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks import gate, report
from benchmarks.figures import Budget, Figure, Size, by_turns, spread
from benchmarks.rows import BY_NAME, GATED, ROWS


def figure(limit: float, ours: float, **budget: float) -> Figure:
    return Figure(
        row="r",
        what="w",
        unit="ms",
        limit=spread([limit]),
        ours=spread([ours]),
        budget=Budget(**budget),
    )


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (figure(1, 3, ratio=3), True),
        (figure(1, 3.1, ratio=3), False),
        (figure(10, 3, least_ratio=0.3), True),
        (figure(10, 2.9, least_ratio=0.3), False),
        (figure(1, 9, ratio=10, most=10), True),
        (figure(1, 9, ratio=10, most=8), False),
        (figure(1, 9, ratio=10, most_p99=8), False),
        (figure(1, 9, gate=2), None),
        (figure(0, 9, ratio=10), False),
    ],
)
def test_a_budget_is_met_when_each_of_its_parts_is(found: Figure, met: bool | None) -> None:
    assert found.met is met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = Figure(row="r", what="w", unit="s", budget=Budget(most=1), note="not measured: why")
    assert found.met is None
    assert "not measured" in report.text_lines([found])


def test_a_spread_is_of_the_sorted_samples() -> None:
    found = spread([*range(100, 0, -1)], scale=10)
    assert (found.median, found.low, found.high, found.p99) == (505, 110, 910, 1000)
    assert found.count == 100


def test_both_sides_take_turns_in_going_first() -> None:
    calls: list[str] = []

    def note(side: str) -> float:
        calls.append(side)
        return float(len(calls))

    limit, ours = by_turns(lambda: note("l"), lambda: note("o"), 4, warm=1)
    assert (len(limit), len(ours)) == (4, 4)
    assert "".join(calls) == "olloollool"
    assert not set(limit) & set(ours)


def test_the_gate_compares_ratios_with_its_own_margin() -> None:
    assert gate.is_slow(figure(1, 9, ratio=3, gate=8))
    assert not gate.is_slow(figure(1, 7, ratio=3, gate=8))
    assert not gate.is_slow(figure(1, 900, ratio=3))


def test_every_gated_row_exists_and_names_are_used_once() -> None:
    assert set(GATED) <= BY_NAME.keys()
    assert len(BY_NAME) == len(ROWS)


def test_a_size_never_measures_less_than_a_few() -> None:
    assert (Size().times(200), Size(0.5).times(200), Size(0.001).times(200)) == (200, 100, 5)


def test_only_what_stands_between_the_marks_of_the_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.write_page("new", page)
    report.write_page("newer", page)
    text = page.read_text(encoding="utf-8")
    assert text == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="has no"):
        report.write_page("new", page)


def test_figures_can_be_written_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(figure(1, 2)))["ours"]["median"] == 2
