from __future__ import annotations

from pathlib import Path

import pytest

from iapeer.registry.units import SENTINEL, Unit, unit_of, unit_path


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        (f"[Unit]\n{SENTINEL}\n[Service]\n", Unit.OURS),
        (f"[Unit]\n  {SENTINEL}  \n", Unit.OURS),
        (f"[Unit]\n# {SENTINEL}\n", Unit.FOREIGN),
        ("", Unit.FOREIGN),
    ],
)
def test_a_unit_file_says_whose_it_is(tmp_path: Path, text: str, whose: Unit) -> None:
    unit_path(tmp_path, "ann").write_text(text, encoding="utf-8")
    assert unit_of(tmp_path, "ann") == whose
    assert unit_of(tmp_path, "an") == Unit.NONE


def test_what_can_not_be_read_is_somebody_elses(tmp_path: Path) -> None:
    unit_path(tmp_path, "ann").mkdir()
    assert unit_of(tmp_path, "ann") == Unit.FOREIGN


def test_without_a_folder_there_are_no_units(tmp_path: Path) -> None:
    assert unit_of(tmp_path / "none", "ann") == Unit.NONE
