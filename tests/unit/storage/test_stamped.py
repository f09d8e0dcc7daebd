from __future__ import annotations

import os
from pathlib import Path

import pytest

from iapeer.storage.stamped import RACY_NS, Stamped


class Reader:
    """Counts what it is asked to make."""

    def __init__(self, most: int = 1) -> None:
        self.made = 0
        self.file = Stamped(self._make, most)

    def _make(self, data: bytes, _path: Path) -> str:
        self.made += 1
        return data.decode()


def _write(path: Path, text: str, age_s: float = 60.0) -> Path:
    path.write_text(text, encoding="utf-8")
    at = path.stat().st_mtime_ns - int(age_s * 1e9)
    os.utime(path, ns=(at, at))
    return path


def test_what_was_made_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    reader, path = Reader(), _write(tmp_path / "a", "one")
    assert [reader.file.of(path) for _ in range(3)] == ["one"] * 3
    assert reader.made == 1
    _write(path, "two!", age_s=30)
    assert [reader.file.of(path) for _ in range(3)] == ["two!"] * 3
    assert reader.made == 2


def test_another_file_of_the_same_time_and_size_is_another_one(tmp_path: Path) -> None:
    reader, path = Reader(), _write(tmp_path / "a", "one")
    assert reader.file.of(path) == "one"
    info = path.stat()
    other = _write(tmp_path / "b", "two")
    os.utime(other, ns=(info.st_mtime_ns, info.st_mtime_ns))
    other.replace(path)
    assert reader.file.of(path) == "two"


def test_a_file_that_has_just_been_written_is_read_again(tmp_path: Path) -> None:
    reader, path = Reader(), _write(tmp_path / "a", "one", age_s=-60)
    assert [reader.file.of(path), reader.file.of(path)] == ["one", "one"]
    assert reader.made == 2
    assert RACY_NS < 1e9


def test_a_file_that_is_gone_or_bad_is_told_and_forgotten(tmp_path: Path) -> None:
    reader, path = Reader(), _write(tmp_path / "a", "one")
    assert reader.file.of(path) == "one"
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        reader.file.of(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        reader.file.of(path)
    assert reader.file.of(_write(path, "back")) == "back"


def test_no_more_than_so_many_are_kept(tmp_path: Path) -> None:
    reader = Reader(most=3)
    paths = [_write(tmp_path / str(n), str(n)) for n in range(20)]
    for _ in range(2):
        assert [reader.file.of(path) for path in paths] == [str(n) for n in range(20)]
    assert len(reader.file._kept) <= 3
