"""Mentions of files: what a sender can't make its reader open."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.sessions.doors.text import WORD_JOINER, defuse_mentions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes.md").touch()
    (tmp_path / "a b.txt").touch()
    (tmp_path / "src").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    return tmp_path


@pytest.mark.requirement("launch:mentions")
@pytest.mark.parametrize(
    "text",
    [
        "@notes.md",
        "see @notes.md please",
        "(see\n@notes.md)",
        "@notes.md.",
        "@notes.md, and",
        "@notes.md#L3-9",
        '@"a b.txt"',
        "@a\\ b.txt",
        "@src",
        "@src/",
        "@./notes.md",
        "@src/../notes.md",
        "@/etc/passwd",
        "@~",
        "@gone",
    ],
)
def test_a_mention_of_what_exists_becomes_plain_text(folder: Path, text: str) -> None:
    found = defuse_mentions(text, folder)
    assert found == text.replace("@", f"@{WORD_JOINER}")


@pytest.mark.parametrize(
    "text",
    [
        "ann@notes.md",
        "@nobody",
        "@",
        "@ notes.md",
        "mail me@example.org",
        "@property\ndef x(): ...",
        "a @\u0000b",
    ],
)
def test_everything_else_stays_as_it_is(folder: Path, text: str) -> None:
    assert defuse_mentions(text, folder) == text


@given(st.text())
def test_nothing_but_joiners_is_ever_added(text: str) -> None:
    found = defuse_mentions(text, Path("/"))
    assert found.replace(f"@{WORD_JOINER}", "@") == text.replace(f"@{WORD_JOINER}", "@")
